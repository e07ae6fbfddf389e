"""The cache folder's own things: what ktl made in it, by a mark; nothing else is ever counted, followed or removed.

A folder named by 32 hexadecimal digits with `entry.json`, which has the mark, is an entry. In it, files whose names end
as shards' do are ktl's. A link is nobody's: neither what it leads to nor, where a name is ktl's, the link is taken.
"""

import contextlib
import dataclasses
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from ktl.errors import UserError
from ktl.features.names import NAME, PARTIAL, SHARD
from ktl.files import is_temporary, write_json
from ktl.stored import read_record

ENTRY_FILE = "entry.json"

MARK = "features that ktl keeps; see ktl cache"
"""In each entry's file, as `made_by`."""

OLD_FILES = ("meta.json", "train.bin", "validation.bin", "test.bin")
"""Of an entry of version 0.1, and nothing else."""

_OLD_PARTIAL = re.compile(r"\.partial-[a-z0-9_]{8}")


class About(TypedDict):
    """What an entry's file says, as far as readers rely on it: the mark, and the names of data sets."""

    made_by: str
    datasets: NotRequired[list[str]]
    shape: NotRequired[list[int]]


@dataclasses.dataclass(frozen=True)
class OwnFile:
    """A file that takes room: its path, its size in bytes, and when it was used, in seconds since 1970."""

    path: Path
    size: int
    used: float


