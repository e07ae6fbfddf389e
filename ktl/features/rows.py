"""Files of rows of equal size, read and written at any row, by operations that every system has."""

import errno
import io
import os
import threading
import weakref
from pathlib import Path

import numpy as np


class SharedFile:
    """A file of rows of equal size, open for reading, for several threads.

    Plain reads, not a memory map: a map's pages would count as this process' memory, the whole file in the end.
    """

    def __init__(self, path: Path):
        self._file = io.FileIO(path)
        weakref.finalize(self, self._file.close)  # readers let it go without a word
        self._lock = threading.Lock()

    def read_rows(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Reads rows into an array [len(rows), ...], a row each.

        Raises:
            OSError: the file ends before.
        """
        row_bytes = out.nbytes // max(len(out), 1)
        with self._lock:  # for the position of the file
            for target, row in zip(out, rows, strict=True):
                self._file.seek(int(row) * row_bytes)
                if self._file.readinto(memoryview(target).cast("B")) != row_bytes:
                    raise OSError(f"Expected {row_bytes} bytes of features. Received: the end of {self._file.name}")


_OPEN_FILES: weakref.WeakValueDictionary[Path, SharedFile] = weakref.WeakValueDictionary()


def open_shared(path: Path) -> SharedFile:
    """The file, open for reading; once for all readers, since TensorFlow never lets go of a function that it maps."""
    file = _OPEN_FILES.get(path)
    if file is None:
        file = _OPEN_FILES[path] = SharedFile(path)
    return file


def write_rows(file: io.FileIO, rows: np.ndarray, values: np.ndarray) -> None:
    """Writes values, [len(rows), ...], at those rows of a file.

    Raises:
        OSError: the disk is full.
    """
    row_bytes = values[0].nbytes
    for row, value in zip(rows, np.ascontiguousarray(values), strict=True):
        file.seek(int(row) * row_bytes)
        if file.write(memoryview(value).cast("B")) != row_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)  # the rest would be zeros
