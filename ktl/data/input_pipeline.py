"""Batches of photos, which are kept in memory up to a budget; order and augmentation depend on the seed alone.

A thread decodes, shrinks and augments all photos of a batch, and several batches are made at a time: Pillow releases
Python's lock while it works. To pass on each photo by itself would cost more than reading it from memory.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ktl.data.augmentation import Augmentation, check_augmentation, training_view
from ktl.data.batches import ArraySpec, Batch, Batches
from ktl.data.dataset import Dataset, without
from ktl.data.digest import photo_digest
from ktl.data.images import BadPhoto, decode, large_one_by_one, photo_threads
from ktl.data.order import Shown, TrainingOrder, evaluation_order
from ktl.data.split import Split
from ktl.data.urls import readers_of
from ktl.data.views import shrink, shrunk_side
from ktl.errors import UserError

LISTED_PHOTOS = 5
"""How many bad photos an error names."""


class Shrunk(NamedTuple):
    """A photo, resized: uint8 [height, width, 3], and the digest of the bytes that it was decoded from."""

    pixels: np.ndarray
    digest: bytes


class PhotoCache:
    """Keeps shrunk photos in memory until a budget is used up. Threads, splits and epochs may share it.

    Photos that do not fit are decoded again each time, and none is dropped to make room: every pass reads every photo
    once, so a cache that drops its oldest photo would never hold the next one.

    Args:
        memory_gib: how much memory the pixels may take, in GiB. 0 keeps nothing.
    """

    def __init__(self, *, memory_gib: float):
        self.budget_bytes = int(min(memory_gib * 2**30, sys.maxsize))
        self.used_bytes = 0
        self._photos: dict[tuple, Shrunk] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._photos)

    def shrunk(self, split: Split, index: int, *, short_side: int) -> Shrunk:
        """One photo of a split, resized to a short side of `short_side` pixels.

        Raises:
            BadPhoto: the photo cannot be read or decoded.
        """
        key = (split.source, split.photos[index], short_side)
        photo = self._photos.get(key)
        if photo is None:
            photo = _shrunk(split, index, short_side)
            self._offer(key, photo)
        return photo

    def _offer(self, key: tuple, photo: Shrunk) -> None:
        with self._lock:
            if key not in self._photos and self.used_bytes + photo.pixels.nbytes <= self.budget_bytes:
                self._photos[key] = photo
                self.used_bytes += photo.pixels.nbytes


def evaluation_batches(split: Split, *, image_size: int, batch_size: int, cache: PhotoCache) -> Batches:
    """The evaluation view of every photo once, in the order of the split.

    Args:
        split: the photos.
        image_size: the side of the views, pixels.
        batch_size: photos in each batch; the last one may have fewer.
        cache: keeps shrunk photos for later passes.

    Returns:
        Pairs (uint8 [batch, image_size, image_size, 3], int32 [batch]). Making one raises UserError where a photo is no
        longer what it was when it was checked.
    """
    view = view_maker(split, image_size=image_size, augmentation="none", flip=False, cache=cache)
    return _batches(evaluation_order(len(split), batch_size=batch_size), split, view, image_size=image_size)


# Long by what it tells of its arguments.
def training_batches(
    split: Split,
    *,
    image_size: int,
    batch_size: int,
    steps: int,
    epochs: int,
    first_epoch: int = 0,
    seed: int,
    augmentation: Augmentation,
    views: int,
    flip: bool,
    cache: PhotoCache,
) -> Batches:
    """The batches of the epochs first_epoch, ..., epochs - 1, in the order of `ktl.data.order.TrainingOrder`.

    Args:
        split: the photos.
        image_size: the side of the views, pixels.
        batch_size: photos in each batch.
        steps: batches an epoch.
        epochs: the epoch before which training ends, counted from 0.
        first_epoch: the epoch at which it starts or continues.
        seed: of the order, at least 0.
        augmentation: "standard", "none" or a function, see `ktl.data.augmentation.Augmentation`.
        views: of each photo, over which passes cycle; see `ktl.data.augmentation.training_view`.
        flip: whether "standard" mirrors photos.
        cache: keeps shrunk photos for later passes.

    Returns:
        Pairs (uint8 [batch_size, image_size, image_size, 3], int32 [batch_size]). Making one raises UserError where a
        photo is no longer what it was when it was checked, and ValueError where the function gives no pixels.

    Raises:
        ValueError: `augmentation` is unknown, or the function gives no pixels for the first photo.
    """
    check_augmentation(augmentation)
    view = view_maker(split, image_size=image_size, augmentation=augmentation, flip=flip, cache=cache)
    if callable(augmentation) and len(split):  # a function that never works is told of before training
        with contextlib.suppress(BadPhoto):
            view(0, 0)
    order = TrainingOrder(
        len(split),
        batch_size=batch_size,
        steps=steps,
        epochs=epochs,
        first_epoch=first_epoch,
        seed=seed,
        views=views,
    )
    return _batches(order, split, view, image_size=image_size)


def view_maker(
    split: Split,
    *,
    image_size: int,
    augmentation: Augmentation,
    flip: bool,
    cache: PhotoCache,
    expected: Mapping[str, bytes | None] | None = None,
) -> Callable[[int, int], np.ndarray]:
    """A function that makes the view of this number of the photo at this index; several threads may call it.

    Args:
        split: the photos.
        image_size: the side of the views, pixels.
        augmentation: see `training_batches`.
        flip: see there.
        cache: keeps shrunk photos for later views.
        expected: the digests that the photos must have, by their ids; None for any. BadPhoto is raised of another one.
    """

    def view(index: int, number: int) -> np.ndarray:
        photo = cache.shrunk(split, index, short_side=shrunk_side(image_size))
        if expected is not None and expected[split.photos[index]] != photo.digest:
            raise BadPhoto("it has changed since its digest was computed")
        drawn = {"digest": photo.digest, "view": number, "flip": flip, "name": split.photos[index]}
        return training_view(photo.pixels, augmentation, size=image_size, **drawn)

    return view


def check_photos(
    dataset: Dataset,
    *,
    image_size: int,
    on_bad_image: Literal["fail", "skip"],
    cache: PhotoCache,
    only: Collection[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Dataset, list[tuple[str, str]]]:
    """Decodes photos once, so that bad photos are found before training starts.

    Args:
        dataset: the data set to check.
        image_size: the side of the views that training will need, pixels.
        on_bad_image: "fail" raises an error if there are bad photos, "skip" leaves them out.
        cache: keeps the decoded photos that it has room for.
        only: the photos that are decoded, all if None; the others are known to be good.
        progress: is called with the number of photos checked so far.

    Returns:
        The data set without its bad photos, and a pair (photo, reason) for each bad photo.

    Raises:
        UserError: there are bad photos and `on_bad_image` is "fail", or a split or a class of train has no photo left.
    """

    def reason(photo: tuple[Split, int]) -> str | None:
        split, index = photo
        try:
            cache.shrunk(split, index, short_side=shrunk_side(image_size))
        except BadPhoto as error:
            return f"{error}"
        return None

    photos = [(split, index) for split in dataset.splits for index in range(len(split))]
    work = [(split, index) for split, index in photos if only is None or split.photos[index] in only]
    bad = []
    with photo_threads(readers_of(split.source for split in dataset.splits)) as pool:
        for done, ((split, index), found) in enumerate(zip(work, pool.map(reason, work), strict=True), start=1):
            if found:
                bad.append((split.photos[index], found))
            if progress:
                progress(done)
    bad = list(dict.fromkeys(bad))  # where validation photos are trained on too, a photo is in two splits
    if bad and on_bad_image == "fail":
        raise _undecodable(bad, count=len({split.photos[index] for split, index in photos}))
    return (without(dataset, {photo for photo, _ in bad}) if bad else dataset), bad


def _undecodable(bad: Sequence[tuple[str, str]], *, count: int) -> UserError:
    return UserError(
        f"Expected photos that can be decoded. Received: {len(bad)} of {count} that cannot: "
        f"{listed_photos(bad)}. Repair them, or leave them out with `on_bad_image` skip."
    )


def listed_photos(bad: Sequence[tuple[str, str]]) -> str:
    """The first bad photos, pairs of (photo, reason), for a line."""
    listed = "; ".join(f"{photo} ({reason})" for photo, reason in bad[:LISTED_PHOTOS])
    return f"{listed}{'; ...' if len(bad) > LISTED_PHOTOS else ''}"


def _shrunk(split: Split, index: int, short_side: int) -> Shrunk:
    try:
        encoded = split.read(index)
    except OSError as error:
        raise BadPhoto(f"cannot be read: {error.strerror or error}") from error
    with large_one_by_one(encoded):
        return Shrunk(shrink(decode(encoded), short_side=short_side), photo_digest(encoded))


def _batches(
    order: Sequence[Shown], split: Split, view: Callable[[int, int], np.ndarray], *, image_size: int
) -> Batches:
    """Batches of views and labels; `view(index, number)` makes one view."""

    def make(number: int) -> Batch:
        photos, numbers = order[number]
        views = np.empty([len(photos), image_size, image_size, 3], np.uint8)
        for position, (index, shown) in enumerate(zip(photos, numbers, strict=True)):
            try:
                views[position] = view(int(index), int(shown))
            except BadPhoto as error:
                raise UserError(
                    "Expected photos that stay as they were when they were checked. Received: "
                    f"{split.photos[index]}: {error}. Repeat the command"
                ) from error
        return views, split.labels[photos]

    pixels = ArraySpec((None, image_size, image_size, 3), "uint8")
    specs = (pixels, ArraySpec((None,), "int32"))
    return Batches(len(order), make, specs, threads=readers_of([split.source]))
