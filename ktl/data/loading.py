"""Data sets by name: the embedded digits, a folder of photos, a CSV file, or TensorFlow Datasets."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from ktl.data.dataset import Dataset, make_dataset
from ktl.data.listing import Listing
from ktl.data.split import MemorySource, Split
from ktl.data.tfds_facts import FACTS
from ktl.errors import UserError


def load_dataset(name: str, *, data_dir: str | os.PathLike | None = None) -> Dataset:
    """The data set that a name means; the spelling decides which of `Dataset`'s constructors reads it.

    Args:
        name: `digits` (scikit-learn's, embedded), `caltech256`, a name that TensorFlow Datasets knows
            (`stanford_dogs`, `cifar10:3.0.2`), a folder, or a .csv file. A folder with the name of one of the first
            three needs a slash: `./digits`.
        data_dir: for a name of TensorFlow Datasets, the folder that holds prepared data sets. None: TFDS' own.

    Raises:
        UserError: there is no such data set, or the constructor refuses it.

    Example:
        >>> ktl.load_dataset("digits")
        Dataset('digits', 10 classes, 1,295 train, 143 validation and 359 test photos)
    """
    if name == "digits":
        return make_dataset(_list_digits())
    if name in FACTS:
        return Dataset.from_tfds(name, data_dir=data_dir)
    path = Path(os.path.expanduser(name))  # ~name stays as it is if there is no such user
    if path.suffix.lower() == ".csv":
        return Dataset.from_csv(path)
    if path.is_dir():
        return Dataset.from_directory(path)
    if name.startswith((".", "~")) or path.is_absolute() or name.endswith(os.sep):
        raise UserError(f"Expected a folder of photos or a .csv file. Received: {name}, which does not exist.")
    return Dataset.from_tfds(name, data_dir=data_dir)


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
