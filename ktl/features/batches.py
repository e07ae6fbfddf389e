"""Batches of stored features, in the order in which uncached training shows its photos."""

import math

import numpy as np
import tensorflow as tf

from ktl.data.input_pipeline import epoch_order
from ktl.data.tf_data import PREFETCH, untuned
from ktl.features.store import Features


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
    features: Features, *, batch_size: int, epochs: int, first_epoch: int = 0, seed: int
) -> tf.data.Dataset:
    """The epochs first_epoch, ..., epochs - 1, in the order of uncached training, one view of each photo an epoch.

    Which view a photo shows in an epoch depends on (seed, epoch, photo) only, and each is shown once before any is
    shown again.

    Args:
        features: of the training photos.
        batch_size: photos a batch; the last of an epoch may have fewer.
        epochs: where training ends.
        first_epoch: where it starts or continues.
        seed: of order and views.

    Returns:
        Pairs ([batch, *shape], int32 [batch]), with a known cardinality.
    """
    count, views = len(features), features.views
    offsets = np.random.default_rng([seed, count]).integers(views, size=count)

    def rows(epoch: np.ndarray):
        order = epoch_order(count, seed, int(epoch))
        return order, order * views + (offsets[order] + epoch) % views

    def shuffled(epoch: tf.Tensor) -> tf.data.Dataset:
        arrays = tf.numpy_function(rows, [epoch], [tf.int64, tf.int64], stateful=False)
        arrays = tuple(tf.ensure_shape(array, [count]) for array in arrays)
        return tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)

    batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(shuffled)
    steps = max(0, epochs - first_epoch) * math.ceil(count / batch_size)
    return _batches(batches.apply(tf.data.experimental.assert_cardinality(steps)), features)


def _batches(indices: tf.data.Dataset, features: Features) -> tf.data.Dataset:
    """Batches of features and labels from batches of photos and rows.

    Read a batch at a time: the system keeps in memory what fits, and a copy of our own was no faster and took seconds.
    """
    labels = tf.constant(features.labels)

    def read(photos, rows):
        values = tf.numpy_function(features.read, [rows], features.dtype, stateful=False)
        return tf.ensure_shape(values, [None, *features.shape]), tf.gather(labels, photos)

    return untuned(indices.map(read, num_parallel_calls=2, deterministic=True).prefetch(PREFETCH))
