"""Texts that somebody has written by hand: settings, search spaces, tables. They may come through a pipe."""

import errno
import io
import os
import select
from pathlib import Path

MOST_TEXT = 2**24
"""Bytes of such a text."""

WRITER_SECONDS = 5.0
"""That a named pipe has until somebody opens it for writing. Opened as other files are, it would wait without end."""


def read_text(path: str | os.PathLike) -> str:
    """The text of a user's own file, which may be a pipe, as a shell's `<(...)` is; without a byte order mark.

    Raises:
        OSError: it cannot be read, or is a pipe that nobody writes to within `WRITER_SECONDS`.
        ValueError: it is not UTF-8, or has no end within `MOST_TEXT`.
    """
    if Path(path).is_fifo():
        content = _read_pipe(path)
    else:
        with open(path, "rb") as file:
            content = file.read(MOST_TEXT + 1)
    if len(content) > MOST_TEXT:
        raise ValueError(f"more than {MOST_TEXT:,} bytes")
    return content.decode("utf-8-sig")  # spreadsheets, and editors on Windows, write a byte order mark


def _read_pipe(path: str | os.PathLike) -> bytes:
    with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as pipe:
        came, _, _ = select.select([pipe], [], [], WRITER_SECONDS)
        first = pipe.read(1)  # None where somebody has it open and is silent, the end of the file where nobody has
        if not came and first == b"":
            raise TimeoutError(errno.ETIMEDOUT, f"a pipe that nobody has opened for writing in {WRITER_SECONDS:g} s")
        os.set_blocking(pipe.fileno(), True)  # who has it open may take as long as it takes
        with io.BufferedReader(pipe) as whole:
            return (first or b"") + whole.read(MOST_TEXT)
