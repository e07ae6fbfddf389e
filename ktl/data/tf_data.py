"""All of TensorFlow that `ktl.data` needs: its own way to take batches, and the records of TensorFlow Datasets."""

import os
from collections.abc import Iterator
from typing import cast

import tensorflow as tf

from ktl.data.batches import LOOK_AHEAD, Batches
from ktl.data.records import AFTER_RECORD, BEFORE_RECORD, DamagedRecords


class TensorFlowFeed:
    """Batches as what Keras' TensorFlow trainer takes.

    Inside, what fails while a batch is made is raised as itself; TensorFlow would tell of it in an error of its own,
    with its place in the graph and a traceback as text.

    Example:
        >>> with TensorFlowFeed() as feed:
        ...     model.fit(feed.dataset(batches))
    """

    def __init__(self):
        self._failures: list[Exception] = []

    def __enter__(self) -> "TensorFlowFeed":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if isinstance(error, tf.errors.OpError) and self._failures:
            raise self._failures[0] from None

    def once(self, batches: Batches) -> tf.data.Dataset:
        """The batches in their order; an epoch goes on where the one before has ended."""
        return self.dataset(batches)

    def dataset(self, batches: Batches) -> tf.data.Dataset:
        """The batches in their order, several of them made at a time; their number is known to TensorFlow too."""

        def make(number):
            try:
                return batches[number]
            except Exception as error:
                self._failures.append(error)
                raise

        def tensors(number):
            # A batch depends on its number alone. Declared as not stateful, several are made at a time even when
            # TensorFlow is asked for deterministic operations.
            dtypes = [spec.dtype for spec in batches.specs]
            made = tf.numpy_function(make, [number], dtypes, stateful=False)
            return tuple(tf.ensure_shape(array, spec.shape) for array, spec in zip(made, batches.specs, strict=True))

        # By their numbers: from a generator, training a head alone took twice as long an epoch.
        numbers = tf.data.Dataset.range(len(batches))
        made = numbers.map(tensors, num_parallel_calls=batches.threads, deterministic=True).prefetch(LOOK_AHEAD)
        options = tf.data.Options()
        # Threads of their own: a batch may need TensorFlow, where damaged features are computed again, and would wait
        # for the threads that wait for it.
        options.threading.private_threadpool_size = batches.threads + 1
        return untuned(made.with_options(options))


def read_tfrecords(path: str) -> Iterator[bytes]:
    """The records of a TFRecord file, one after another. Raises DamagedRecords at the first one that is not whole."""
    end = 0
    try:
        for record in cast(Iterator[bytes], untuned(tf.data.TFRecordDataset(path)).as_numpy_iterator()):
            end += BEFORE_RECORD + len(record) + AFTER_RECORD
            yield record
    except tf.errors.DataLossError as error:
        raise DamagedRecords(path) from error
    if end != os.path.getsize(path):  # TensorFlow takes a length that is cut for the end of the file
        raise DamagedRecords(path)


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same data set without automatic tuning of its buffers.

    The thread that tunes an iterator sleeps twice as long each time, up to a minute, and deleting the iterator waits
    until it wakes up. After training for a minute, that was another half a minute. Our buffers have fixed sizes anyway.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
