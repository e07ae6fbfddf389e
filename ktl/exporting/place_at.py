"""Exports at URLs: made and verified on this disk, then copied there as a whole."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ktl.arguments import path_of
from ktl.errors import UserError
from ktl.exporting.place import MARK
from ktl.exporting.record import EXPORT_JSON
from ktl.names import is_url
from ktl.remote import download, files_in, joined_url, name_of, remove, require_writable, scratch_folder, upload


@contextlib.contextmanager
def folder_for(output: str | os.PathLike, *, argument: str = "output") -> Iterator[Path]:
    """The folder that an export goes to; of a URL a folder on this disk with what is there. When the block has ended
    well, what it has made is there, export.json last: with it, an export is whole.

    Raises:
        UserError: something else is there, or its server cannot be reached; or what the block raises.
    """
    if not is_url(output):
        yield path_of(output, argument=argument)
        return
    require_writable(output, argument=argument)
    with scratch_folder() as scratch:
        folder = scratch / (name_of(output) or "export")
        is_there = _brought(output, folder)
        try:
            yield folder
        except UserError as error:  # names the folder that the user has never seen
            raise type(error)(f"{error}".replace(f"{folder}", output)) from error
        if not is_there and folder.is_dir():
            _send(folder, output)


def _brought(url: str, folder: Path) -> bool:
    """Whether an export, or something else, is at a URL, which is in the folder then. What an interrupted copy has left
    there is removed."""
    files = files_in(url)
    names = {file.name for file in files}
    if MARK in names and EXPORT_JSON not in names:
        for file in sorted(files, key=lambda file: file.name == MARK):
            remove(file.url)
        return False
    for file in files if EXPORT_JSON in names else files[:1]:  # of something else, one tells that it is there
        (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
        download(file.url, folder / file.name)
    return bool(files)


def _send(folder: Path, url: str) -> None:
    """Copies an export, with a mark that goes when all is there."""
    mark = folder / MARK
    mark.touch()
    files = [path for path in folder.rglob("*") if path.is_file()]
    order = {MARK: 0, EXPORT_JSON: 2}
    for path in sorted(files, key=lambda path: order.get(path.relative_to(folder).as_posix(), 1)):
        upload(path, joined_url(url, path.relative_to(folder).as_posix()))
    remove(joined_url(url, MARK))
