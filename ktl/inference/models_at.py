"""Models at URLs: copied to the user's cache folder, and copied again where they have changed."""

import os
from pathlib import Path

from ktl.arguments import path_of
from ktl.copies import copy_of
from ktl.errors import UserError
from ktl.names import is_url
from ktl.remote import files_in

PARTS = ("", "assets", "variables", "best", "best/assets", "best/variables")
"""Folders that a model's files are in: of a run or an export, or of a search's best run. A run has more, for itself."""


def model_folder(path: str | os.PathLike) -> Path:
    """The folder of a model, or a copy of what is at its URL.

    Raises:
        UserError: there is nothing, or its server cannot be reached.
    """
    if not is_url(path):
        return path_of(path, argument="model")
    files = [file for file in files_in(path) if file.name.rpartition("/")[0] in PARTS]
    if not files:
        raise UserError(f"Expected the folder of a run that has ended, or of an export. Received: {path}, with no file")
    return copy_of(path, files, argument="model")
