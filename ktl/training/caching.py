"""What is frozen, computed once where that pays: the way from a classifier and its photos to stored features."""

import errno
import math
import time
from collections.abc import Sequence
from typing import Any

from ktl.data.dataset import Dataset
from ktl.data.input_pipeline import PhotoCache, check_photos
from ktl.errors import UserError
from ktl.features.extraction import Extraction, Views, extract
from ktl.features.policy import worth_caching
from ktl.features.store import Entry, FeatureStore
from ktl.models.boundaries import Boundary, find_boundary
from ktl.models.classifier import TransferClassifier
from ktl.progress import Reporter
from ktl.training.options import InputOptions


def find_features(
    classifier: TransferClassifier,
    dataset: Dataset,
    options: InputOptions,
    *,
    epochs: int,
    trainings: int,
    jit_compile: bool,
    reporter: Reporter,
) -> tuple[Entry, float] | None:
    """The features that a classifier's frozen layers give, computed or found, and the seconds that took; None, and a
    message with the reason, where photos are to be seen. For the arguments see `ktl.training.inputs.make_inputs`."""
    store = _open_store(options, reporter)
    if store is None:
        return None
    extraction = _extraction(classifier, classifier.boundary, dataset, options)
    # What is there takes no more room, however full the disk is by now.
    limit_bytes = math.inf if store.has(extraction.key) else store.limit_bytes
    passes = trainings * _passes(dataset, options, epochs=epochs)
    use, reason = worth_caching(options.caching.mode, extraction, passes=passes, limit_bytes=limit_bytes)
    reporter.message(f"cache {'on' if use else 'off'}: {reason}")
    if not use:
        return None
    started = time.perf_counter()
    entry = _computed(store, extraction, dataset, options, jit_compile=jit_compile, reporter=reporter)
    return entry and (entry, time.perf_counter() - started)


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
    store = _open_store(options, reporter)
    wanted: dict[str, Extraction] = {}
    room = store.limit_bytes if store else 0
    passes = trainings * _passes(dataset, options, epochs=epochs)
    cuts = [(classifier, find_boundary(classifier.boundaries, depth)) for classifier, depth in places]
    # From the deepest boundary on, whose features are the smallest and save the most.
    for classifier, boundary in sorted(cuts, key=lambda cut: -cut[1].depth):
        extraction = _extraction(classifier, boundary, dataset, options)
        pays, _ = worth_caching(options.caching.mode, extraction, passes=passes, limit_bytes=math.inf)
        if store is None or not pays or extraction.key in wanted:
            continue
        if store.has(extraction.key) or extraction.nbytes <= room:
            wanted[extraction.key] = extraction
            room -= extraction.nbytes
    if store is not None and wanted:
        missing = [extraction for key, extraction in wanted.items() if not store.has(key)]
        if missing:
            _fill(store, missing, options, jit_compile=jit_compile, reporter=reporter)
    elif options.on_bad_image == "fail":
        check(dataset, places[0][0].image_size, PhotoCache(memory_gib=0), options, reporter)


def _passes(dataset: Dataset, options: InputOptions, *, epochs: int) -> float:
    """Passes of a training over the photos that the cache is computed for, which of a part are those of the whole."""
    shown = epochs * options.steps_per_epoch(len(dataset.train)) * options.batch_size
    return shown / len((dataset.whole or dataset).train)


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
        return FeatureStore(caching.folder, limit_gib=caching.limit_gib)
    except (OSError, RuntimeError) as error:  # read-only, or nobody's home
        if caching.mode == "on" or caching.folder:
            raise UserError(f"Expected `cache_dir` to be a folder that can be written to. Received: {error}") from error
        reporter.message(f"cache off: {error}")
        return None


def _extraction(
    classifier: TransferClassifier, boundary: Boundary, dataset: Dataset, options: InputOptions
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
    whole = dataset.whole or dataset
    pixels: Any = classifier.input
    return Extraction(pixels, boundary, whole, views, dtype, options.on_bad_image)


def _computed(
    store: FeatureStore,
    extraction: Extraction,
    dataset: Dataset,
    options: InputOptions,
    *,
    jit_compile: bool,
    reporter: Reporter,
) -> Entry | None:
    """The features, computed if need be; None where the disk is full."""
    entry = store.load(extraction.key, dataset)
    while entry is None:  # more than once, if another process needs the room at once
        if not _fill(store, [extraction], options, jit_compile=jit_compile, reporter=reporter):
            return None
        entry = store.load(extraction.key, dataset)
    return entry


def _fill(
    store: FeatureStore,
    extractions: Sequence[Extraction],
    options: InputOptions,
    *,
    jit_compile: bool,
    reporter: Reporter,
) -> bool:
    """Checks the photos and computes the features in one pass; False, and a message, where the disk is full."""
    first = extractions[0]
    photos = PhotoCache(memory_gib=options.memory_gib)
    checked, bad_photos = check(first.dataset, first.views.image_size, photos, options, reporter)
    total = sum(len(split) * first.views.of(split) for split in checked.splits)
    try:
        with reporter.photos("computing frozen layers", total) as progress:
            extract(
                store,
                extractions,
                checked,
                bad_photos=bad_photos,
                photo_cache=photos,
                jit_compile=jit_compile,
                progress=progress,
                waiting=lambda: reporter.message("waiting for another process that computes the same frozen layers"),
            )
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        reporter.message(f"cache off: no space left in {store.folder}; another folder helps")
        return False
    return True


def check(
    dataset: Dataset, image_size: int, photos: PhotoCache, options: InputOptions, reporter: Reporter
) -> tuple[Dataset, tuple[tuple[str, str], ...]]:
    """The data set without its bad photos, and these."""
    with reporter.photos("checking photos", sum(map(len, dataset.splits))) as update:
        checked, bad_photos = check_photos(
            dataset, image_size=image_size, on_bad_image=options.on_bad_image, cache=photos, progress=update
        )
    bad_photos = tuple(dict.fromkeys(bad_photos))  # a photo may be in two splits, see `ktl.data.pooling`
    if bad_photos:
        reporter.message(f"skipped {len(bad_photos)} photos that cannot be read; result.json lists them")
    return checked, bad_photos
