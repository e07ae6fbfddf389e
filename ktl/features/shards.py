"""Shards: files of some thousand rows with what each is of. Whole or not there; every byte is checked when it is read.

A file is its rows one after another, then an index of (id, checksum) of each row, then a tail that counts both, names
the entry that they belong to, and has a checksum of the index and of itself.
"""

import io
import os
import struct
import threading
import weakref
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ktl.data.digest import DIGEST_BYTES
from ktl.features.names import PARTIAL, SHARD
from ktl.features.rows import SharedFile, write_all

_VIEW = struct.Struct(">I")
ID_BYTES = DIGEST_BYTES + _VIEW.size
ID = f"S{ID_BYTES}"
"""NumPy's type of a row's id: the photo's digest and the view's code."""

INDEX = np.dtype([("id", ID), ("check", "<u4")])
"""NumPy's type of what a shard says of each row."""

_TAIL = struct.Struct("<8s16sQII")
_MAGIC = b"ktlrows1"
_FOLD_WORDS = 509
CHECKED_ROWS = 64
_FOLD_BYTES = 8 * _FOLD_WORDS


class DamagedShard(Exception):
    """A shard whose bytes are not those that were written."""

    def __init__(self, shard: "Shard"):
        super().__init__(f"{shard.path} is damaged")
        self.shard = shard


def row_ids(digests: Sequence[bytes], codes: Sequence[int]) -> np.ndarray:
    """The ids of all views of photos, one photo's views after another: [len(digests) * len(codes)]."""
    views = [_VIEW.pack(code) for code in codes]
    return np.array([digest + view for digest in digests for view in views], ID)


def _texts(ids: np.ndarray) -> list[bytes]:
    """The ids with the zeros at their end, which NumPy leaves out."""
    whole = np.ascontiguousarray(ids).tobytes()
    return [whole[start : start + ID_BYTES] for start in range(0, len(whole), ID_BYTES)]


def _check(row: np.ndarray, text: bytes) -> int:
    """The checksum of a row and of what it is of: a row in another one's place is found too.

    A CRC-32 takes longer than reading a large row from memory. Of such a row it is of sums of eight-byte words, each
    sum of every 509th word: a changed word changes one sum, and so the CRC. The width is prime, so that pages of a file
    that changed places change sums too.
    """
    flat = row.reshape(-1).view(np.uint8)
    whole = len(flat) // _FOLD_BYTES * _FOLD_BYTES
    check = zlib.crc32(flat[whole:].data, zlib.crc32(text))
    if whole:
        sums = np.add.reduce(flat[:whole].view(np.uint64).reshape(-1, _FOLD_WORDS), axis=0)
        check = zlib.crc32(sums.data, check)
    return check


def are_whole(rows: Sequence[np.ndarray], ids: np.ndarray, checks: np.ndarray) -> bool:
    """Whether rows are what was written, by their ids and checksums."""
    return all(_check(row, text) == check for row, text, check in zip(rows, _texts(ids), checks, strict=True))


class ShardWriter:
    """Writes one shard under another name; `finish` gives it its own.

    Args:
        folder: where it goes.
        name: of the file, without its end.
        key: of the entry, 32 hexadecimal digits.
        row_bytes: size of each row.
    """

    def __init__(self, folder: Path, *, name: str, key: str, row_bytes: int):
        self.path = folder / f"{name}{SHARD}"
        self.partial = folder / f"{name}{PARTIAL}"
        self._key, self._row_bytes = key, row_bytes
        self._index: list[tuple[bytes, int]] = []
        self._file = io.FileIO(self.partial, "x")

    def append(self, ids: np.ndarray, values: np.ndarray) -> None:
        """Adds rows, [len(ids), ...].

        Raises:
            OSError: the disk is full.
        """
        values = np.ascontiguousarray(values)
        for text, row in zip(_texts(ids), values, strict=True):
            self._index.append((text, _check(row, text)))
        write_all(self._file, values.data.cast("B"))

    def finish(self) -> None:
        """Makes the shard one that is read; without rows there is none.

        Raises:
            OSError: the disk is full.
        """
        if self._index:
            index = np.array(self._index, INDEX).tobytes()
            tail = _TAIL.pack(_MAGIC, bytes.fromhex(self._key), self._row_bytes, len(self._index), zlib.crc32(index))
            write_all(self._file, index + tail + zlib.crc32(tail).to_bytes(4, "little"))
            self._file.close()
            os.replace(self.partial, self.path)

    def close(self) -> None:
        """Lets the file go, and removes what is not finished."""
        self._file.close()
        self.partial.unlink(missing_ok=True)


