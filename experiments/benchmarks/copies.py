"""Larger data sets out of a small one: every photo several times, under names of their own."""

import dataclasses
from collections.abc import Collection

import numpy as np

from benchmarks.work import change_splits
from ktl.data.dataset import Dataset
from ktl.data.split import FileVersion, Source, Split


@dataclasses.dataclass(frozen=True, eq=False)
class Copies:
    """Photos of another source under several ids each: the number of the copy, a colon, the id there.

    The number is appended to the bytes, where readers of photos take no notice of it: to caches, which know photos by
    their bytes, these are different photos.
    """

    source: Source

    def read(self, photo: str) -> bytes:
        number, _, original = photo.partition(":")
        return self.source.read(original) + number.encode()

    def stamp(self, photo: str) -> str:
        return self.source.stamp(photo.partition(":")[2])

    def version(self, photo: str) -> FileVersion | None:
        number, _, original = photo.partition(":")
        version = self.source.version(original)
        return version and version._replace(path=f"{version.path}:{number}")


@dataclasses.dataclass(frozen=True, eq=False)
class Notes:
    """Photos of another source, some of them with a byte more, of which readers of photos take no notice."""

    source: Source
    photos: Collection[str]

    def read(self, photo: str) -> bytes:
        return self.source.read(photo) + (b"." if photo in self.photos else b"")

    def stamp(self, photo: str) -> str:
        return self.source.stamp(photo)

    def version(self, photo: str) -> FileVersion | None:
        version = self.source.version(photo)
        return version and version._replace(path=f"{version.path}{'.' if photo in self.photos else ''}")


def with_notes(dataset: Dataset, photos: Collection[str]) -> Dataset:
    """The data set in which some photos have other bytes, and the same pixels."""
    return change_splits(dataset, lambda split: dataclasses.replace(split, source=Notes(split.source, photos)))


def copied(dataset: Dataset, times: int) -> Dataset:
    """Each photo of each split `times` times; to caches and to the training these are different photos."""

    def copied_split(split: Split) -> Split:
        photos = tuple(f"{number}:{photo}" for number in range(times) for photo in split.photos)
        return Split(split.name, photos, np.tile(split.labels, times), Copies(split.source))

    return change_splits(dataset, copied_split)
