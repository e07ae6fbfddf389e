"""Batches of stored features, in the order in which uncached training shows its photos."""

from collections.abc import Sequence

import numpy as np

from ktl.data.batches import ArraySpec, Batch, Batches, RowBatches, Rows
from ktl.data.order import Shown, TrainingOrder, evaluation_order

READERS, READERS_AT_URL = 2, 8
"""How many batches are read at a time: at a URL most of the time of each is waiting."""


def cached_evaluation_batches(features: Rows, *, batch_size: int) -> RowBatches:
    """The features of every photo's first view, in order: pairs ([batch, *shape], int32 [batch]).

    Args:
        features: of a split.
        batch_size: photos a batch.
    """
    return _batches(evaluation_order(len(features), batch_size=batch_size), features)


def cached_training_batches(
    features: Rows, *, batch_size: int, steps: int, epochs: int, first_epoch: int = 0, seed: int
) -> RowBatches:
    """The epochs first_epoch, ..., epochs - 1: the photos and views of uncached training, in its order.

    Args:
        features: of the training photos.
        batch_size: photos a step.
        steps: an epoch.
        epochs: where training ends.
        first_epoch: where it starts or continues.
        seed: of the order, see `ktl.data.order.TrainingOrder`.

    Returns:
        Pairs ([batch_size, *shape], int32 [batch_size]).
    """
    order = TrainingOrder(
        len(features),
        batch_size=batch_size,
        steps=steps,
        epochs=epochs,
        first_epoch=first_epoch,
        seed=seed,
        views=features.views,
    )
    return _batches(order, features)


def filled_batches(batches: RowBatches, *, size: int) -> Batches:
    """The same photos in batches of one size: a program that is compiled for a shape is compiled once.

    Args:
        batches: of any sizes up to that one.
        size: photos a batch.

    Returns:
        Triples ([size, *shape], int32 [size], float32 [size]): the last is 0 for photos that only fill a batch, else 1.
    """

    def make(number: int) -> Batch:
        rows, source = batches.rows(number), batches.source
        all_rows = np.resize(rows, size)
        counted = (np.arange(size) < len(rows)).astype("float32")
        return source.read(all_rows), source.labels[all_rows // source.views], counted

    specs = *batches.specs, ArraySpec((None,), "float32")
    return Batches(len(batches), make, specs, threads=batches.threads)


def _batches(order: Sequence[Shown], features: Rows) -> RowBatches:
    """Batches of features and labels.

    Read a batch at a time: the system keeps in memory what fits, and a copy of our own was no faster and took seconds.
    """

    def rows(number: int) -> np.ndarray:
        photos, views = order[number]
        return photos * features.views + views

    def make(number: int) -> Batch:
        chosen = rows(number)
        return features.read(chosen), features.labels[chosen // features.views]

    of_row = ArraySpec((None, *features.shape), str(features.dtype))
    specs = of_row, ArraySpec((None,), "int32")
    threads = READERS_AT_URL if features.at_url else READERS
    return RowBatches(len(order), make, specs, threads=threads, source=features, rows=rows)
