"""Copies of what is at URLs, for those who read files here: in the user's cache folder, until there are others."""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ktl.errors import UserError, reason_of
from ktl.files import digest
from ktl.folders import cache_folder, make_folder
from ktl.names import is_url
from ktl.remote import RemoteFile, download, file_at, name_of

FOLDER = "models"
"""In ktl's own folder in the user's cache folder."""


def copy_of(url: str, files: Sequence[RemoteFile], *, argument: str) -> Path:
    """A folder in the user's cache folder with copies of files at a URL, which are copied again where one of them has
    changed, and always if their server does not tell.

    Args:
        url: what they are of.
        files: these, by their names in the folder.
        argument: has given the URL.

    Raises:
        UserError: there is no such folder.
        OSError: a file has gone, or the disk is full.
        Unreachable: the server cannot be reached.
    """
    copies = cache_folder() / FOLDER
    make_folder(copies, argument=argument)
    name, told = _digest(url), all(file.stamp for file in files)
    copy = copies / f"{name}-{_digest(repr(sorted((file.name, file.stamp) for file in files)))}"
    if told and copy.is_dir():
        return copy
    earlier = set(copies.glob(f"{name}-*"))
    with tempfile.TemporaryDirectory(dir=copies, prefix=".copying-") as partial:
        whole = Path(partial, "copy")
        for file in files:
            target = whole / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            download(file.url, target)
        if not told:
            copy = copies / f"{name}-{_digest(repr([digest(whole / file.name) for file in files]))}"
        with contextlib.suppress(OSError):  # it is there: another process was quicker
            whole.rename(copy)
    for folder in earlier - {copy}:
        shutil.rmtree(folder, ignore_errors=True)
    return copy


@contextlib.contextmanager
def local_file(place: str, *, argument: str) -> Iterator[str]:
    """The path of a file that a caller gave: of one at a URL that of a copy, see `copy_of`, with the same end.

    Errors of the block name the URL.

    Raises:
        UserError: there is no file at the URL; `argument` has given it.
        Unreachable: its server cannot be reached.
    """
    if not is_url(place):
        yield place
        return
    end = "".join(Path(name_of(place)).suffixes[-2:])  # as `.weights.h5`
    try:
        copy = copy_of(place, [file_at(place)._replace(name=f"file{end}")], argument=argument) / f"file{end}"
    except OSError as error:
        reason = error.strerror or reason_of(error)
        raise UserError(f"Expected `{argument}` to be a file. Received: {place} ({reason})") from error
    try:
        yield str(copy)
    except UserError as error:
        raise type(error)(f"{error}".replace(f"{copy}", place)) from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
