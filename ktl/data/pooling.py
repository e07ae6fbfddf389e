"""Training and validation photos as one, for a training after validation has chosen."""

import dataclasses

import numpy as np

from ktl.data.dataset import Dataset, with_splits
from ktl.data.split import Split


def pooled(dataset: Dataset) -> Dataset:
    """The data set whose training photos are its training and validation photos; the other splits stay."""
    train, validation = dataset.train, dataset.validation
    labels = np.concatenate([train.labels, validation.labels])
    return with_splits(dataset, {"train": Split("train", train.photos + validation.photos, labels, train.source)})


def part_of_pooled(dataset: Dataset) -> Dataset:
    """The same data set as a part of `pooled(dataset)`, so that features of the one serve the other."""
    return dataclasses.replace(dataset, whole=pooled(dataset))
