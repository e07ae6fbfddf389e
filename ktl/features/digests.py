"""The digests of photos' bytes, remembered by their files' size and times, so that no photo is read to find its row."""

import contextlib
import os
import sqlite3
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ktl.data.digest import photo_digest
from ktl.data.images import photo_threads
from ktl.data.split import FileVersion, Split
from ktl.data.urls import readers_of

MEMORY_FILE = "digests.sqlite"

SIDE_FILES = ("", "-journal", "-wal", "-shm")
"""Ends of the names of the file and of those that SQLite has beside it."""

UNSETTLED_NS = 2 * 10**9
"""A file that was changed so shortly before it was read may change again at the same time by the system's clock."""

_TABLE = "CREATE TABLE IF NOT EXISTS {} (path TEXT PRIMARY KEY, stamp TEXT, digest BLOB, checked INTEGER)"
_FIND = "SELECT stamp, digest, checked FROM {} WHERE path = ?"
_KEEP = "INSERT OR REPLACE INTO {} VALUES (?, ?, ?, ?)"


class Memory(Protocol):
    """Remembers bytes by the files that they are of."""

    def find(self, versions: Sequence[FileVersion | None]) -> list[bytes | None]:
        """What is known of each file as it is now."""
        ...

    def keep(self, digests: Mapping[FileVersion, bytes]) -> None:
        """Remembers it."""
        ...


class DigestMemory:
    """Remembers digests in a file that several processes share. One that is damaged is removed, and costs reading.

    Args:
        folder: the cache folder.
        tell: is given a line where the file was damaged.
        table: of the file; another one has other bytes than digests.
    """

    def __init__(self, folder: Path, *, tell: Callable[[str], None] = lambda text: None, table: str = "digests"):
        self.path = folder / MEMORY_FILE
        self.tell, self._table = tell, table

    def find(self, versions: Sequence[FileVersion | None]) -> list[bytes | None]:
        """The digest of each file as it is now, None where it is not known."""
        found: list[bytes | None] = [None] * len(versions)
        with self._forgiving(), self._open() as table:
            for number, version in enumerate(versions):
                row = version and table.execute(_FIND.format(self._table), [_place(version)]).fetchone()
                if version and row and row[0] == version.stamp:
                    if row[2] != _check(version, row[1]):
                        raise sqlite3.DatabaseError("a row is not what was written")
                    found[number] = row[1]
        return found

    def keep(self, digests: Mapping[FileVersion, bytes]) -> None:
        """Remembers digests; where that cannot be, photos are read again."""
        if digests:
            with self._forgiving(), self._open() as table:
                rows = [(_place(file), file.stamp, digest, _check(file, digest)) for file, digest in digests.items()]
                table.executemany(_KEEP.format(self._table), rows)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        place: Path | str = self.path
        if not self._is_own():
            self.tell(f"cache: {self.path} is no file of ktl's; digests of photos are not remembered")
            place = ":memory:"
        with contextlib.closing(sqlite3.connect(place, timeout=60)) as connection, connection:
            connection.execute(_TABLE.format(self._table))
            yield connection

    def _is_own(self) -> bool:
        """Whether none of the files that SQLite writes to has another name elsewhere, as links of either kind do."""
        statuses = []
        for end in SIDE_FILES:
            with contextlib.suppress(FileNotFoundError):
                statuses.append(os.lstat(f"{self.path}{end}"))
        return all(stat.S_ISREG(status.st_mode) and status.st_nlink == 1 for status in statuses)

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        """Whatever is wrong with the file ends the block, and only that; a damaged one is removed."""
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) not in _NOT_DAMAGED:
                self.tell(f"cache: {self.path} was damaged and is removed; photos are read again for their digests")
                remove_memory(self.path.parent)


def remove_memory(folder: Path) -> None:
    """Removes what is remembered in a cache folder."""
    for end in SIDE_FILES:
        path = folder / f"{MEMORY_FILE}{end}"
        if path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


_NOT_DAMAGED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


def _place(version: FileVersion) -> str | bytes:
    """A file's path as a row has it: one that is not UTF-8, which SQLite's texts are, as its bytes."""
    path = version.path
    return path if path == path.encode(errors="replace").decode() else os.fsencode(path)


def _check(version: FileVersion, digest: object) -> int:
    return zlib.crc32(repr((version.path, version.stamp, digest)).encode())


def digests_of(
    splits: Sequence[Split],
    memory: Memory,
    *,
    reading: Callable[[int], contextlib.AbstractContextManager[Callable[[int], None]]] = lambda total: (
        contextlib.nullcontext(lambda done: None)
    ),
) -> dict[str, bytes | None]:
    """Photo -> the digest of its bytes; None of one that cannot be read.

    Args:
        splits: of one data set, whose sources have no two photos of the same id.
        memory: what is known already.
        reading: gives the context in which so many photos are read; what that gives is called with the number done.
    """
    sources = {photo: split.source for split in splits for photo in split.photos}
    versions = {photo: source.version(photo) for photo, source in sources.items()}
    digests = dict(zip(versions, memory.find(list(versions.values())), strict=True))
    unknown = [photo for photo, digest in digests.items() if digest is None]
    if not unknown:
        return digests

    def read(photo: str) -> bytes | None:
        try:
            return photo_digest(sources[photo].read(photo))
        except OSError:
            return None

    learned: dict[FileVersion, bytes] = {}
    with reading(len(unknown)) as progress, photo_threads(readers_of(sources.values())) as pool:
        for done, (photo, digest) in enumerate(zip(unknown, pool.map(read, unknown), strict=True), start=1):
            version = versions[photo]
            if digest and version and settled(version) and sources[photo].version(photo) == version:
                learned[version] = digest
            digests[photo] = digest
            progress(done)
    memory.keep(learned)
    return digests


def settled(version: FileVersion) -> bool:
    """Whether a file cannot change any more without a new time of change."""
    return time.time_ns() - version.changed_ns > UNSETTLED_NS
