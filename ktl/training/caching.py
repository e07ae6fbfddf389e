"""What is frozen, computed once where that pays: the way from a classifier and its photos to stored features."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ktl.backends.engines import make_engine
from ktl.data.dataset import Dataset
from ktl.data.input_pipeline import PhotoCache
from ktl.errors import UserError
from ktl.features.extraction import Extraction, Views
from ktl.features.filling import working_bytes
from ktl.features.policy import worth_caching
from ktl.features.store import FeatureStore
from ktl.memory import size_in_words
from ktl.models.boundaries import Boundary
from ktl.models.classifier import TransferClassifier
from ktl.progress import Reporter
from ktl.training.memory import check_training_fits
from ktl.training.options import InputOptions
from ktl.training.stored_photos import BadPhotos, Found, StoredPhotos, check


def find_features(
    classifier: TransferClassifier,
    dataset: Dataset,
    options: InputOptions,
    *,
    epochs: int,
    trainings: int,
    jit_compile: bool,
    reporter: Reporter,
) -> Found | None:
    """The features that a classifier's frozen layers give, computed or found; None, and a message with the reason,
    where photos are to be seen. For the arguments see `ktl.training.inputs.make_inputs`."""
    store = _open_store(options, reporter)
    if store is None:
        return None
    started = time.perf_counter()
    stored = StoredPhotos(store, dataset, options, reporter)
    extraction = _extraction(classifier, classifier.boundary, dataset, options, jit_compile=jit_compile)
    passes = trainings * _passes(dataset, options, epochs=epochs)
    # From the settings alone, not from what is there: what else ran before must not change a number. But what is there
    # takes no more room, however full the disk is by now.
    judge = functools.partial(worth_caching, options.caching.mode, extraction, passes=passes)
    use, reason = judge(limit_bytes=math.inf if _has_room(store, [extraction]) else store.limit_bytes)
    if not use and judge(limit_bytes=math.inf)[0] and not stored.lacks([extraction]):
        use, reason = judge(limit_bytes=math.inf)
    reporter.message(f"cache {'on' if use else 'off'}: {reason}{stored.what_is_there([extraction]) if use else ''}")
    return stored.found(extraction, dataset, started=started) if use else None


def compute_features(
    places: Sequence[tuple[TransferClassifier, int | str]],
    dataset: Dataset,
    options: InputOptions,
    *,
    epochs: int,
    trainings: int,
    jit_compile: bool = False,
    reporter: Reporter | None = None,
) -> None:
    """Computes in one pass the features of all freeze boundaries for which that pays, for `make_inputs` to find.

    Args:
        places: classifiers of one backbone, and freeze depths of theirs; how far they are frozen plays no part.
        dataset: see `make_inputs`, as all others.
        options: see there.
        epochs: see there.
        trainings: see there, of each boundary.
        jit_compile: see there.
        reporter: see there.

    Raises:
        UserError: there are bad photos, and they are not to be skipped; also where nothing is worth computing, before
            every training finds them for itself.
    """
    reporter = reporter or Reporter()
    for classifier, _ in places[:1]:
        check_training_fits(classifier, options, photos=len(dataset.train), epochs=epochs)
    store = _open_store(options, reporter)
    stored = store and StoredPhotos(store, dataset, options, reporter)
    wanted: dict[str, Extraction] = {}
    passes = trainings * _passes(dataset, options, epochs=epochs)
    cuts = [(classifier, classifier.boundary_at(depth)) for classifier, depth in places]
    # From the deepest boundary on, whose features are the smallest and save the most.
    for classifier, boundary in sorted(cuts, key=lambda cut: -cut[1].depth):
        extraction = _extraction(classifier, boundary, dataset, options, jit_compile=jit_compile)
        pays, _ = worth_caching(options.caching.mode, extraction, passes=passes, limit_bytes=math.inf)
        if stored is None or not pays or extraction.key in wanted:
            continue
        if _has_room(stored.store, [*wanted.values(), extraction]) or not stored.lacks([extraction]):
            wanted[extraction.key] = extraction
    if stored is not None and wanted:
        if stored.lacks(list(wanted.values())):
            reporter.message(f"cache on: {len(wanted)} freeze depths{stored.what_is_there(list(wanted.values()))}")
            stored.fill(list(wanted.values()))
    elif options.on_bad_image == "fail":
        check(dataset, places[0][0].image_size, PhotoCache(memory_gib=0), options, reporter)


@dataclasses.dataclass(frozen=True)
class Filled:
    """What a store has of the photos that were asked for, after `fill_store`.

    Attributes:
        photos: the number of those.
        there: how many of them had all their features before.
        bad_photos: (photo, reason) of each one that cannot be read.
        features: name of the boundary's layer -> the shape of a photo's features, without the photos' axis.
        dtype: of the features' numbers.
        nbytes: that they take in the store.
        folder: of the store, or its URL.
    """

    photos: int
    there: int
    bad_photos: BadPhotos
    features: Mapping[str, tuple[int, ...]]
    dtype: str
    nbytes: int
    folder: Path | str


def extractions_of(
    places: Sequence[tuple[TransferClassifier, int | str]],
    dataset: Dataset,
    options: InputOptions,
    *,
    jit_compile: bool,
) -> list[Extraction]:
    """What there is to compute at freeze boundaries, each once. For the arguments see `compute_features`.

    Raises:
        UserError: nothing is frozen at one of them.
    """
    cuts = [(classifier, classifier.boundary_at(depth)) for classifier, depth in places]
    if not all(boundary.depth for _, boundary in cuts):
        raise UserError("Expected `freeze_depth` to freeze something: else nothing can be computed. Received: none")
    found = [_extraction(classifier, cut, dataset, options, jit_compile=jit_compile) for classifier, cut in cuts]
    return list({extraction.key: extraction for extraction in found}.values())


def fill_store(
    extractions: Sequence[Extraction],
    dataset: Dataset,
    options: InputOptions,
    *,
    of_portion: Callable[[str], bool],
    reporter: Reporter | None = None,
) -> Filled:
    """Computes features in one pass, whether that pays or not, for `make_inputs` to find.

    Args:
        extractions: from `extractions_of`.
        dataset: see `make_inputs`, as the others.
        options: see there; `caching.mode` plays no part.
        of_portion: whether a photo of that name is computed.
        reporter: see there.

    Raises:
        UserError: the features have no room, there are bad photos that are not to be skipped, or the folder cannot be
            written to.
        OSError: the disk is full; what is complete is kept.
    """
    reporter = reporter or Reporter()
    options = dataclasses.replace(options, caching=dataclasses.replace(options.caching, mode="on"))
    store = _open_store(options, reporter)
    assert store is not None  # that is what "on" means
    stored = StoredPhotos(store, dataset, options, reporter, of_portion=of_portion)
    there = len(stored.photos) - len(stored.lacks(extractions))
    nbytes, room = stored.nbytes(extractions), stored.room(extractions)
    if room > store.limit_bytes and there < len(stored.photos):
        least = math.ceil(room / 2**30 * 1000) / 1000  # rounded down, it would be refused again
        raise UserError(
            f"Expected `cache_limit` of {least:.3f} GiB or more, which the features take. Received: "
            f"{store.limit_bytes / 2**30:.3g}{', half of the free disk' if options.caching.limit_gib is None else ''}"
        )
    reporter.message(f"features take {size_in_words(nbytes)}{stored.what_is_there(extractions)}")
    while stored.lacks(extractions) - {photo for photo, _ in stored.bad_photos}:
        stored.compute(extractions)  # more than once, if another process needs the room at once
    stored.use(extractions)
    stored.share(extractions)
    shapes = {extraction.boundary.name: extraction.shape for extraction in extractions}
    dtype, nbytes = extractions[0].dtype, stored.nbytes(extractions)
    return Filled(len(stored.photos), there, stored.bad_photos, shapes, dtype, nbytes, store.place)


def _passes(dataset: Dataset, options: InputOptions, *, epochs: int) -> float:
    """Passes of a training over the photos that the cache is computed for, which of a part are those of the whole."""
    shown = epochs * options.steps_per_epoch(len(dataset.train)) * options.batch_size
    return shown / len((dataset.whole or dataset).train)


def _has_room(store: FeatureStore, extractions: Sequence[Extraction]) -> bool:
    """Whether a store can take features, by the settings alone: at a URL any number of them."""
    size = sum(extraction.nbytes for extraction in extractions)
    if store.url:
        size = min(size, working_bytes([extraction.row_bytes for extraction in extractions]))
    return size <= store.limit_bytes


def _open_store(options: InputOptions, reporter: Reporter) -> FeatureStore | None:
    """The store; None, and a reason, where none is wanted or nobody asked for one that cannot be had.

    Raises:
        UserError: one was asked for.
    """
    caching = options.caching
    if callable(options.augmentation):  # nothing in a function tells whether it is the same as last time
        if caching.mode == "on":
            raise UserError("Expected `cache` auto or off where `augmentation` is a function. Received: on")
        reporter.message("cache off: the augmentation is a function")
        return None
    if caching.mode == "off":
        reporter.message("cache off: as asked")
        return None
    try:
        return FeatureStore(caching.folder, limit_gib=caching.limit_gib, tell=reporter.message)
    except (OSError, RuntimeError) as error:  # read-only, or nobody's home
        if caching.mode == "on" or caching.folder:
            raise UserError(f"Expected `cache_dir` to be a folder that can be written to. Received: {error}") from error
        reporter.message(f"cache off: {error}")
        return None


def _extraction(
    classifier: TransferClassifier,
    boundary: Boundary,
    dataset: Dataset,
    options: InputOptions,
    *,
    jit_compile: bool,
) -> Extraction:
    # A function has no store to go to, see `_open_store`.
    views = Views(
        classifier.image_size,
        "standard" if options.augmentation == "standard" else "none",
        options.training_views,
        options.flips(dataset),
    )
    dtype = options.caching.dtype
    if dtype == "auto":
        dtype = "float32" if classifier.compute_dtype == "float32" else "float16"
    pixels: Any = classifier.input
    return Extraction(pixels, boundary, dataset.whole or dataset, views, dtype, make_engine(jit_compile=jit_compile))
