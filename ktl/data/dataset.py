"""Data sets of three splits: names and labels in memory, encoded photos read one by one from where they are."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ktl.arguments import checked_arguments
from ktl.data.arrays import Labels, Photos, list_arrays
from ktl.data.directory import list_directory
from ktl.data.found import Found
from ktl.data.listing import Listing
from ktl.data.split import Split
from ktl.data.tables import Frame, list_csv, list_dataframe
from ktl.errors import UserError

TEST_SHARE = 0.2
"""Share of each class's photos that becomes the test split where none is given."""

VALIDATION_SHARE = 0.1
"""Share of each class's training photos that becomes the validation split where none is given."""

SPLIT_SEED = 2026
"""Fixed, so that runs with different training seeds are selected and tested on the same photos."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Photos with their classes, in a training, a validation and a test split.

    Make one with `from_directory`, `from_csv`, `from_dataframe`, `from_arrays` or `from_tfds`. A test or a validation
    split that is not given is set aside from the training photos: a fifth of each class for test, a tenth of the rest
    for validation, the same photos every time. No photo is decoded before it is needed.

    Attributes:
        name: what reports call it.
        class_names: a label is an index into these. Names are given in Unicode's composed form (NFC); those that
            differ in letter case, white space or invisible signs alone are refused.
        train: the photos that weights are fitted to.
        validation: the photos that settings are chosen by.
        test: the photos that are scored once.
        flip: whether a mirrored photo still shows its class, as digits do not. It is True unless the data set is known;
            `dataclasses.replace(dataset, flip=False)` changes it.
        notice: what a reader of the results must know, or None.
        found: what was passed over where the photos are, such as files of other formats, and what is told of that.
        fingerprint: hexadecimal; changes with the photos, their bytes, labels, classes or splits.
        whole: the data set that this one is a part of, or None. What was computed for the whole serves its part.

    Example:
        >>> dataset = ktl.Dataset.from_directory("photos")
        >>> dataset
        Dataset('photos', 17 classes, 986 train, 102 validation and 272 test photos)
        >>> dataset.class_names[dataset.test.labels[0]]
        'bluebell'
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    flip: bool
    notice: str | None
    fingerprint: str
    found: Found = dataclasses.field(default_factory=Found)
    whole: "Dataset | None" = None

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """Train, validation and test."""
        return self.train, self.validation, self.test

    def told(self) -> list[str]:
        """What is told of it at the beginning of a run, in lines: photos, classes, splits, what was passed over."""
        photos = {split.name: len(split) for split in self.splits}
        return self.found.lines(self.name, classes=len(self.class_names), photos=photos)

    def __repr__(self) -> str:
        train, validation, test = (f"{len(split):,} {split.name}" for split in self.splits)
        return f"Dataset({self.name!r}, {len(self.class_names)} classes, {train}, {validation} and {test} photos)"

    # The constructors' readers give a Listing and know nothing of this class: there is no circle of imports.

    @staticmethod
    def from_directory(path: str | os.PathLike) -> "Dataset":
        """The photos of a folder of class folders.

        Args:
            path: a folder, or its URL, with `<class>/<photo>` or `train|validation|test/<class>/<photo>`; `val` and
                `valid` mean validation too. Photos are JPEG, PNG, GIF, BMP and WebP files of any size; other files,
                hidden ones, and what is no regular file are passed over.

        Raises:
            UserError: `path` is no folder or its layout cannot be understood, there are fewer than two classes, a class
                has no training photo, or a class has too few photos to set some aside.

        Example:
            >>> ktl.Dataset.from_directory("photos").class_names
            ('daisy', 'rose', 'tulip')
        """
        return make_dataset(list_directory(path))

    @staticmethod
    def from_csv(path: str | os.PathLike) -> "Dataset":
        """The photos that a CSV file lists.

        Args:
            path: a file in UTF-8, or its URL, whose first line is `path,label` or `path,label,split`. Paths are URLs,
                or relative to the file's folder; a split is train, validation (val, valid) or test.

        Raises:
            UserError: `path` cannot be read or understood, a photo does not exist or is listed twice, or a reason that
                `from_directory` has.

        Example:
            >>> ktl.Dataset.from_csv("photos/labels.csv").train.photos[:2]
            ('images/0001.jpg', 'images/0007.jpg')
        """
        return make_dataset(list_csv(path))

    @staticmethod
    def from_dataframe(frame: Frame, *, root: str | os.PathLike = ".") -> "Dataset":
        """The photos that a table lists, such as a DataFrame of pandas or Polars.

        Args:
            frame: has a column `path` of strings or Paths, a column `label` of strings or whole numbers, and may have a
                column `split` as in `from_csv`. Other columns are ignored. Class names are the labels as strings.
            root: the folder that paths are relative to.

        Raises:
            UserError: a column of `frame` is missing, a value is missing or of another kind, a photo does not exist in
                `root` or is listed twice, or a reason that `from_directory` has.

        Example:
            >>> frame = pandas.read_parquet("photos/labels.parquet")
            >>> ktl.Dataset.from_dataframe(frame, root="photos")
            Dataset('dataframe', 3 classes, 720 train, 80 validation and 200 test photos)
        """
        return make_dataset(list_dataframe(frame, root=root))

    @staticmethod
    def from_arrays(
        images: Photos,
        labels: Labels,
        *,
        class_names: Sequence[str] | None = None,
        validation: tuple[Photos, Labels] | None = None,
        test: tuple[Photos, Labels] | None = None,
    ) -> "Dataset":
        """Photos that are in memory, as arrays or as PIL images.

        Arrays are not copied: do not change them while the data set is in use.

        Args:
            images: uint8 [photos, height, width, 3] with pixels in 0..255, or a list of such photos of different sizes:
                uint8 [height, width, 3] and PIL images of any mode.
            labels: [photos] or [photos, 1]: whole numbers from 0, or class names.
            class_names: the classes that numbers stand for. None: the names in `labels`, sorted, or the numbers.
            validation: images and labels of the validation split, or None.
            test: images and labels of the test split, or None.

        Raises:
            UserError: `images` or `labels` have another shape or type, a label is not among `class_names`, or a reason
                that `from_directory` has.

        Example:
            >>> (images, labels), test = keras.datasets.cifar10.load_data()
            >>> ktl.Dataset.from_arrays(images, labels, test=test)
            Dataset('arrays', 10 classes, 45,000 train, 5,000 validation and 10,000 test photos)
        """
        return make_dataset(list_arrays(images, labels, class_names=class_names, validation=validation, test=test))

    @staticmethod
    @checked_arguments
    def from_tfds(name: str, data_dir: str | os.PathLike | None = None) -> "Dataset":
        """A data set of TensorFlow Datasets (TFDS), downloaded and prepared first unless it is already.

        Args:
            name: `stanford_dogs`, `cifar10:3.0.2`, `name/config`, or `caltech256`, which TFDS itself lacks.
            data_dir: the folder that holds prepared data sets, as TFDS lays them out. None: TFDS' own.

        Raises:
            UserError: no data set has this `name`, it does not have one image and one label for each example, or it can
                neither be found in `data_dir` nor be downloaded.

        Example:
            >>> ktl.Dataset.from_tfds("oxford_flowers102", data_dir="/data/tfds").test
            Split('test', 6,149 photos)
        """
        try:
            from ktl.data.tfds import list_tfds  # loads TensorFlow Datasets
        except ModuleNotFoundError as error:
            raise UserError(
                f"Expected a folder of photos or a .csv file: TensorFlow Datasets is not installed. Received: {name}"
            ) from error

        return make_dataset(list_tfds(name, data_dir=data_dir))


def make_dataset(listing: Listing) -> Dataset:
    """The data set of a listing; a missing test or validation split is set aside from train.

    Raises:
        UserError: there are fewer than two classes, a class has no training photo, or too few to set some aside.
    """
    name, class_names, splits = listing.name, listing.class_names, dict(listing.splits)
    if len(class_names) < 2:
        listed = ", ".join(class_names) or "none"
        raise UserError(f"Expected photos of at least two classes in {name}. Received: {listed}")
    _check_classes(name, splits, class_names)
    set_aside = tuple(part for part in ("validation", "test") if part not in splits) or listing.found.set_aside
    for part, share in (("test", TEST_SHARE), ("validation", VALIDATION_SHARE)):
        if part not in splits:
            splits["train"], splits[part] = _carve(splits["train"], part, share=share, class_names=class_names)
    return Dataset(
        name=name,
        class_names=class_names,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        flip=listing.flip,
        notice=listing.notice,
        found=dataclasses.replace(listing.found, set_aside=set_aside),
        fingerprint=_fingerprint(listing.origin, class_names, splits.values()),
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
    """The data set with some of its splits replaced by others over the same classes; `splits` maps names to them.

    Raises:
        UserError: a split or a class of train has no photo left.
    """
    listing = Listing(
        dataset.name,
        {split.name: split for split in dataset.splits} | dict(splits),
        dataset.class_names,
        flip=dataset.flip,
        notice=dataset.notice,
        found=dataset.found,
        origin=dataset.fingerprint,
    )
    return make_dataset(listing)


def _carve(split: Split, name: str, *, share: float, class_names: tuple[str, ...]) -> tuple[Split, Split]:
    """Divides a split: all but a random `share` of every class, and that share. Each has a photo of every class."""
    chosen = np.zeros(len(split), bool)
    for label, class_name in enumerate(class_names):
        members = np.flatnonzero(split.labels == label)
        count = max(1, round(share * len(members)))
        if count >= len(members):
            raise UserError(
                f"Expected enough photos of every class to set some aside for {name}. Received: {len(members)} left of "
                f"class {class_name!r}. Add photos of it, remove the class, or give a {name} split."
            )
        chosen[sorted(members, key=lambda index: _lot(split.photos[index]))[:count]] = True
    return split.take(np.flatnonzero(~chosen)), split.take(np.flatnonzero(chosen), name=name)


def _lot(photo: str) -> tuple[bytes, str]:
    """What a photo is drawn by: random, and the same whatever photos come or go, and whatever its folder is called."""
    name = photo.rsplit("/", 1)[-1]
    return hashlib.sha256(f"{SPLIT_SEED} {name}".encode()).digest(), photo


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


def _fingerprint(origin: str, class_names: tuple[str, ...], splits: Iterable[Split]) -> str:
    digest = hashlib.sha256(repr((origin, class_names)).encode())
    for split in splits:
        for photo, label in zip(split.photos, split.labels, strict=True):
            digest.update(repr((split.name, photo, int(label), split.source.stamp(photo))).encode())
    return digest.hexdigest()
