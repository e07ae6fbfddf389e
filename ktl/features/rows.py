"""Files of rows of equal size, read at any row, by operations that every system has."""

import collections
import errno
import io
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

MOST_OPEN = 128
"""Files that are open at a time: systems allow a process 256 or 1,024, and 10 million photos are 5,000 shards."""

_OPEN: collections.deque["weakref.ref[SharedFile]"] = collections.deque()
_ROOM = threading.Lock()


class SharedFile:
    """A file that begins with rows of equal size, read by several threads.

    Plain reads, not a memory map: a map's pages would count as this process' memory, the whole file in the end. Of all
    such files `MOST_OPEN` are open, and another is opened again when it is read: until then it must not be removed.

    Attributes:
        size: bytes.
    """

    def __init__(self, path: Path):
        self._path = path
        self._opened: list[io.FileIO] = []  # one, or none
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._opened)  # readers let it go without a word
        with self._lock:
            self.size = os.fstat(self._file().fileno()).st_size

    def read_rows(self, rows: Sequence[int] | np.ndarray, targets: Sequence[np.ndarray]) -> None:
        """Reads rows into arrays of their size.

        Raises:
            OSError: the file ends before, or is no longer there.
        """
        with self._lock:  # for the position of the file
            file = self._file()
            for target, row in zip(targets, rows, strict=True):
                file.seek(int(row) * target.nbytes)
                if file.readinto(target.data.cast("B")) != target.nbytes:
                    raise OSError(f"Expected {target.nbytes} bytes of features. Received: the end of {self._path}")

    def read_end(self, offset: int) -> bytes:
        """What is from an offset on to the file's end."""
        with self._lock:
            file = self._file()
            file.seek(offset)
            return file.readall()

    def close_unless_read(self) -> bool:
        """Closes the file, to be opened again when it is read; False if it is being read now."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            _close(self._opened)
        finally:
            self._lock.release()
        return True

    def _file(self) -> io.FileIO:
        """The file, open; called with the lock held."""
        if not self._opened:
            _make_room()
            self._opened.append(io.FileIO(self._path))
            _OPEN.append(weakref.ref(self))
        return self._opened[0]


def _close(opened: list[io.FileIO]) -> None:
    while opened:
        opened.pop().close()


def _make_room() -> None:
    """Closes the files that were opened first, until another may be opened."""
    with _ROOM:
        for _ in range(len(_OPEN)):
            if len(_OPEN) < MOST_OPEN:
                break
            oldest = _OPEN.popleft()
            file = oldest()
            if file is not None and not file.close_unless_read():
                _OPEN.append(oldest)


def write_all(file: io.FileIO, content: memoryview | bytes) -> None:
    """Writes all of it where the file is.

    Raises:
        OSError: the disk is full.
    """
    if file.write(content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)  # the rest would be missing
