"""Names in the cache folder."""

import re
import uuid

SHARD, PARTIAL, CLAIM, LOCK = ".shard", ".partial", ".claim", ".lock"
"""Ends of names: of a whole file of rows, of one that is being written, of what a process computes, of its lock."""

NAME = re.compile(r"[0-9a-f]{32}")
"""What names of entries are, and names of files begin with."""


def new_name() -> str:
    """A name that no other file has."""
    return uuid.uuid4().hex
