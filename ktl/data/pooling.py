"""Training and validation photos as one, for a training after validation has chosen."""

import dataclasses

import numpy as np

from ktl.data.dataset import Dataset, with_splits
from ktl.data.split import Split
from ktl.errors import UserError


def pooled(dataset: Dataset) -> Dataset:
    """The data set whose training photos are its training and validation photos; the other splits stay."""
    train, validation = dataset.train, dataset.validation
    labels = np.concatenate([train.labels, validation.labels])
    return with_splits(dataset, {"train": Split("train", train.photos + validation.photos, labels, train.source)})


def part_of_pooled(dataset: Dataset) -> Dataset:
    """The same data set as a part of `pooled(dataset)`, so that features of the one serve the other."""
    return dataclasses.replace(dataset, whole=pooled(dataset))


FOLD_SEED = 2027
"""Fixed, so that trainings with different seeds are chosen by the same folds."""


def crossed(dataset: Dataset) -> Dataset:
    """The data set whose training photos, and whose validation photos, are all its training and validation photos: what
    folds are parts of."""
    both = pooled(dataset).train
    return with_splits(dataset, {"train": both, "validation": both.take(np.arange(len(both)), name="validation")})


def folds_of(whole: Dataset, folds: int) -> list[Dataset]:
    """Parts of which each has a fold of the photos for validation and the others for training.

    The folds are as large as one another, but for a photo, and so is what each has of a class.

    Args:
        whole: from `crossed`.
        folds: number of them, from 2 on.

    Raises:
        UserError: there are fewer photos than folds, or a class has a single photo.
    """
    if folds > len(whole.train):
        raise UserError(
            f"Expected `folds` to be at most {len(whole.train)}, the training and validation photos. Received: {folds}"
        )
    numbers = _fold_numbers(whole.train.labels, folds)
    parts = [
        {
            "train": whole.train.take(np.flatnonzero(numbers != fold)),
            "validation": whole.validation.take(np.flatnonzero(numbers == fold)),
        }
        for fold in range(folds)
    ]
    return [dataclasses.replace(with_splits(whole, splits), whole=whole) for splits in parts]


def _fold_numbers(labels: np.ndarray, folds: int) -> np.ndarray:
    numbers, dealt = np.empty(len(labels), int), 0
    for label in np.unique(labels):
        members = np.random.default_rng([FOLD_SEED, label]).permutation(np.flatnonzero(labels == label))
        numbers[members] = (dealt + np.arange(len(members))) % folds  # where the class before it has ended
        dealt += len(members)
    return numbers
