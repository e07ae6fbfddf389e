"""In which order training shows its photos, and which view of each: pure functions of the seed."""

import functools
import math
from collections.abc import Sequence

import numpy as np

MOST_VIEWS = 2**31 - 1
"""Of a photo: with how often it is shown their number fits in 64 bits."""

Shown = tuple[np.ndarray, np.ndarray]
"""Photos of a batch by their numbers, and which view of each: int64 [batch] both."""


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


def evaluation_order(count: int, *, batch_size: int) -> list[Shown]:
    """The first view of every photo once, in order; the last batch may be smaller."""
    starts = range(0, count, batch_size)
    photos = [np.arange(start, min(start + batch_size, count)) for start in starts]
    return [(batch, np.zeros_like(batch)) for batch in photos]


class TrainingOrder(Sequence[Shown]):
    """What the epochs first_epoch, ..., epochs - 1 show, in full batches.

    An epoch depends on its number and the seed alone, so training that stops and continues at an epoch shows the same.
    It is computed when its first batch is asked for.

    Args:
        count: photos there are.
        batch_size: photos a step.
        steps: an epoch.
        epochs: where training ends, counted from 0.
        first_epoch: where it starts or continues.
        seed: at least 0.
        views: of each photo.
    """

    def __init__(
        self, count: int, *, batch_size: int, steps: int, epochs: int, first_epoch: int = 0, seed: int, views: int
    ):
        def of_epoch(epoch: int) -> Shown:
            photos, passes = epoch_photos(count, size=steps * batch_size, seed=seed, epoch=epoch)
            return photos, shown_views(photos, passes, count=count, views=views, seed=seed)

        self._batch_size, self._steps, self._first_epoch = batch_size, steps, first_epoch
        self._epochs = max(0, epochs - first_epoch)
        # Two: the first batches of an epoch are made while others still make the last ones of the epoch before.
        self._of_epoch = functools.lru_cache(maxsize=2)(of_epoch)

    def __len__(self) -> int:
        return self._epochs * self._steps

    def __getitem__(self, number) -> Shown:
        if not 0 <= number < len(self):
            raise IndexError(number)
        epoch, step = divmod(int(number), self._steps)
        photos, views = self._of_epoch(self._first_epoch + epoch)
        batch = slice(step * self._batch_size, (step + 1) * self._batch_size)
        return photos[batch], views[batch]
