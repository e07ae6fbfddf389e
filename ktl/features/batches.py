"""Batches of stored features, in the order in which uncached training shows its photos."""

import tensorflow as tf

from ktl.data.order import training_order
from ktl.data.tf_data import PREFETCH, untuned
from ktl.features.store import Features

READERS = 2
"""How many batches are read at a time."""


def cached_evaluation_batches(features: Features, *, batch_size: int) -> tf.data.Dataset:
    """The features of every photo's first view, in order: pairs ([batch, *shape], int32 [batch]).

    Args:
        features: of a split.
        batch_size: photos a batch.
    """
    views = features.views
    indices = tf.data.Dataset.range(len(features)).batch(batch_size)
    return _batches(indices.map(lambda photos: (photos, photos * views)), features)


def cached_training_batches(
    features: Features, *, batch_size: int, steps: int, epochs: int, first_epoch: int = 0, seed: int
) -> tf.data.Dataset:
    """The epochs first_epoch, ..., epochs - 1: the photos and views of uncached training, in its order.

    Args:
        features: of the training photos.
        batch_size: photos a step.
        steps: an epoch.
        epochs: where training ends.
        first_epoch: where it starts or continues.
        seed: of the order, see `ktl.data.order.training_order`.

    Returns:
        Pairs ([batch_size, *shape], int32 [batch_size]), with a known cardinality.
    """
    views = features.views
    order = training_order(
        len(features),
        batch_size=batch_size,
        steps=steps,
        epochs=epochs,
        first_epoch=first_epoch,
        seed=seed,
        views=views,
    )
    return _batches(order.map(lambda photos, shown: (photos, photos * views + shown)), features)


def _batches(indices: tf.data.Dataset, features: Features) -> tf.data.Dataset:
    """Batches of features and labels from batches of photos and rows.

    Read a batch at a time: the system keeps in memory what fits, and a copy of our own was no faster and took seconds.
    """
    labels = tf.constant(features.labels)

    def read(photos, rows):
        values = tf.numpy_function(features.read, [rows], features.dtype, stateful=False)
        return tf.ensure_shape(values, [None, *features.shape]), tf.gather(labels, photos)

    batches = indices.map(read, num_parallel_calls=READERS, deterministic=True).prefetch(PREFETCH)
    options = tf.data.Options()
    # Threads of their own: a reader may have damaged features computed again, and wait for TensorFlow's threads.
    options.threading.private_threadpool_size = READERS + 1
    return untuned(batches.with_options(options))
