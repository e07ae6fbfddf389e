"""Where an export goes: written under another name until it is whole, so that a kill leaves no half of one."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ktl.arguments import check_in_utf8
from ktl.errors import UserError
from ktl.exporting.record import EXPORT_JSON, is_of, read_record
from ktl.files import CHECKSUMS, read_json
from ktl.folders import make_folder, missing_folders, new_folder, remove_empty
from ktl.runs.locks import lock, unlock

MODEL_CARD = "MODEL_CARD.md"

PARTIAL = ".ktl-partial"
"""Where an export is made: in the folder if that is there, else beside it, with its name before."""

LOCK = ".lock"
"""End of the name of a file beside it, held while a process is at work there."""

MARK = ".made-by-ktl"
"""File by which such a folder is known; once the export is whole, by export.json, the last that is left of it."""


def place_for_export(
    folder: str | os.PathLike, *, settings: Mapping[str, Any] | None = None, argument: str = "export"
) -> Path:
    """The folder of an export that is there or is still to come; of a new one nothing is made.

    Args:
        folder: a new or empty folder, or one that has an export.
        settings: those of the run that the export is of; None if they are not known yet.
        argument: what the error calls the folder.

    Raises:
        UserError: something else is there, or the export of a run with other settings; or no export can be there.
    """
    folder = Path(folder)
    check_in_utf8(folder, argument=argument)
    clear_partial(folder)
    record = read_record(folder)
    if record is None and (folder / MODEL_CARD).is_file():
        raise UserError(
            "Expected a new or empty folder, or an export of the same run. "
            f"Received: `{argument}` {folder}, an export by version 0.1 of ktl. Name another folder"
        )
    if record is None:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not os.access(there, os.W_OK):
            raise UserError(f"Expected a folder that can be written to. Received: `{argument}` {folder}")
        return new_folder(folder, argument=argument)
    if settings is not None and not is_of(record, settings):
        raise UserError(
            f"Expected a new or empty folder, or an export of the same run. Received: `{argument}` {folder}, an export "
            "of another run"
        )
    return folder


def clear_partial(output: Path) -> None:
    """As `remove_partial`, unless there is nothing to remove; where a process is at work it is refused as by `held`."""
    partial = _partial_of(output)
    if os.path.lexists(partial) or os.path.lexists(_lock_of(partial)):
        with held(output):
            pass


@contextlib.contextmanager
def held(output: Path) -> Iterator[Path]:
    """Keeps other exports away from a place meanwhile; gives the folder that `remove_partial` gives.

    Raises:
        UserError: another process is at work on an export there, or see `remove_partial`.
    """
    partial = _partial_of(output)
    made = missing_folders(partial.parent)
    make_folder(partial.parent)
    path = _lock_of(partial)
    if path.is_symlink():
        path.unlink()
    taken = lock(path, work=f"an export to {output}", instead="another folder")
    try:
        yield remove_partial(output)
    finally:
        unlock(taken)
        remove_empty(made)


def remove_partial(output: Path) -> Path:
    """Removes what a kill has left of an export, and gives the folder that one is written to until it is whole.

    An export that was whole, and came to be moved, is no such rest: it is moved now.

    Nothing is removed or written where a link of that name leads to.

    Raises:
        UserError: somebody else's folder has that name.
    """
    partial = _partial_of(output)
    if partial.is_symlink():
        partial.unlink()
    if os.path.lexists(partial) and not _is_partial(partial):
        raise UserError(
            f"Expected nothing, or what an interrupted export has left, at {partial}. Received: something else. Move "
            "it away, or remove it"
        )
    if _is_whole(partial, output):
        move_into_place(partial, output)
    shutil.rmtree(partial, ignore_errors=True)
    return _partial_of(output)


def _partial_of(output: Path) -> Path:
    return output / PARTIAL if output.is_dir() else output.with_name(f".{output.name}{PARTIAL}")


def _lock_of(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}{LOCK}")


def _is_partial(folder: Path) -> bool:
    # An empty one: a kill came before the mark.
    return folder.is_dir() and (
        not any(folder.iterdir()) or any((folder / name).is_file() for name in (MARK, EXPORT_JSON))
    )


def _is_whole(partial: Path, output: Path) -> bool:
    """Whether what was verified is all there, in the one folder or, where a part of it was moved, in the other."""
    if (partial / MARK).exists() or not (partial / EXPORT_JSON).is_file():
        return False
    names = [CHECKSUMS]
    for folder in (partial, output):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names += read_json(folder / CHECKSUMS)["sha256"]
    return all((partial / name).is_file() or (output / name).is_file() for name in names)


def make_partial(partial: Path) -> None:
    """Makes the folder that `remove_partial` gives, with its mark."""
    make_folder(partial)
    (partial / MARK).touch()


def move_into_place(partial: Path, output: Path) -> None:
    """Moves an export into its folder. One that is there is filled, not replaced: it may be a link, a mount, or where
    somebody's shell is; export.json goes last: with it, an export is whole."""
    (partial / MARK).unlink(missing_ok=True)
    if not output.is_dir():
        os.replace(partial, output)
        return
    for entry in sorted(partial.iterdir(), key=lambda entry: entry.name == EXPORT_JSON):
        os.replace(entry, output / entry.name)