def read_index(size: int, read_end: Callable[[int], bytes], *, key: str, row_bytes: int) -> np.ndarray | None:
    """The index of a shard: ids and checksums; None if it is not what was written, or of other rows.

    Args:
        size: of the file, bytes.
        read_end: gives what is from an offset on to the file's end.
        key: of the entry that its rows are to be of.
        row_bytes: size of each row.
    """
    ends = _TAIL.size + 4
    end = read_end(max(0, size - ends))
    expected = (_MAGIC, bytes.fromhex(key), row_bytes)
    if len(end) != ends or zlib.crc32(end[:-4]) != int.from_bytes(end[-4:], "little"):
        return None
    *found, count, check = _TAIL.unpack(end[:-4])
    start = count * row_bytes
    if tuple(found) != expected or size != start + count * INDEX.itemsize + ends:
        return None
    index = read_end(start)[:-ends]
    return np.frombuffer(index, INDEX) if zlib.crc32(index) == check else None


class Shard:
    """A whole shard, read by several threads; if its file is removed, it stays readable as long as it is open.

    Attributes:
        path: of the file.
        index: what it says of each row, [rows].
        ids: of the rows, [rows].

    Raises:
        DamagedShard: the index is not what was written, or the rows are of another size or entry.
        OSError: there is no such file.
    """

    def __init__(self, path: Path, *, key: str, row_bytes: int):
        self.path = path
        self._file = SharedFile(path)
        self._row_bytes = row_bytes
        index = read_index(self._file.size, self._file.read_end, key=key, row_bytes=row_bytes)
        if index is None:
            raise DamagedShard(self)
        self.index, self.ids = index, index["id"]

    def read(self, places: np.ndarray, targets: Sequence[np.ndarray]) -> None:
        """Reads the rows at some places of the shard into arrays of their size.

        Raises:
            DamagedShard: a row is not what was written.
        """
        try:
            self._file.read_rows(places, targets)
        except OSError as error:  # its end is missing, or the disk cannot read it
            raise DamagedShard(self) from error
        if not are_whole(targets, self.ids[places], self.index["check"][places]):
            raise DamagedShard(self)

    def check(self) -> None:
        """Reads all rows. Raises DamagedShard where one is not what was written."""
        block = np.empty((CHECKED_ROWS, self._row_bytes), np.uint8)
        for start in range(0, len(self.ids), CHECKED_ROWS):
            places = np.arange(start, min(start + CHECKED_ROWS, len(self.ids)))
            self.read(places, list(block[: len(places)]))


_OPEN_SHARDS: weakref.WeakValueDictionary[Path, Shard] = weakref.WeakValueDictionary()
_OPENING = threading.Lock()


def open_shard(path: Path, *, key: str, row_bytes: int) -> Shard:
    """The shard, open for reading; once for all readers, since TensorFlow never lets go of a function that it maps.

    No other file ever has its name. Raises what `Shard` does.
    """
    with _OPENING:
        shard = _OPEN_SHARDS.get(path)
        if shard is None:
            shard = _OPEN_SHARDS[path] = Shard(path, key=key, row_bytes=row_bytes)
        return shard
