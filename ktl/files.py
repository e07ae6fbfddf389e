"""Files that are either whole or not there."""

import contextlib
import csv
import errno
import hashlib
import io
import itertools
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ktl.errors import DamagedError, UserError, reason_of, shown


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


WAY_ON = "Restore it from a copy, or make the folder anew"
"""What to do about a damaged file."""


def damaged(path: str | os.PathLike, reason: object) -> DamagedError:
    """The error that names a file which is not as ktl writes it."""
    return DamagedError(f"Expected {path} as ktl wrote it. Received: {reason}. {WAY_ON}")


@contextlib.contextmanager
def way_on(advice: str) -> Iterator[None]:
    """Says of a file that is damaged what to do about it, in the place of `WAY_ON`."""
    try:
        yield
    except DamagedError as error:
        raise DamagedError(f"{error}".replace(WAY_ON, advice)) from error


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Blames a file for whatever is raised while its content is taken apart.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it may not be read.
        DamagedError: it is damaged.
    """
    try:
        yield
    except (UserError, FileNotFoundError, NotADirectoryError):
        raise
    except PermissionError as error:
        raise UserError(f"Expected a file that this user may read. Received: {path} ({error.strerror})") from error
    except KeyError as error:
        raise damaged(path, f"a file without {error}") from error
    except Exception as error:  # damaged bytes make parsers raise almost any type
        raise damaged(path, getattr(error, "strerror", None) or reason_of(error)) from error


CHECKSUMS = "checksums.json"
"""A folder's file with the SHA-256 digests of its other files; JSON files have a checksum each."""


def write_checksums(folder: Path, *, pattern: str = "*") -> None:
    """Writes checksums.json, of the files that are neither JSON nor hidden; it is the last to be written.

    What is read of such a folder afterwards is compared. A folder without the file, as of version 0.1, is not.

    Args:
        folder: which.
        pattern: of the files' paths in it; `**/*` for those at any depth.
    """
    files = (path for path in sorted(folder.glob(pattern)) if path.is_file() and path.suffix != ".json")
    names = [path.relative_to(folder).as_posix() for path in files]
    digests = {name: digest(folder / name) for name in names if not re.search(r"(^|/)\.", name)}
    write_json(folder / CHECKSUMS, {"sha256": digests})


def check_file(path: str | os.PathLike, found: str | None = None) -> None:
    """Compares a file with what the nearest checksums.json says: beside it, or up to two folders above it.

    Args:
        path: the file.
        found: its SHA-256 digest, where it is known.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it cannot be read, or is not what was written.
    """
    path = Path(path)
    for folder in list(path.absolute().parents)[:3]:
        if not (folder / CHECKSUMS).exists():
            continue
        try:
            with reading(folder / CHECKSUMS):
                wanted = read_json(folder / CHECKSUMS)["sha256"].get(path.absolute().relative_to(folder).as_posix())
        except UserError:
            if folder == path.absolute().parent:
                raise
            continue  # of an export's folder, whose own files tell of the damage; or somebody else's
        with reading(path):
            if wanted is not None and (found or digest(path)) != wanted:
                raise damaged(path, f"another content than {folder / CHECKSUMS} says")
        return


def is_as_written(folder: Path) -> bool:
    """Whether the checksums of a folder, and of all its JSON files, are there and right."""
    try:
        read = (path for pattern in ("*.json", "best/*.json", "runs/*/run.json") for path in folder.glob(pattern))
        return (folder / CHECKSUMS).is_file() and all(map(_says_its_checksum, read))
    except (UserError, OSError):
        return False


def _says_its_checksum(path: Path) -> bool:
    return bool(read_json(path)) and f'"{_CHECKSUM}"'.encode() in read_regular(path)


def _checked_bytes(path: str | os.PathLike) -> bytes:
    with reading(path):
        content = read_regular(path)
    check_file(path, hashlib.sha256(content).hexdigest())
    return content


