"""Photos in a folder of class folders."""

import os
import stat
from pathlib import Path

from ktl.data.images import PHOTO_SUFFIXES
from ktl.data.listing import Listing, list_rows
from ktl.data.split import SPLIT_WORDS, FileSource
from ktl.errors import UserError


def list_directory(path: str | os.PathLike) -> Listing:
    """The photos of a folder, see `ktl.Dataset.from_directory`."""
    root = Path(path).expanduser()
    if not root.is_dir():
        reason = "which is a file" if root.exists() else "which does not exist"
        raise UserError(f"Expected path to be a folder of photos. Received: {path}, {reason}.")
    folders = _folders(root)
    # A class may be called "train": then it holds photos, where a split holds folders.
    parts = [folder for folder in folders if folder.name.lower() in SPLIT_WORDS and _folders(folder)]
    rows = {}
    for folder in parts:
        split = SPLIT_WORDS[folder.name.lower()]
        if split in rows:
            raise UserError(f"Expected one {split} folder in {root}. Received: two, {folder.name} among them.")
        rows[split] = _class_photos(folder, root)
    if not parts:
        rows["train"] = _class_photos(root, root)
    return list_rows(root.resolve().name, rows, FileSource(root), place=root)


def _class_photos(parent: Path, root: Path) -> list[tuple[str, str]]:
    """(path relative to the root, class) of every photo in the class folders of `parent`, in sorted order."""
    rows = []
    for folder in _folders(parent):
        files = (path for path in folder.iterdir() if is_shown(path.name) and path.suffix.lower() in PHOTO_SUFFIXES)
        photos = sorted(path for path in files if _may_be_file(path))
        if not photos:
            raise UserError(
                f"Expected photos ({', '.join(PHOTO_SUFFIXES)}) in each class folder. Received: none in {folder}"
            )
        rows += [(path.relative_to(root).as_posix(), folder.name) for path in photos]
    if not rows:
        raise UserError(
            f"Expected a folder of class folders with photos, or of train, validation and test. Received: {parent}, "
            "with no folder in it"
        )
    return rows


def _may_be_file(path: Path) -> bool:
    """False for a folder, and for a named pipe or a device, which a reader would wait for without end."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True  # such as a link to nowhere: whoever reads the photo says why it cannot be read


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and is_shown(path.name))


def is_shown(name: str) -> bool:
    """Whether file managers show a file or folder of that name: it is neither hidden nor a `__MACOSX` folder."""
    return not name.startswith(".") and name != "__MACOSX"
