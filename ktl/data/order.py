"""In which order training shows its photos, and which view of each: pure functions of the seed."""

import math

import numpy as np
import tensorflow as tf

MOST_VIEWS = 2**31 - 1
"""Of a photo: with how often it is shown their number fits in 64 bits."""


def steps_per_epoch(photos: int, *, batch_size: int, least_steps: int) -> int:
    """Optimizer steps an epoch: enough full batches to show every photo, and no fewer than `least_steps`.

        steps = max(ceil(photos / batch_size), least_steps)

    Without the floor, 68 photos in batches of 32 would have 45 steps in 15 epochs, too few to fit any head.

    Args:
        photos: training photos.
        batch_size: photos a step.
        least_steps: the floor.

    Reference:
        Kolesnikov et al., "Big Transfer (BiT): General Visual Representation Learning", ECCV 2020: its rule gives small
        data 500 steps, however few photos there are.
    """
    return max(math.ceil(photos / batch_size), least_steps)


def epoch_photos(count: int, *, size: int, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The photos that an epoch shows: the next `size` of an endless row of random permutations of all photos.

    Args:
        count: photos, at least 1.
        size: how many an epoch shows.
        seed: of the permutations, at least 0.
        epoch: counted from 0.

    Returns:
        int64 [size] each: the photos, and how often each was shown before.
    """
    places = np.arange(epoch * size, (epoch + 1) * size)
    passes = places // count
    orders = [np.random.default_rng([seed, number]).permutation(count) for number in range(passes[0], passes[-1] + 1)]
    return np.concatenate(orders)[places - passes[0] * count], passes


def shown_views(photos: np.ndarray, passes: np.ndarray, *, count: int, views: int, seed: int) -> np.ndarray:
    """Which view each photo shows: each view once before any is shown again, from another one on for each photo.

    Args:
        photos: int64 [n], from 0 to count - 1.
        passes: int64 [n], how often each was shown before.
        count: photos there are.
        views: of each photo.
        seed: of where each photo begins.

    Returns:
        int64 [n], from 0 to views - 1.
    """
    # The third number keeps this stream apart from those of the permutations.
    begin = np.random.default_rng([seed, count, 1]).integers(views, size=count)
    return (begin[photos] + passes) % views


def training_order(
    count: int, *, batch_size: int, steps: int, epochs: int, first_epoch: int = 0, seed: int, views: int
) -> tf.data.Dataset:
    """What the epochs first_epoch, ..., epochs - 1 show, in full batches.

    An epoch depends on its number and the seed alone, so training that stops and continues at an epoch shows the same.

    Args:
        count: photos there are.
        batch_size: photos a step.
        steps: an epoch.
        epochs: where training ends, counted from 0.
        first_epoch: where it starts or continues.
        seed: at least 0.
        views: of each photo.

    Returns:
        Pairs (photos, views), int64 [batch_size] each, with a known cardinality.
    """

    def of_epoch(epoch: np.ndarray):
        photos, passes = epoch_photos(count, size=steps * batch_size, seed=seed, epoch=int(epoch))
        return photos, shown_views(photos, passes, count=count, views=views, seed=seed)

    def batches(epoch: tf.Tensor) -> tf.data.Dataset:
        shown = tf.numpy_function(of_epoch, [epoch], [tf.int64, tf.int64], stateful=False)
        shown = tuple(tf.ensure_shape(numbers, [steps * batch_size]) for numbers in shown)
        return tf.data.Dataset.from_tensor_slices(shown).batch(batch_size)

    # Epochs are joined before batches are made: the first batches of an epoch are ready when the epoch before ends.
    joined = tf.data.Dataset.range(first_epoch, epochs).flat_map(batches)
    return joined.apply(tf.data.experimental.assert_cardinality(max(0, epochs - first_epoch) * steps))
