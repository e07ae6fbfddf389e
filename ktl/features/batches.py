"""Batches of stored features, in the order in which uncached training shows its photos."""

from collections.abc import Sequence

from ktl.data.batches import ArraySpec, Batch, Batches
from ktl.data.order import Shown, TrainingOrder, evaluation_order
from ktl.features.store import Features

READERS, READERS_AT_URL = 2, 8
"""How many batches are read at a time: at a URL most of the time of each is waiting."""


def cached_evaluation_batches(features: Features, *, batch_size: int) -> Batches:
    """The features of every photo's first view, in order: pairs ([batch, *shape], int32 [batch]).

    Args:
        features: of a split.
        batch_size: photos a batch.
    """
    return _batches(evaluation_order(len(features), batch_size=batch_size), features)


def cached_training_batches(
    features: Features, *, batch_size: int, steps: int, epochs: int, first_epoch: int = 0, seed: int
) -> Batches:
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


def _batches(order: Sequence[Shown], features: Features) -> Batches:
    """Batches of features and labels.

    Read a batch at a time: the system keeps in memory what fits, and a copy of our own was no faster and took seconds.
    """

    def make(number: int) -> Batch:
        photos, views = order[number]
        return features.read(photos * features.views + views), features.labels[photos]

    rows = ArraySpec((None, *features.shape), str(features.dtype))
    threads = READERS_AT_URL if features.at_url else READERS
    return Batches(len(order), make, (rows, ArraySpec((None,), "int32")), threads=threads)
