"""Batches as what Keras' trainer takes, on the backend that there is."""

from collections.abc import Generator
from typing import Any

import keras

from ktl.data.batches import LOOK_AHEAD, Batch, Batches


class PlainFeed:
    """Batches as what Keras takes on every backend; errors of making one are raised as they are.

    Example:
        >>> with make_feed() as feed:
        ...     model.fit(feed.once(training), validation_data=feed.dataset(validation))
    """

    def __enter__(self) -> "PlainFeed":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        pass

    def once(self, batches: Batches) -> Generator[Batch, None, None]:
        """The batches in their order; an epoch goes on where the one before has ended."""
        return (batch for batch in batches)

    def dataset(self, batches: Batches) -> keras.utils.PyDataset:
        """The batches in their order, from the first one on each time."""
        return _Dataset(batches)


class _Dataset(keras.utils.PyDataset):
    def __init__(self, batches: Batches):
        super().__init__(workers=batches.threads, max_queue_size=batches.threads + LOOK_AHEAD)
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        return self._batches[index]


def make_feed() -> Any:
    """The feed of Keras' backend."""
    if keras.config.backend() != "tensorflow":
        return PlainFeed()
    from ktl.data.tf_data import TensorFlowFeed  # without TensorFlow there is no such module

    return TensorFlowFeed()
