"""tf.data without its tuning thread."""

import tensorflow as tf

PREFETCH = 2
"""How many finished batches wait for the network; those that are being made come on top."""


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same data set without automatic tuning of its buffers.

    The thread that tunes an iterator sleeps twice as long each time, up to a minute, and deleting the iterator waits
    until it wakes up. After training for a minute, that was another half a minute. Our buffers have fixed sizes anyway.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
