"""Photos in a folder of class folders at a URL: its list of files, read as `ktl.data.directory` reads a disk."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from ktl.data.found import BESIDE, HIDDEN, LOOSE, NESTED, OTHER, UNREAD, Found, Tally, is_shown
from ktl.data.images import PHOTO_SUFFIXES, UNREAD_SUFFIXES
from ktl.data.listing import Listing, list_rows
from ktl.data.split import SPLIT_WORDS
from ktl.data.urls import UrlSource
from ktl.errors import UserError
from ktl.remote import RemoteFile, files_in, name_of


def list_folder_at(url: str) -> Listing:
    """The photos of a folder, see `ktl.Dataset.from_directory`.

    Nothing is read of the files: those whose names do not end as a photo's count as other files.
    """
    listed = files_in(url)
    files = {PurePosixPath(file.name): file for file in listed}
    if len(files) < len(listed):  # object stores tell `a//b` from `a/b`
        twice = next(file.name for file in listed if files[PurePosixPath(file.name)] is not file)
        raise UserError(f"Expected names of files in {url} that are different paths. Received: {twice}, there twice")
    if not files:
        raise UserError(f"Expected path to be a folder of photos. Received: {url}, which has no file in it.")
    return _Reader(url, files).listing()


class _Reader:
    """Goes through the names of a folder's files once."""

    def __init__(self, url: str, files: dict[PurePosixPath, RemoteFile]):
        self.url, self.files = url, files
        self.passed_over = Tally()

    def listing(self) -> Listing:
        paths = sorted(self.files)
        splits = self._splits(paths)
        rows: dict[str, list[tuple[str, str]]] = {}
        for split, folder in splits.items() or [("train", None)]:
            rows[split] = self._split_rows(paths, folder)
        for path in paths if splits else ():
            if path.parts[0] not in splits.values():
                self._pass_over(path, depth=0, beside=True)
        source = UrlSource({path.as_posix(): file for path, file in self.files.items()})
        found = Found(passed_over=self.passed_over.counts)
        return list_rows(name_of(self.url), rows, source, place=self.url, found=found)

    def _splits(self, paths: Iterable[PurePosixPath]) -> dict[str, str]:
        """Split -> its folder. A class may be called "train": then it holds photos, where a split holds folders."""
        found: dict[str, str] = {}
        for path in paths:
            first, *rest = path.parts
            split = SPLIT_WORDS.get(first.lower())
            if split is None or len(rest) < 2 or not is_shown(rest[0]):
                continue
            if found.setdefault(split, first) != first:
                raise UserError(f"Expected one {split} folder in {self.url}. Received: two, {first} among them.")
        return found

    def _split_rows(self, paths: Iterable[PurePosixPath], folder: str | None) -> list[tuple[str, str]]:
        """(path, class) of every photo in the class folders of a folder, or of the root, in sorted order."""
        depth, photos = 0 if folder is None else 1, {}
        for path in paths:
            if folder is not None and path.parts[0] != folder:
                continue
            if len(path.parts) > depth + 1 and is_shown(path.parts[depth]):
                photos.setdefault(path.parts[depth], [])
            if len(path.parts) == depth + 2 and is_shown(path.parts[depth]) and _is_photo(path) and is_shown(path.name):
                photos[path.parts[depth]].append(path)
            else:
                self._pass_over(path, depth=depth)
        place = self.url if folder is None else f"{self.url.rstrip('/')}/{folder}"
        empty = next((name for name, found in photos.items() if not found), None)
        if empty is not None:
            raise UserError(
                f"Expected photos ({', '.join(PHOTO_SUFFIXES)}) in each class folder. Received: none in {place}/{empty}"
            )
        if not photos:
            raise UserError(
                "Expected a folder of class folders with photos, or of train, validation and test. Received: "
                f"{place}, with no folder in it"
            )
        return [(path.as_posix(), name) for name, found in photos.items() for path in found]

    def _pass_over(self, path: PurePosixPath, *, depth: int, beside: bool = False) -> None:
        """Counts a file below a folder whose folders at this depth are classes, or are beside the splits."""
        folders = list(path.parts[depth:-1])
        if not folders or (len(folders) == 1 and is_shown(folders[0]) and not beside):
            self.passed_over.add(_kind_of(path), path.as_posix())
        elif _is_photo(path):
            in_class = is_shown(folders[0]) and not beside
            what, outermost = (NESTED, folders[1]) if in_class else (BESIDE, folders[0])
            self.passed_over.add(what if is_shown(outermost) else HIDDEN, path.as_posix())


def _is_photo(path: PurePosixPath) -> bool:
    return path.suffix.lower() in PHOTO_SUFFIXES


def _kind_of(path: PurePosixPath) -> str | None:
    """What a file is that is not read, by its name."""
    if not is_shown(path.name):
        return HIDDEN if _is_photo(path) else None
    if _is_photo(path):
        return LOOSE
    return UNREAD if path.suffix.lower() in UNREAD_SUFFIXES else OTHER