def read_lines(path: str | os.PathLike) -> tuple[str, ...]:
    """The lines of a text file; only a newline ends one, whatever else `str.splitlines` takes for an end.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged.
    """
    content = _checked_bytes(path)
    with reading(path):
        return tuple(content.decode().removesuffix("\n").split("\n"))


def write_lines(path: str | os.PathLike, lines: Iterable[str]) -> None:
    """Writes what `read_lines` reads."""
    write_atomically(path, "".join(f"{line}\n" for line in lines))


FORMAT_VERSION = 1
"""Of the JSON files that ktl reads back. Version 0.1 wrote none, which counts as 0."""

_CHECKSUM = "checksum"
"""Key of a JSON file's own checksum: whoever edits the file removes the line."""


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """The object in a JSON file, without its `format_version` and its checksum.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is no JSON object, is damaged, or a later version of ktl wrote it.
    """
    value = _json_object(path)
    value.pop("format_version", None)
    return value


def format_version(path: str | os.PathLike) -> int:
    """The `format_version` of a JSON file: 0 of one that version 0.1 wrote. Raises what `read_json` does."""
    return _json_object(path).get("format_version", 0)


def _json_object(path: str | os.PathLike) -> dict[str, Any]:
    with reading(path):
        value = json.loads(read_regular(path))
        if not isinstance(value, dict):
            raise TypeError(f"no JSON object but {shown(value)}")
        recorded, found = value.pop(_CHECKSUM, None), _checksum(value)  # of brackets in brackets it may not be written
    version = value.get("format_version", 0)
    if type(version) is not int or version not in range(FORMAT_VERSION + 1):
        raise UserError(
            f"Expected format_version {FORMAT_VERSION} or below. Received: {shown(version)} in {path}. Update ktl"
        )
    if recorded not in (None, found):
        raise damaged(path, f"another content than its `{_CHECKSUM}` says; remove that line if you have edited it")
    return value


def _checksum(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_json(path: str | os.PathLike, value: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """Writes what `read_json` reads; without an indent, on one line."""
    whole = json.loads(json.dumps({"format_version": FORMAT_VERSION, **value}))  # keys are texts from here on
    whole.pop(_CHECKSUM, None)
    write_atomically(path, json.dumps({**whole, _CHECKSUM: _checksum(whole)}, indent=indent) + "\n")


def read_csv(path: str | os.PathLike) -> list[dict[str, str]]:
    """The rows of a CSV file that `write_csv` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged.
    """
    content = _checked_bytes(path)
    with reading(path):
        reader = csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True)
        rows = list(reader)
        if not reader.fieldnames or any(None in row or None in row.values() for row in rows):
            raise ValueError("rows that have not the columns of its first line")
    return rows


def write_csv(path: str | os.PathLike, header: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Writes a CSV file whose lines end in a newline alone, row by row: it may be larger than the memory."""

    def write(file: BinaryIO) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        csv.writer(text, lineterminator="\n").writerows(itertools.chain([header], rows))
        text.detach()  # it writes what is left, and leaves the file open

    write_atomically(path, write)


def write_atomically(path: str | os.PathLike, content: str | Callable[[BinaryIO], object]) -> None:
    """Writes a file under another name and moves it into place, so that a kill leaves the old one or the new one.

    Args:
        path: the file.
        content: its text, or a function that writes it to an open binary file.

    Raises:
        UserError: a folder has its name.
    """
    if os.path.isdir(path) and not os.path.islink(path):
        raise UserError(f"Expected a file to write, or nothing. Received: {path}, a folder. Move it away, or remove it")
    folder, name = os.path.split(os.fspath(path))
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}-", dir=folder or ".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            content(file) if callable(content) else file.write(content.encode())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # an interrupt just after it was moved
            os.unlink(temporary)
        raise


def is_temporary(name: str) -> bool:
    """Whether a file's name is one under which `write_atomically` writes, or `ktl.runs.run_folder` a model."""
    return re.fullmatch(r"\..+-[a-z0-9_]{8}(\.keras)?", name) is not None
