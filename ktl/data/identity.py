"""Which paths lead to one file."""

import filecmp
import os
from collections.abc import Iterable
from pathlib import Path


def twins(files: Iterable[tuple[Path, os.stat_result]]) -> list[tuple[Path, Path]]:
    """The paths that lead to the file of an earlier one, each with that one.

    A file is what the disk calls it, whatever its spelling: another letter case on disks that do not tell them apart,
    links of either kind, folders that are links.

    Args:
        files: paths of regular files, and what `os.stat` says of each.
    """
    first: dict[object, Path] = {}
    found = []
    for path, status in files:
        # A disk without such numbers gives 0. Some networks' disks repeat them, so that the bytes have the last word.
        key = (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)
        other = first.setdefault(key, path)
        if other is not path and filecmp.cmp(other, path, shallow=False):
            found.append((path, other))
    return found
