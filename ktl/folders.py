"""Folders that ktl makes, fills and empties, and never anybody else's."""

import contextlib
import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

import platformdirs

from ktl.errors import UserError


def cache_folder() -> Path:
    """ktl's own folder in the user's cache folder."""
    return platformdirs.user_cache_path("ktl", appauthor=False)


def new_folder(path: str | os.PathLike, *, argument: str, but: Collection[str] = ()) -> Path:
    """The path of a folder that is not there, or is empty but for files of some names; it is not made.

    Raises:
        UserError: something is there; `argument` has named it.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(child.name not in but for child in path.iterdir())):
        raise UserError(f"Expected a new or empty folder. Received: `{argument}` {path}")
    return path


def make_folder(path: Path, *, argument: str = "output") -> None:
    """Makes a folder, and those above it, unless it is there.

    Raises:
        UserError: it cannot be made or written to; `argument` has named it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"Expected a folder that can be made. Received: `{argument}` {path} ({error.strerror})"
        ) from error
    if not os.access(path, os.W_OK):
        raise UserError(f"Expected a folder that can be written to. Received: `{argument}` {path}")


def make_place(path: str | os.PathLike, *, argument: str) -> None:
    """Makes the folder of a file that is to be written, unless it is there: before the work that the file is for.

    Raises:
        UserError: it cannot be made or written to, or the file is a folder; `argument` has named it.
    """
    if os.path.isdir(path) and not os.path.islink(path):
        raise UserError(f"Expected a file to write, or nothing. Received: `{argument}` {path}, a folder")
    make_folder(Path(path).parent, argument=argument)


def is_inside(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Whether a path is a folder or leads into it, whatever its spelling; both may be still to be made."""
    real, other = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    return any(
        place == other or (place.exists() and other.exists() and os.path.samefile(place, other))
        for place in (real, *real.parents)
    )


def missing_folders(path: Path) -> list[Path]:
    """Those that `make_folder` would make, the deepest first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Removes folders one by one, up to the first that is not empty or not there."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def refuse_links(folder: Path, *, argument: str = "output") -> None:
    """Refuses a folder with links in it: whoever writes or removes by a path could be led out of it. The folder may be
    a link itself.

    Raises:
        UserError: there is one; `argument` has named the folder.
    """
    for parent, folders, names in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *names)):
            if path.is_symlink():
                raise UserError(
                    f"Expected `{argument}` to have no links in it, which lead elsewhere. Received: {path}, a link to "
                    f"{os.readlink(path)}"
                )


def empty_folder(path: Path, *, last: str, keep: Collection[str] = ()) -> None:
    """Removes what is in a folder, which may be a link, a mount, or where somebody's shell is.

    Args:
        path: the folder.
        last: name of the file that goes last: after a kill it still tells whose folder it is.
        keep: names of files that stay.
    """
    for child in sorted(path.iterdir(), key=lambda child: child.name == last):
        if child.name in keep:
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
