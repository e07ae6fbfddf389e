"""Files that are either whole or not there."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ktl.errors import UserError


def new_folder(path: str | os.PathLike, *, argument: str) -> Path:
    """The path of a folder that is not there, or is empty; it is not made.

    Raises:
        UserError: something is there; `argument` has named it.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"Expected a new or empty folder. Received: `{argument}` {path}")
    return path


def make_folder(path: Path, *, argument: str = "output") -> None:
    """Makes a folder, and those above it, unless it is there.

    Raises:
        UserError: it cannot be made or written to; `argument` has named it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"Expected a folder that can be made. Received: `{argument}` {path} ({error.strerror})"
        ) from error
    if not os.access(path, os.W_OK):
        raise UserError(f"Expected a folder that can be written to. Received: `{argument}` {path}")


def is_inside(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Whether a path, of what may be still to be made, is a folder or leads into it, whatever its spelling."""
    real = Path(os.path.realpath(path))
    return any(place.exists() and os.path.samefile(place, folder) for place in (real, *real.parents))


def missing_folders(path: Path) -> list[Path]:
    """Those that `make_folder` would make, the deepest first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Removes folders one by one, up to the first that is not empty or not there."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def refuse_links(folder: Path, *, argument: str = "output") -> None:
    """Refuses a folder with links in it: whoever writes or removes by a path could be led out of it. The folder may be
    a link itself.

    Raises:
        UserError: there is one; `argument` has named the folder.
    """
    for parent, folders, names in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *names)):
            if path.is_symlink():
                raise UserError(
                    f"Expected `{argument}` to have no links in it, which lead elsewhere. Received: {path}, a link to "
                    f"{os.readlink(path)}"
                )


def empty_folder(path: Path, *, last: str, keep: Collection[str] = ()) -> None:
    """Removes what is in a folder, which may be a link, a mount, or where somebody's shell is.

    Args:
        path: the folder.
        last: name of the file that goes last: after a kill it still tells whose folder it is.
        keep: names of files that stay.
    """
    for child in sorted(path.iterdir(), key=lambda child: child.name == last):
        if child.name in keep:
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def open_regular(path: str | os.PathLike) -> io.BufferedReader:
    """Opens a regular file for reading: a reader of a named pipe or a device could wait without end.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    # Not blocking, so that a pipe without a writer is opened at once, and can be told from a file.
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    return file


def read_regular(path: str | os.PathLike) -> bytes:
    """The bytes of a regular file, see `open_regular`."""
    with open_regular(path) as file:
        return file.read() or b""


def digest(path: str | os.PathLike) -> str:
    """The SHA-256 digest of a regular file, hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_lines(path: str | os.PathLike) -> tuple[str, ...]:
    """The lines of a text file; only a newline ends one, whatever else `str.splitlines` takes for an end."""
    return tuple(read_regular(path).decode().removesuffix("\n").split("\n"))


def write_lines(path: str | os.PathLike, lines: Iterable[str]) -> None:
    """Writes what `read_lines` reads."""
    write_atomically(path, "".join(f"{line}\n" for line in lines))


FORMAT_VERSION = 1
"""Of the JSON files that ktl reads back. Version 0.1 wrote none, which counts as 0."""


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """The object in a JSON file, without its `format_version`.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is no JSON object, or a later version of ktl wrote it.
    """
    value = _json_object(path)
    value.pop("format_version", None)
    return value


def format_version(path: str | os.PathLike) -> int:
    """The `format_version` of a JSON file: 0 of one that version 0.1 wrote. Raises what `read_json` does."""
    return _json_object(path).get("format_version", 0)


def _json_object(path: str | os.PathLike) -> dict[str, Any]:
    try:
        value = json.loads(read_regular(path))
    except ValueError as error:
        raise UserError(f"Expected a JSON file. Received: {path} ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"Expected a JSON object. Received: {path}, with {type(value).__name__}")
    version = value.get("format_version", 0)
    if version not in range(FORMAT_VERSION + 1):
        raise UserError(f"Expected format_version {FORMAT_VERSION} or below. Received: {version} in {path}. Update ktl")
    return value


def write_json(path: str | os.PathLike, value: Mapping[str, Any]) -> None:
    """Writes what `read_json` reads."""
    write_atomically(path, json.dumps({"format_version": FORMAT_VERSION, **value}, indent=2) + "\n")


def read_csv(path: str | os.PathLike) -> list[dict[str, str]]:
    """The rows of a CSV file that `write_csv` wrote."""
    return list(csv.DictReader(io.StringIO(read_regular(path).decode(), newline="")))


def write_csv(path: str | os.PathLike, header: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Writes a CSV file whose lines end in a newline alone."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_atomically(path, text.getvalue())


def write_atomically(path: str | os.PathLike, content: str | Callable[[BinaryIO], object]) -> None:
    """Writes a file under another name and moves it into place, so that a kill leaves the old one or the new one.

    Args:
        path: the file.
        content: its text, or a function that writes it to an open binary file.
    """
    folder, name = os.path.split(os.fspath(path))
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}-", dir=folder or ".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            if isinstance(content, str):
                file.write(content.encode())
            else:
                content(file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # an interrupt just after it was moved
            os.unlink(temporary)
        raise


def is_temporary(name: str) -> bool:
    """Whether a file's name is one under which `write_atomically` writes, or `ktl.runs.run_folder` a model."""
    return re.fullmatch(r"\..+-[a-z0-9_]{8}(\.keras)?", name) is not None
