"""A split's photos and labels, and where its photos are read from."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ktl.files import read_regular

SPLIT_WORDS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
"""What files and folders call a split -> our name of it."""


class FileVersion(NamedTuple):
    """What a file is now, without reading it.

    Attributes:
        path: of the file, absolute, and of what in it.
        stamp: its size, number, and times of change.
        changed_ns: when it was changed last, in nanoseconds since 1970.
    """

    path: str
    stamp: str
    changed_ns: int


def file_version(path: str | os.PathLike, part: str = "") -> FileVersion | None:
    """What a file, or some part of it, is now; None where there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return None  # whoever reads the photo says why
    # The time of the change of the file's entry, too: a copy may keep the time of the original's bytes.
    stamp = f"{status.st_size} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"
    return FileVersion(f"{os.path.abspath(path)}{part}", stamp, max(status.st_mtime_ns, status.st_ctime_ns))


class Source(Protocol):
    """Gives encoded photos by their ids."""

    def read(self, photo: str) -> bytes:
        """The bytes of the encoded photo; OSError if it cannot be read."""
        ...

    def stamp(self, photo: str) -> str:
        """A text that changes whenever the photo's bytes change."""
        ...

    def version(self, photo: str) -> FileVersion | None:
        """The file that a photo's digest may be remembered for; None where there is none."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class FileSource:
    """Photos that are files below one folder; a photo's id is its path relative to that folder.

    Attributes:
        root: the folder.
        is_dataset: whether the folder is the data set, so that whatever comes into it becomes a part.
    """

    root: Path
    is_dataset: bool = False

    def read(self, photo: str) -> bytes:
        return read_regular(self.root / photo)

    def stamp(self, photo: str) -> str:
        try:
            status = (self.root / photo).stat()
        except OSError:
            return "gone"  # whoever reads the photo says why
        return f"{status.st_size} {status.st_mtime_ns}"

    def version(self, photo: str) -> FileVersion | None:
        return file_version(self.root / photo)


@dataclasses.dataclass(frozen=True, eq=False)
class MemorySource:
    """Encoded photos that are in memory."""

    encoded: Mapping[str, bytes]

    def read(self, photo: str) -> bytes:
        return self.encoded[photo]

    def stamp(self, photo: str) -> str:
        return hashlib.sha256(self.encoded[photo]).hexdigest()

    def version(self, photo: str) -> FileVersion | None:
        return None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Photos and their labels.

    Attributes:
        name: train, validation or test.
        photos: the photos' ids; the source has no other photo with the same id.
        labels: int32 [photos]; a label is an index into the data set's class names.
        source: gives a photo's encoded bytes.

    Example:
        >>> split = ktl.Dataset.from_directory("photos").test
        >>> split
        Split('test', 340 photos)
        >>> PIL.Image.open(io.BytesIO(split.read(0))).size
        (500, 375)
    """

    name: str
    photos: tuple[str, ...]
    labels: np.ndarray
    source: Source

    def __len__(self) -> int:
        return len(self.photos)

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self):,} photos)"

    def read(self, index: int) -> bytes:
        """The encoded bytes of one photo.

        Raises:
            OSError: the photo cannot be read.
        """
        return self.source.read(self.photos[index])

    def take(self, indices: np.ndarray, *, name: str | None = None) -> "Split":
        """The split with only the photos at `indices`, int [m], in that order."""
        photos = tuple(self.photos[index] for index in indices)
        return Split(name or self.name, photos, self.labels[indices], self.source)


def sources_of(splits: Iterable[Split]) -> dict[str, Source]:
    """Photo's id -> what gives its bytes, for the photos of all splits; the last split's, where two have that id.

    What was a test photo for an earlier version of ktl may be a training photo now, where ktl sets photos aside.
    """
    return {photo: split.source for split in splits for photo in split.photos}
