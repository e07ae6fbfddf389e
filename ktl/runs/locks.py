"""One process at a time: a file that is locked while work goes on beside or in it, and goes with the process."""

import contextlib
from pathlib import Path

import filelock

from ktl.errors import UserError


def lock(path: Path, *, work: str, instead: str) -> filelock.BaseFileLock:
    """Makes and locks a file. Where the file system has no locks nobody is kept out.

    Args:
        path: of the file; a link there is the caller's to refuse, for what it leads to would be made empty.
        work: what it keeps others from, for the error.
        instead: what may be named in its place, for the error.

    Raises:
        UserError: another process has locked it.
    """
    taken = filelock.FileLock(path)
    try:
        with contextlib.suppress(NotImplementedError):  # of a file system without locks
            taken.acquire(blocking=False)
    except filelock.Timeout as error:
        raise UserError(
            f"Expected no other process at work on {work}. Received: one that is. Wait for it, or name {instead}"
        ) from error
    return taken


def unlock(taken: filelock.BaseFileLock) -> None:
    """Removes the file and lets others lock it."""
    with contextlib.suppress(OSError):  # where an open file cannot be removed, it stays
        Path(taken.lock_file).unlink()
    taken.release()
