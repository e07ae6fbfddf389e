"""What becomes of work whose folder somebody removes meanwhile."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ktl.errors import DamagedError, UserError


@contextlib.contextmanager
def noticing_removal(folder: Path, *, kind: str) -> Iterator[None]:
    """Blames whatever goes wrong inside on the removal of the folder, if it was removed; else nothing is changed.

    Its config.json tells: a part of the folder may have been made again, for what was written next.

    Args:
        folder: of a run, search or study, with its config.json.
        kind: what the error calls it.

    Raises:
        UserError: the folder was removed.
    """
    try:
        yield
    except Exception as error:
        # A file that is damaged may be gone; any other input is as bad with the folder.
        if _is_there(folder) or (isinstance(error, UserError) and not isinstance(error, DamagedError)):
            raise
        raise _removed(folder, kind) from error
    if not _is_there(folder):
        raise _removed(folder, kind)


def _is_there(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _removed(folder: Path, kind: str) -> UserError:
    return UserError(
        f"Expected the folder of the {kind} to stay while it is at work. Received: {folder} without its config.json: "
        "it was removed. Remove what is left of it, and repeat the command: it begins anew"
    )
