"""Photos in a folder of class folders."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ktl.arguments import home_path_of
from ktl.data.folder_at import list_folder_at
from ktl.data.found import (
    BESIDE,
    HIDDEN,
    LOOSE,
    MISNAMED,
    NESTED,
    OTHER,
    SPECIAL,
    UNREAD,
    Found,
    Tally,
    is_shown,
)
from ktl.data.identity import twins
from ktl.data.images import PHOTO_SIGNATURES, PHOTO_SUFFIXES, UNREAD_SUFFIXES
from ktl.data.listing import Listing, list_rows
from ktl.data.split import SPLIT_WORDS, FileSource
from ktl.errors import UserError
from ktl.names import is_url


def list_directory(path: str | os.PathLike) -> Listing:
    """The photos of a folder, see `ktl.Dataset.from_directory`."""
    if is_url(path):
        return list_folder_at(path)
    root = home_path_of(path, argument="path")
    if not root.is_dir():
        reason = "which is a file" if root.exists() else "which does not exist"
        raise UserError(f"Expected path to be a folder of photos. Received: {path}, {reason}.")
    try:
        return _Reader(root).listing()
    except PermissionError as error:
        raise UserError(f"Expected folders that can be read. Received: {error.filename} ({error.strerror})") from error


class _Reader:
    """Goes through a data set's folder once."""

    def __init__(self, root: Path):
        self.root = root
        self.files: list[tuple[Path, os.stat_result]] = []
        self.passed_over = Tally()

    def listing(self) -> Listing:
        # A class may be called "train": then it holds photos, where a split holds folders.
        folders = _folders(self.root)
        parts = [folder for folder in folders if folder.name.lower() in SPLIT_WORDS and _folders(folder)]
        rows = {}
        for folder in parts:
            split = SPLIT_WORDS[folder.name.lower()]
            if split in rows:
                raise UserError(f"Expected one {split} folder in {self.root}. Received: two, {folder.name} among them.")
            rows[split] = self._split_rows(folder)
        if parts:
            self._pass_over_all_in(self.root, but=parts)
        else:
            rows["train"] = self._split_rows(self.root)
        self._refuse_twins()
        found = Found(passed_over=self.passed_over.counts)
        source = FileSource(self.root, is_dataset=True)
        return list_rows(self.root.resolve().name, rows, source, place=self.root, found=found)

    def _split_rows(self, parent: Path) -> list[tuple[str, str]]:
        """(path relative to the root, class) of every photo in the class folders of `parent`, in sorted order."""
        folders = _folders(parent)
        rows = []
        for folder in folders:
            photos = self._photos(folder)
            if not photos:
                raise UserError(
                    f"Expected photos ({', '.join(PHOTO_SUFFIXES)}) in each class folder. Received: none in {folder}"
                )
            rows += [(self._name(path), folder.name) for path in photos]
        if not rows:
            raise UserError(
                "Expected a folder of class folders with photos, or of train, validation and test. Received: "
                f"{parent}, with no folder in it"
            )
        self._pass_over_all_in(parent, but=folders)
        return rows

    def _photos(self, folder: Path) -> list[Path]:
        photos = []
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                self._pass_over_photos(path, NESTED if is_shown(path.name) else HIDDEN)
            elif path.suffix.lower() in PHOTO_SUFFIXES and is_shown(path.name) and self._is_photo(path):
                photos.append(path)
            else:
                self._pass_over(path, kind_passed_over(path))
        return photos

    def _is_photo(self, path: Path) -> bool:
        """False for a named pipe or a device, which a reader would wait for without end."""
        try:
            status = path.stat()
        except OSError:
            return True  # such as a link to nowhere: whoever reads the photo says why it cannot be read
        if stat.S_ISREG(status.st_mode):
            self.files.append((path, status))
            return True
        return False

    def _pass_over_all_in(self, parent: Path, *, but: list[Path]) -> None:
        """Passes over what is in a folder, but for some of its folders."""
        for path in sorted(set(parent.iterdir()) - set(but)):
            if path.is_dir():
                self._pass_over_photos(path, BESIDE if is_shown(path.name) else HIDDEN)
            else:
                is_loose = is_shown(path.name) and path.suffix.lower() in PHOTO_SUFFIXES
                self._pass_over(path, kind_passed_over(path) or (LOOSE if is_loose else None))

    def _pass_over_photos(self, folder: Path, what: str) -> None:
        for path in _photos_below(folder):
            self._pass_over(path, what)

    def _pass_over(self, path: Path, what: str | None) -> None:
        self.passed_over.add(what, self._name(path))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _refuse_twins(self) -> None:
        found = twins(self.files)
        if found:
            again, first = map(self._name, found[0])
            raise UserError(
                f"Expected each photo once in {self.root}. Received: {again}, which is the same file as {first}"
                f"{f', and {len(found) - 1:,} more such' if len(found) > 1 else ''}. Remove it from one of the two"
            )


def kind_passed_over(path: Path) -> str | None:
    """What a file is that is not read; None for a photo, and for a hidden file that is none."""
    looks_like_photo = path.suffix.lower() in PHOTO_SUFFIXES
    if not is_shown(path.name):
        return HIDDEN if looks_like_photo else None
    if not path.is_file():
        return SPECIAL if path.exists() else None
    if looks_like_photo:
        return None
    if path.suffix.lower() in UNREAD_SUFFIXES:
        return UNREAD
    return MISNAMED if _begins_as_photo(path) else OTHER


def _begins_as_photo(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(16).startswith(PHOTO_SIGNATURES)
    except OSError:
        return False


def holds_photos(path: Path) -> bool:
    """Whether there is a photo in a folder of this folder, as of a data set, at any depth."""
    return any(photo.parent != path for photo in _photos_below(path))


def _photos_below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names) if Path(name).suffix.lower() in PHOTO_SUFFIXES)


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and is_shown(path.name))


def linked_folders(root: str | os.PathLike) -> list[Path]:
    """The folders of splits and of classes that are elsewhere, where links of a data set's folder lead."""
    try:
        folders = _folders(Path(root))
        classes = [folder for split in folders if split.name.lower() in SPLIT_WORDS for folder in _folders(split)]
    except PermissionError:  # whoever reads the data set says so
        return []
    return [folder for folder in (*folders, *classes) if folder.is_symlink()]
