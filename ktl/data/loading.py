"""Data sets by name: the embedded digits, a folder of photos, a CSV file, or TensorFlow Datasets."""

import dataclasses
import functools
import io
import os
import re
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ktl.arguments import checked_arguments, path_of
from ktl.data.dataset import Dataset, make_dataset
from ktl.data.directory import holds_photos
from ktl.data.listing import Listing
from ktl.data.split import MemorySource, Split
from ktl.data.tfds_facts import FACTS
from ktl.errors import UserError
from ktl.names import is_url
from ktl.remote import name_of

DIGITS = "digits"


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What a data set's name is taken for.

    Attributes:
        kind: which of the readers reads it.
        path: of the folder or file, where it is one; a text if that is a URL.
        remark: what else the name could mean, in a line; None if nothing.
    """

    kind: Literal["digits", "tfds", "csv", "folder"]
    path: Path | str
    remark: str | None = None


@checked_arguments
def load_dataset(name: str | os.PathLike, *, data_dir: str | os.PathLike | None = None) -> Dataset:
    """The data set that a name means; see `meaning_of`.

    Args:
        name: `digits` (scikit-learn's, embedded), `caltech256`, a name that TensorFlow Datasets knows
            (`stanford_dogs`, `cifar10:3.0.2`), a folder, or a .csv file; either of them may be a URL.
        data_dir: for a name of TensorFlow Datasets, the folder that holds prepared data sets. None: TFDS' own.

    Raises:
        UserError: there is no such data set, or the constructor refuses it.

    Example:
        >>> ktl.load_dataset("digits")
        Dataset('digits', 10 classes, 1,295 train, 143 validation and 359 test photos)
    """
    if not is_url(name):
        path = path_of(name, argument="name")
        name = name if isinstance(name, str) else str(path)  # `./name` is spelled as a path, which a Path forgets
    meaning = meaning_of(name, data_dir=data_dir)
    readers = {
        "digits": lambda: make_dataset(_list_digits()),
        "tfds": lambda: Dataset.from_tfds(name, data_dir=data_dir),
        "csv": lambda: Dataset.from_csv(meaning.path),
        "folder": lambda: Dataset.from_directory(meaning.path),
    }
    dataset = readers[meaning.kind]()
    if meaning.remark is None:
        return dataset
    found = dataclasses.replace(dataset.found, remarks=(meaning.remark, *dataset.found.remarks))
    return dataclasses.replace(dataset, found=found)


def meaning_of(name: str, *, data_dir: str | os.PathLike | None = None) -> Meaning:
    """What a data set's name is taken for.

    A name that is spelled as a path (`./name`, `name/`, `~/name`, `name.csv`) is one. Another one that a folder with
    photos in class folders has too is that folder, unless `data_dir` says where data sets with known names are.

    Raises:
        UserError: it is spelled as a path, and there is no such folder or file; or it is a file of another kind.
    """
    if is_url(name):
        return Meaning("csv" if name_of(name).lower().endswith(".csv") else "folder", name)
    path = Path(os.path.expanduser(name))  # ~name stays as it is if there is no such user
    if path.suffix.lower() == ".csv" and not path.is_dir():
        return Meaning("csv", path)
    if name.startswith((".", "~")) or path.is_absolute() or name.endswith(os.sep):
        if path.is_dir():
            return Meaning("folder", path)
        reason = "which is another file" if path.exists() else "which does not exist"
        raise UserError(f"Expected a folder of photos or a .csv file. Received: {name}, {reason}.")
    if not path.exists():
        return Meaning("digits" if name == DIGITS else "tfds", path)
    return _meaning_of_both(name, path, data_dir)


def _meaning_of_both(name: str, path: Path, data_dir: str | os.PathLike | None) -> Meaning:
    """What a name is taken for that is no path by its spelling, and of which there is a folder or a file."""
    known = _known(name)
    if path.is_dir() and (known is None or (data_dir is None and holds_photos(path))):
        other = f"{name} is taken for the folder that is here, not for {known}: " if known else None
        way = "call that from another folder" if name == DIGITS else "for that, say where prepared data sets are"
        return Meaning("folder", path, other and other + way)
    if known is None:
        raise UserError(f"Expected a folder of photos or a .csv file. Received: {name}, which is another file.")
    kind = "folder" if path.is_dir() else "file"
    remark = f"{name} is taken for {known}, not for the {kind} of that name that is here"
    return Meaning("digits" if name == DIGITS else "tfds", path, f"{remark}: ./{name}" if path.is_dir() else remark)


def dataset_folder(name: str, *, data_dir: str | os.PathLike | None = None) -> Path | None:
    """The folder here that a data set's name means; None if it means no folder, or none that is there."""
    if is_url(name):
        return None
    path = path_of(os.path.expanduser(name), argument="dataset")
    return path if path.is_dir() and meaning_of(name, data_dir=data_dir).kind == "folder" else None


@functools.cache
def _known(name: str) -> str | None:
    """Whose data set has this name, as errors say it; None if nobody's."""
    if name == DIGITS:
        return "scikit-learn's digits"
    base = re.split("[:/]", name)[0]
    if base in FACTS:
        return "the data set of TensorFlow Datasets"
    if not re.fullmatch(r"\w+", base):
        return None
    try:
        import tensorflow_datasets as tfds  # takes a second; asked of names alone that a folder here has
    except ModuleNotFoundError:  # which JAX needs for these data sets alone
        return None
    return "the data set of TensorFlow Datasets" if base in tfds.list_builders(with_community_datasets=False) else None


def _list_digits() -> Listing:
    from sklearn.datasets import load_digits  # heavy, as is the next
    from sklearn.utils import Bunch

    digits = load_digits()
    assert isinstance(digits, Bunch)  # and no pair of arrays, which it gives on demand
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    encoded = {f"digits/{index:04}.png": _png(image) for index, image in enumerate(grey)}
    split = Split("train", tuple(encoded), digits.target.astype(np.int32), MemorySource(encoded))
    return Listing("digits", {"train": split}, tuple(str(name) for name in digits.target_names), flip=False)


def _png(grey: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    return file.getvalue()
