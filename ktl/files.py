"""Files that are either whole or not there."""

import os
import tempfile
from collections.abc import Callable
from typing import BinaryIO


def write_atomically(path: str | os.PathLike, content: str | Callable[[BinaryIO], None]) -> None:
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
        os.unlink(temporary)
        raise
