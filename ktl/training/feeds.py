"""Batches as what Keras' trainer takes, on the backend that there is."""

import dataclasses
from collections.abc import Generator
from typing import Any

import keras

from ktl.data.batches import LOOK_AHEAD, Batch, Batches
from ktl.machine import backend


class PlainFeed:
    """Batches as what Keras takes on every backend; errors of making one are raised as they are.

    Example:
        >>> with make_feed(model) as feed:
        ...     model.fit(feed.once(training), validation_data=feed.dataset(validation))

    Args:
        devices: over how many each batch is split.
    """

    def __init__(self, *, devices: int = 1):
        self._devices = devices

    def __enter__(self) -> "PlainFeed":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        pass

    def once(self, batches: Batches) -> Generator[Batch, None, None]:
        """The batches in their order; an epoch goes on where the one before has ended."""
        return (batch for batch in self._placed(batches))

    def dataset(self, batches: Batches) -> keras.utils.PyDataset:
        """The batches in their order, from the first one on each time."""
        return _Dataset(self._placed(batches))

    def _placed(self, batches: Batches) -> Batches:
        if self._devices == 1:
            return batches
        return dataclasses.replace(batches, make=lambda number: tuple(map(backend.placed, batches.make(number))))


class _Dataset(keras.utils.PyDataset):
    def __init__(self, batches: Batches):
        super().__init__(workers=batches.threads, max_queue_size=batches.threads + LOOK_AHEAD)
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        return self._batches[index]


def make_feed(model: keras.Model) -> Any:
    """The feed of Keras' backend, for a model that was built on one device or several."""
    if keras.config.backend() != "tensorflow":
        return PlainFeed(devices=backend.devices_of(model))
    from ktl.data.tf_data import TensorFlowFeed  # without TensorFlow there is no such module

    return TensorFlowFeed()
