"""tf.data without the thread that tunes it."""

import tensorflow as tf

PREFETCH = 2
"""Batches that wait for the network; as many as are made at the same time come on top."""


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The data set without automatic tuning of its buffers.

    The tuning thread of an iterator sleeps twice as long each time, up to a minute, and letting go of the iterator
    waits until it wakes: at the end of a minute's training that was half a minute more. The buffers here have fixed
    sizes anyway.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