@dataclasses.dataclass(frozen=True)
class OwnEntry:
    """An entry that is there.

    Attributes:
        path: of its folder.
        about: what `entry.json` says.
        shards: the whole ones.
    """

    path: Path
    about: Mapping[str, Any]
    shards: tuple[OwnFile, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(shard.size for shard in self.shards)

    @property
    def used(self) -> float:
        """When it was used last, in seconds since 1970; 0 of an empty one."""
        return max((shard.used for shard in self.shards), default=0.0)


def own_entries(folder: Path) -> list[OwnEntry]:
    """The entries in a cache folder."""
    found = []
    for path in _folders(folder):
        about = read_about(path) if NAME.fullmatch(path.name) else None
        if about is not None:
            found.append(OwnEntry(path, about, tuple(files_of(path, SHARD))))
    return found


def read_about(path: Path) -> dict[str, Any] | None:
    """What an entry's file says; None where there is none with ktl's mark."""
    try:
        if not stat.S_ISREG(os.lstat(path / ENTRY_FILE).st_mode):
            return None
        about = read_record(path / ENTRY_FILE, About)
    except (OSError, UserError):
        return None
    return about if about["made_by"] == MARK else None


def make_entry(path: Path, about: Mapping[str, Any]) -> bool:
    """Makes an entry's folder, with its mark, unless it is there; False where a damaged mark was mended.

    Raises:
        UserError: a link or a file has its name.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise UserError(f"Expected `cache_dir` to have a folder {path.name}, or nothing of that name. Received: {path}")
    if read_about(path) is not None:
        return True
    new = not os.path.lexists(path / ENTRY_FILE)
    write_json(path / ENTRY_FILE, {"made_by": MARK, **about})
    return new


def note_use(path: Path, dataset: str) -> None:
    """Notes in an entry's file which data set used it."""
    about = read_about(path)
    if about is not None and dataset not in about.get("datasets", ()):
        with contextlib.suppress(OSError):  # removed just now
            write_json(path / ENTRY_FILE, {**about, "datasets": [*about.get("datasets", ()), dataset]})


def files_of(folder: Path, end: str) -> Iterator[OwnFile]:
    """The regular files of a folder whose names are 32 hexadecimal digits, dots and words, and this end."""
    for entry in _scan(folder):
        if entry.name.endswith(end) and NAME.match(entry.name):
            with contextlib.suppress(OSError):  # removed just now
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield OwnFile(Path(entry.path), status.st_size, status.st_mtime)


def old_entries(folder: Path) -> list[OwnFile]:
    """Whole and half-written entries of version 0.1: folders with its files alone."""
    return [found for path in _folders(folder) if (found := _as_old(path)) is not None]


def _as_old(path: Path) -> OwnFile | None:
    entries = _scan(path)
    names = {entry.name for entry in entries}
    whole = NAME.fullmatch(path.name) and names == set(OLD_FILES)
    half = _OLD_PARTIAL.fullmatch(path.name) and names and names <= set(OLD_FILES)
    if not (whole or half) or not all(entry.is_file(follow_symlinks=False) for entry in entries):
        return None
    try:
        statuses = [entry.stat(follow_symlinks=False) for entry in entries]
    except FileNotFoundError:  # removed just now
        return None
    return OwnFile(path, sum(status.st_size for status in statuses), max(status.st_mtime for status in statuses))


def used_bytes(folder: Path) -> int:
    """What ktl's rows take in a cache folder."""
    entries = own_entries(folder)
    partial = (file.size for entry in entries for file in files_of(entry.path, PARTIAL))
    return sum(entry.size for entry in entries) + sum(partial) + sum(old.size for old in old_entries(folder))


def make_room(folder: Path, *, size: int, limit: int, keep: Collection[Path] = (), busy: Collection[str] = ()) -> None:
    """Removes what was used longest ago until so many bytes fit: entries of version 0.1 first, then shard by shard.

    Args:
        folder: the cache folder.
        size: bytes that are to fit.
        limit: bytes that ktl's things may take with them.
        keep: shards that stay.
        busy: names of entries that are being written to: their folders stay.
    """
    excess = used_bytes(folder) + size - limit
    old = sorted(old_entries(folder), key=lambda entry: entry.used)
    shards = [shard for entry in own_entries(folder) for shard in entry.shards if shard.path not in keep]
    for file in [*old, *sorted(shards, key=lambda shard: shard.used)]:
        if excess <= 0:
            break
        (remove_old if file in old else remove_file)(file.path)
        excess -= file.size
    for entry in own_entries(folder):
        if not entry.shards and entry.path.name not in busy:
            remove_empty(entry.path)


def clear(folder: Path, names: Collection[str] | None = None, *, busy: Collection[str] = ()) -> int:
    """Removes entries, all if None, and version 0.1's; the number of bytes. For `busy` see `make_room`.

    Others may read what they have open, and compute what they miss.
    """
    removed = 0
    for entry in own_entries(folder):
        if names is None or entry.path.name in names:
            for shard in entry.shards:
                remove_file(shard.path)
            removed += entry.size
            if entry.path.name not in busy:
                remove_empty(entry.path)
    for old in old_entries(folder):
        if names is None or old.path.name in names:
            remove_old(old.path)
            removed += old.size
    return removed


def remove_file(path: Path) -> None:
    """Removes a file, if it is there and the system lets go of it."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        path.unlink()


def remove_old(path: Path) -> None:
    """Removes an entry of version 0.1."""
    for name in reversed(OLD_FILES):  # meta.json last: without the others it is no entry
        remove_file(path / name)
    _remove_folder(path)


def remove_empty(path: Path) -> None:
    """Removes an entry's folder in which there is nothing but its mark."""
    if all(entry.name == ENTRY_FILE or is_temporary(entry.name) for entry in _scan(path)):
        for entry in list(_scan(path)):
            remove_file(Path(entry.path))
        _remove_folder(path)


def remove_temporary(folder: Path) -> None:
    """Removes what a kill has left of files that were being written to this folder."""
    for entry in _scan(folder):
        if is_temporary(entry.name) and entry.is_file(follow_symlinks=False):
            remove_file(Path(entry.path))


def _remove_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # not empty: somebody has put something there
        path.rmdir()


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, links left out."""
    return [Path(entry.path) for entry in _scan(folder) if entry.is_dir(follow_symlinks=False)]


def _scan(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):  # removed just now
        return []
