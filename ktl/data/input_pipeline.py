"""Photos in batches: decoded once under a memory budget, shuffled and augmented as pure functions of the seed.

A photo is decoded, shrunk, cropped and augmented by one Python call a batch; several batches are made at a time. Pillow
and TensorFlow release Python's lock while they work, and a call a photo would cost more than a cached photo does.
"""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import tensorflow as tf

from ktl.data.augmentation import Augmentation, check_augmentation, training_view
from ktl.data.dataset import Dataset, without
from ktl.data.images import BadPhoto, centre_crop, decode, shrink, shrunk_side
from ktl.data.split import Split
from ktl.data.tf_data import PREFETCH, untuned
from ktl.errors import UserError
from ktl.machine import cores

WORKERS = min(8, cores())
"""Batches, or photos, that are made at the same time."""

LISTED_PHOTOS = 5
"""Bad photos that an error names."""

_PIXELS = tf.TensorSpec([None, None, 3], tf.uint8)
_SHRINK = tf.function(
    lambda image, short_side: shrink(image, short_side=short_side),
    input_signature=[_PIXELS, tf.TensorSpec([], tf.int32)],
)


@contextlib.contextmanager
def photo_threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that decode photos. An interrupt does not wait for the photos that are still queued."""
    pool = ThreadPoolExecutor(WORKERS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class PhotoCache:
    """Shrunk photos in memory: the first ones up to a budget. Safe to share between threads, splits and epochs.

    What does not fit is decoded again each time, and nothing is evicted: every epoch reads every photo, and a cache
    that drops its oldest would then never hold the one that comes next.

    Args:
        memory_gib: the most that the pixels may take, in GiB. 0 caches nothing.
    """

    def __init__(self, *, memory_gib: float):
        self.budget_bytes = int(memory_gib * 2**30)
        self.used_bytes = 0
        self._photos: dict[tuple, np.ndarray] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._photos)

    def shrunk(self, split: Split, index: int, *, short_side: int) -> np.ndarray:
        """One photo of a split with its short side at `short_side` pixels, uint8 [height, width, 3].

        Raises:
            BadPhoto: the photo cannot be read or decoded.
        """
        key = (split.source, split.photos[index], short_side)
        photo = self._photos.get(key)
        if photo is None:
            photo = _shrunk(split, index, short_side)
            self._offer(key, photo)
        return photo

    def _offer(self, key: tuple, photo: np.ndarray) -> None:
        with self._lock:
            if key not in self._photos and self.used_bytes + photo.nbytes <= self.budget_bytes:
                self._photos[key] = photo
                self.used_bytes += photo.nbytes


def evaluation_batches(split: Split, *, image_size: int, batch_size: int, cache: PhotoCache) -> tf.data.Dataset:
    """The evaluation view of every photo, once, in the split's order.

    Args:
        split: the photos.
        image_size: the side of the views, pixels.
        batch_size: photos a batch; the last may have fewer.
        cache: holds shrunk photos between passes.

    Returns:
        Pairs (uint8 [batch, image_size, image_size, 3], int32 [batch]), with a known cardinality.
    """

    def view(index: int, epoch: int) -> np.ndarray:
        return centre_crop(cache.shrunk(split, index, short_side=shrunk_side(image_size)), size=image_size)

    batches = tf.data.Dataset.range(len(split)).batch(batch_size)
    batches = batches.map(lambda indices: (indices, tf.constant(0, tf.int64)))
    return _batches(batches, split, view, image_size=image_size)


def training_batches(
    split: Split,
    *,
    image_size: int,
    batch_size: int,
    epochs: int,
    first_epoch: int = 0,
    seed: int,
    augmentation: Augmentation,
    flip: bool,
    cache: PhotoCache,
) -> tf.data.Dataset:
    """The epochs first_epoch, ..., epochs - 1 one after another, ceil(len(split) / batch_size) batches each.

    An epoch has every photo once, in an order that depends on (seed, epoch) only, and each photo's augmentation depends
    on (seed, epoch, photo) only: training that continues at an epoch gets the batches that it would have got.

    Args:
        split: the photos.
        image_size: the side of the views, pixels.
        batch_size: photos a batch; the last of an epoch may have fewer.
        epochs: where training ends.
        first_epoch: where it starts or continues.
        seed: at least 0.
        augmentation: "standard", "none" or a function, see `ktl.data.augmentation.Augmentation`.
        flip: whether "standard" mirrors photos.
        cache: holds shrunk photos between epochs.

    Returns:
        Pairs (uint8 [batch, image_size, image_size, 3], int32 [batch]), with a known cardinality.

    Raises:
        ValueError: `augmentation` is unknown, or the function gives no pixels for the first photo. If it fails for a
            later one, taking that photo's batch raises TensorFlow's InvalidArgumentError, which names the photo too.
    """

    def view(index: int, epoch: int) -> np.ndarray:
        photo = cache.shrunk(split, index, short_side=shrunk_side(image_size))
        name, seeds = split.photos[index], [seed, epoch, index]
        return training_view(photo, augmentation, size=image_size, seed=seeds, flip=flip, name=name)

    def shuffled(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.numpy_function(lambda e: epoch_order(len(split), seed, e), [epoch], tf.int64, stateful=False)
        indices = tf.data.Dataset.from_tensor_slices(tf.ensure_shape(order, [len(split)]))
        return indices.batch(batch_size).map(lambda indices: (indices, epoch))

    check_augmentation(augmentation)
    if callable(augmentation) and len(split):  # here an error is Python's own, in a batch it is one of TensorFlow's
        with contextlib.suppress(BadPhoto):
            view(0, first_epoch)
    # Batches are made after the epochs are joined, so that the first ones of an epoch are ready when the last one ends.
    batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(shuffled)
    steps = max(0, epochs - first_epoch) * math.ceil(len(split) / batch_size)
    batches = batches.apply(tf.data.experimental.assert_cardinality(steps))
    return _batches(batches, split, view, image_size=image_size)


def check_photos(
    dataset: Dataset,
    *,
    image_size: int,
    on_bad_image: Literal["fail", "skip"],
    cache: PhotoCache,
    progress: Callable[[int], None] | None = None,
) -> tuple[Dataset, list[tuple[str, str]]]:
    """Decodes every photo once, into the cache, so that a bad one is found before training and not in the middle of it.

    Args:
        dataset: what to check.
        image_size: the side of the views that will be cut, pixels.
        on_bad_image: "fail" or "skip".
        cache: keeps what it has room for.
        progress: called with the number of photos done.

    Returns:
        The data set without its bad photos, and (photo, reason) of each of those.

    Raises:
        UserError: there are bad photos and `on_bad_image` is "fail", or no photo of a split or class is left.
    """

    def reason(photo: tuple[Split, int]) -> str | None:
        split, index = photo
        try:
            cache.shrunk(split, index, short_side=shrunk_side(image_size))
        except BadPhoto as error:
            return f"{error}"
        return None

    work = [(split, index) for split in dataset.splits for index in range(len(split))]
    bad = []
    with photo_threads() as pool:
        for done, ((split, index), found) in enumerate(zip(work, pool.map(reason, work), strict=True), start=1):
            if found:
                bad.append((split.photos[index], found))
            if progress:
                progress(done)
    if bad and on_bad_image == "fail":
        listed = "; ".join(f"{photo} ({found})" for photo, found in bad[:LISTED_PHOTOS])
        raise UserError(
            f"Expected photos that can be decoded. Received: {len(bad)} of {len(work)} that cannot: {listed}"
            f'{"; ..." if len(bad) > LISTED_PHOTOS else ""}. Repair them, or leave them out with on_bad_image="skip".'
        )
    return (without(dataset, {photo for photo, _ in bad}) if bad else dataset), bad


def _shrunk(split: Split, index: int, short_side: int) -> np.ndarray:
    try:
        encoded = split.read(index)
    except OSError as error:
        raise BadPhoto(f"cannot be read: {error.strerror or error}") from error
    with tf.device("CPU"):  # The GPU belongs to the network, and has no kernel of this filter.
        return _SHRINK(decode(encoded), short_side).numpy()


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of `count` photos in an epoch: int64 [count], a pure function of (seed, epoch)."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def _batches(
    indices: tf.data.Dataset, split: Split, view: Callable[[int, int], np.ndarray], *, image_size: int
) -> tf.data.Dataset:
    """Batches of `view(index, epoch)` and labels, from batches of indices and their epoch."""

    def pixels(indices: np.ndarray, epoch: np.ndarray) -> np.ndarray:
        views = np.empty([len(indices), image_size, image_size, 3], np.uint8)
        for position, index in enumerate(indices):
            try:
                views[position] = view(int(index), int(epoch))
            except BadPhoto as error:
                raise BadPhoto(f"{split.photos[index]}: {error}") from error
        return views

    def batch(indices: tf.Tensor, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Not stateful: a batch is a pure function, and TensorFlow may make several at a time even when asked for
        # deterministic operations.
        views = tf.numpy_function(pixels, [indices, epoch], tf.uint8, stateful=False)
        return tf.ensure_shape(views, [None, image_size, image_size, 3]), tf.gather(labels, indices)

    labels = tf.constant(split.labels)
    return untuned(indices.map(batch, num_parallel_calls=WORKERS, deterministic=True).prefetch(PREFETCH))
