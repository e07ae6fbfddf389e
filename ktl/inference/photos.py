"""Photos as people have them: files, folders, PIL images and arrays."""

import dataclasses
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ktl.arguments import path_of
from ktl.data.arrays import described
from ktl.data.directory import kind_passed_over
from ktl.data.found import HIDDEN, UNREADABLE, PassedOver, Tally, is_shown
from ktl.data.images import PHOTO_SUFFIXES, BadPhoto, pixels_of
from ktl.data.input_pipeline import LISTED_PHOTOS
from ktl.data.views import evaluation_view, view_of
from ktl.errors import UserError
from ktl.files import read_regular
from ktl.names import is_url
from ktl.remote import can_be_listed, files_in, read_bytes

Photo = str | os.PathLike | Image.Image | np.ndarray
"""A file, or a folder of files, or the URL of one; a PIL image of any mode; pixels, uint8 [height, width, 3]."""

Photos = Photo | Iterable[Photo]
"""One or more of them; also uint8 [photos, height, width, 3]."""

STANDARD_INPUT = "-"


@dataclasses.dataclass(frozen=True, eq=False)
class NamedPhoto:
    """A photo, and what answers call it.

    Attributes:
        name: a file's path; `photos[2]` of an image or array.
        content: the file, its URL, the image, or uint8 [height, width, 3].
    """

    name: str
    content: Path | str | Image.Image | np.ndarray

    def view(self, size: int) -> np.ndarray:
        """What a network of that image size sees of it, uint8 [size, size, 3].

        Raises:
            BadPhoto: it cannot be read or decoded.
        """
        if isinstance(self.content, Path | str):
            return view_of(read_photo(self.content), size=size)
        pixels = pixels_of(self.content) if isinstance(self.content, Image.Image) else self.content
        return evaluation_view(pixels, size=size)


def read_photo(path: Path | str) -> bytes:
    """The bytes of a photo's file, or of what is at its URL.

    Raises:
        BadPhoto: it cannot be read.
        UserError: its server cannot be reached, or nothing here reads such URLs.
    """
    try:
        return read_regular(path) if isinstance(path, Path) else read_bytes(path)
    except UserError:  # of no photo in particular
        raise
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise BadPhoto(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def name_photos(photos: Photos) -> list[NamedPhoto]:
    """The photos in their order; a folder is all photos at any depth of it, sorted.

    Raises:
        UserError: what is given is no photo, or there is none.
    """
    if isinstance(photos, str | os.PathLike | Image.Image) or (isinstance(photos, np.ndarray) and photos.ndim == 3):
        photos = [photos]
    named = []
    for index, photo in enumerate(photos):
        named += _named(photo, f"photos[{index}]")
    if not named:
        raise UserError(f"Expected photos, or folders with photos ({', '.join(PHOTO_SUFFIXES)}). Received: none")
    return named


def expanded(names: Iterable[str]) -> list[str]:
    """The names, where `-` stands for those on standard input, one a line."""
    return [name for given in names for name in (_standard_input() if given == STANDARD_INPUT else [given])]


def find_photos(names: Iterable[str]) -> list[Path | str]:
    """The photos that names stand for: a file is itself, a folder is all photos at any depth of it, sorted.

    Args:
        names: see `expanded`.

    Raises:
        UserError: they stand for no photo.
    """
    names = expanded(names)
    photos = [photo for name in names for photo in photos_at(place_of(name))]
    if not photos:
        listed = ", ".join(names[:LISTED_PHOTOS]) or "no name"
        raise UserError(f"Expected photos, or folders with photos ({', '.join(PHOTO_SUFFIXES)}). Received: {listed}")
    return photos


def photos_at(path: Path | str) -> list[Path | str]:
    """The file itself, or the photos at any depth of the folder, sorted; hidden ones are left out."""
    if isinstance(path, str):
        return _photos_at_url(path)
    if not os.path.isdir(path):  # which is False of what cannot be looked at; whoever reads it says why
        return [path]
    return sorted(file for file in path.rglob("*") if _is_taken(file, path))


def _photos_at_url(url: str) -> list[Path | str]:
    photos = PHOTO_SUFFIXES
    if url.lower().endswith(photos) or not can_be_listed(url):
        return [url]
    files = [file for file in files_in(url) if file.name.lower().endswith(photos)]
    # Of a folder without photos whoever reads it says that there is no such file.
    return sorted(file.url for file in files if all(map(is_shown, file.name.split("/")))) or [url]


def passed_over_at(path: Path | str) -> tuple[PassedOver, ...]:
    """What `photos_at` leaves out, with how many there are of each kind; of what is at a URL nothing is told."""
    tally = Tally()
    if isinstance(path, str) or not os.path.isdir(path):
        return ()
    for file in sorted(path.rglob("*")):
        if not os.path.isdir(file) and not _is_taken(file, path):
            tally.add(HIDDEN if _is_photo(file) else kind_passed_over(file), str(file))
    for _ in os.walk(path, onerror=lambda error: tally.add(UNREADABLE, str(error.filename))):
        pass
    return tally.counts


def place_of(name: str | os.PathLike) -> Path | str:
    """A URL is itself, all else a path. One that no file can have is a photo that cannot be read: the others can."""
    given = os.fspath(name)
    if is_url(given):
        return given
    return Path(given) if isinstance(given, str) and given else path_of(name, argument="photos")


def _is_taken(file: Path, folder: Path) -> bool:
    return _is_photo(file) and all(is_shown(part) for part in file.relative_to(folder).parts)


def _is_photo(file: Path) -> bool:
    return file.suffix.lower() in PHOTO_SUFFIXES and os.path.isfile(file)


def _named(photo, name: str) -> list[NamedPhoto]:
    if isinstance(photo, str | os.PathLike):
        return [NamedPhoto(str(file), file) for file in photos_at(place_of(photo))]
    if isinstance(photo, Image.Image):
        return [NamedPhoto(name, photo)]
    if not isinstance(photo, np.ndarray):
        kind = type(photo).__name__
        raise UserError(f"Expected photos to be paths, PIL images or NumPy arrays. Received: {name} is of type {kind}")
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
        raise UserError(
            f"Expected an array of photos to be uint8 [photos, height, width, 3], or [height, width, 3] of one photo, "
            f"with pixels in 0..255. Received: {name} is {described(photo)}"
        )
    return [NamedPhoto(name, photo)]


def _standard_input() -> list[str]:
    return [os.fsdecode(line) for line in sys.stdin.buffer.read().splitlines() if line]
