"""Splits and data sets: names and labels in memory, encoded photos read one by one from where they are."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from ktl.errors import UserError

TEST_SHARE = 0.2
"""Share of each class's photos that becomes the test split where none is given."""

VALIDATION_SHARE = 0.1
"""Share of each class's training photos that becomes the validation split where none is given."""

SPLIT_SEED = 2026
"""Fixed, so that runs with different training seeds are selected and tested on the same photos."""

SPLIT_WORDS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
"""What files and folders call a split -> our name of it."""


class Source(Protocol):
    """Where encoded photos come from, by the photo's id."""

    def read(self, photo: str) -> bytes:
        """The encoded photo; OSError where it cannot be read."""

    def stamp(self, photo: str) -> str:
        """Changes whenever the photo's bytes change."""


@dataclasses.dataclass(frozen=True, eq=False)
class FileSource:
    """Photos that are files under one folder; the id is the path from it."""

    root: Path

    def read(self, photo: str) -> bytes:
        return (self.root / photo).read_bytes()

    def stamp(self, photo: str) -> str:
        try:
            status = (self.root / photo).stat()
        except OSError:
            return "gone"  # whoever reads it tells why
        return f"{status.st_size} {status.st_mtime_ns}"


@dataclasses.dataclass(frozen=True, eq=False)
class MemorySource:
    """Photos that were embedded in a package."""

    encoded: Mapping[str, bytes]

    def read(self, photo: str) -> bytes:
        return self.encoded[photo]

    def stamp(self, photo: str) -> str:
        return hashlib.sha256(self.encoded[photo]).hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Photos and their labels.

    Attributes:
        name: train, validation or test.
        photos: the photos' ids, unique within the source.
        labels: int32 [len(photos)], indices into the data set's class names.
        source: gives a photo's encoded bytes.
    """

    name: str
    photos: tuple[str, ...]
    labels: np.ndarray
    source: Source

    def __len__(self) -> int:
        return len(self.photos)

    def read(self, index: int) -> bytes:
        """The encoded bytes of one photo."""
        return self.source.read(self.photos[index])

    def take(self, indices: np.ndarray, *, name: str | None = None) -> "Split":
        """The photos at `indices`, int [m]."""
        photos = tuple(self.photos[index] for index in indices)
        return Split(name or self.name, photos, self.labels[indices], self.source)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits over one list of classes.

    Attributes:
        name: what reports call it.
        class_names: a label is an index into these.
        train: the photos that weights are fitted to.
        validation: the photos that settings are chosen by.
        test: the photos that are scored once.
        flip: whether a mirrored photo is still of its class.
        notice: what a reader of the results must know, or None.
        fingerprint: hexadecimal; changes with the photos, their bytes, labels, classes or splits.
        whole: the data set that this one is a part of, or None; what was computed of that serves both.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    flip: bool
    notice: str | None
    fingerprint: str
    whole: "Dataset | None" = None

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """Train, validation and test."""
        return self.train, self.validation, self.test


def make_dataset(
    name: str,
    splits: Mapping[str, Split],
    *,
    class_names: tuple[str, ...],
    flip: bool = True,
    notice: str | None = None,
    origin: str = "",
) -> Dataset:
    """A data set of the given splits, with a missing test or validation split carved from train.

    Args:
        name: what reports call it.
        splits: `train`, and `validation` and `test` where they exist.
        class_names: a label is an index into these.
        flip: whether a mirrored photo is still of its class.
        notice: what a reader of the results must know.
        origin: what the photos' own stamps do not say, such as a version; part of the fingerprint.

    Raises:
        UserError: fewer than two classes, a class that train lacks, or a class too small to carve from.
    """
    splits = dict(splits)
    if len(class_names) < 2:
        listed = ", ".join(class_names) or "none"
        raise UserError(f"Expected photos of at least two classes in {name}. Received: {listed}")
    _check_classes(name, splits, class_names)
    for part, share in (("test", TEST_SHARE), ("validation", VALIDATION_SHARE)):
        if part not in splits:
            splits["train"], splits[part] = _carve(splits["train"], part, share=share, class_names=class_names)
    return Dataset(
        name=name,
        class_names=class_names,
        **splits,
        flip=flip,
        notice=notice,
        fingerprint=_fingerprint(origin, class_names, splits.values()),
    )


def without(dataset: Dataset, photos: set[str]) -> Dataset:
    """The data set without some of its photos.

    Raises:
        UserError: a split or a class of train has no photo left.
    """
    splits = {
        split.name: split.take(np.flatnonzero([photo not in photos for photo in split.photos]))
        for split in dataset.splits
    }
    return with_splits(dataset, splits)


def with_splits(dataset: Dataset, splits: Mapping[str, Split]) -> Dataset:
    """The data set with some of its splits, by their names, replaced by others over the same classes.

    Raises:
        UserError: a split or a class of train has no photo left.
    """
    return make_dataset(
        dataset.name,
        {split.name: split for split in dataset.splits} | dict(splits),
        class_names=dataset.class_names,
        flip=dataset.flip,
        notice=dataset.notice,
        origin=dataset.fingerprint,
    )


def _carve(split: Split, name: str, *, share: float, class_names: tuple[str, ...]) -> tuple[Split, Split]:
    """The split without, and with only, a random `share` of every class: at least one photo on each side."""
    chosen = np.zeros(len(split), bool)
    for label, class_name in enumerate(class_names):
        members = np.flatnonzero(split.labels == label)
        count = max(1, round(share * len(members)))
        if count >= len(members):
            raise UserError(
                f"Expected enough photos of every class to set some aside for {name}. Received: {len(members)} left of "
                f"class {class_name!r}. Add photos of it, remove the class, or give a {name} split."
            )
        # One generator a class: adding photos to a class leaves the choice within the others as it was.
        generator = np.random.default_rng([SPLIT_SEED, label])
        chosen[generator.permutation(members)[:count]] = True
    return split.take(np.flatnonzero(~chosen)), split.take(np.flatnonzero(chosen), name=name)


def _check_classes(name: str, splits: Mapping[str, Split], class_names: tuple[str, ...]) -> None:
    for split in splits.values():
        if not len(split):
            raise UserError(f"Expected photos in the {split.name} split of {name}. Received: none")
    absent = np.flatnonzero(np.bincount(splits["train"].labels, minlength=len(class_names)) == 0)
    if absent.size:
        listed = ", ".join(class_names[label] for label in absent[:5])
        raise UserError(
            f"Expected training photos of every class of {name}. Received: none of {listed}"
            f"{' and others' if absent.size > 5 else ''}. Add photos to train, or remove the class everywhere."
        )


def _fingerprint(origin: str, class_names: tuple[str, ...], splits) -> str:
    digest = hashlib.sha256(repr((origin, class_names)).encode())
    for split in splits:
        for photo, label in zip(split.photos, split.labels, strict=True):
            digest.update(repr((split.name, photo, int(label), split.source.stamp(photo))).encode())
    return digest.hexdigest()
