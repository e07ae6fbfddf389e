"""Files of rows of equal size, read at any row, by operations that every system has."""

import errno
import io
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np


class SharedFile:
    """A file that begins with rows of equal size, open for reading, for several threads.

    Plain reads, not a memory map: a map's pages would count as this process' memory, the whole file in the end.
    """

    def __init__(self, path: Path):
        self._file = io.FileIO(path)
        weakref.finalize(self, self._file.close)  # readers let it go without a word
        self._lock = threading.Lock()

    def read_rows(self, rows: Sequence[int] | np.ndarray, targets: Sequence[np.ndarray]) -> None:
        """Reads rows into arrays of their size.

        Raises:
            OSError: the file ends before.
        """
        with self._lock:  # for the position of the file
            for target, row in zip(targets, rows, strict=True):
                self._file.seek(int(row) * target.nbytes)
                if self._file.readinto(target.data.cast("B")) != target.nbytes:
                    raise OSError(f"Expected {target.nbytes} bytes of features. Received: the end of {self._file.name}")

    def read_end(self, offset: int) -> bytes:
        """What is from an offset on to the file's end."""
        with self._lock:
            self._file.seek(offset)
            return self._file.readall()

    @property
    def size(self) -> int:
        """Bytes."""
        return os.fstat(self._file.fileno()).st_size


def write_all(file: io.FileIO, content: memoryview | bytes) -> None:
    """Writes all of it where the file is.

    Raises:
        OSError: the disk is full.
    """
    if file.write(content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)  # the rest would be missing
