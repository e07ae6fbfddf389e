"""What a run trains and on which batches: the whole network on photos, or its suffix on cached features."""

import dataclasses
import errno
import math
import time
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from ktl.config.settings import RunConfig
from ktl.data.dataset import Dataset, Split
from ktl.data.input_pipeline import PhotoCache, check_photos, evaluation_batches, training_batches
from ktl.errors import UserError
from ktl.features.store import (
    FeatureCache,
    Features,
    Views,
    cached_evaluation_batches,
    cached_training_batches,
    default_cache_dir,
    entry_bytes,
    entry_key,
    worth_caching,
)
from ktl.models.classifier import Network
from ktl.progress import Reporter


@dataclasses.dataclass(frozen=True)
class Feed:
    """A model and the batches that fit its input.

    Attributes:
        model: the network's `model` or its `suffix`; either way the network's own layers.
        dataset: without its bad photos.
        bad_photos: (photo, reason) of each.
        train: gives the training batches of all epochs from the given one (counted from 0) on.
        evaluate: gives a split's batches in its order.
        cached: what is frozen is read from the cache.
        trains_head_alone: steps are so short that Python's time between them counts.
        seconds: that the frozen pass took.
    """

    model: keras.Model
    dataset: Dataset
    bad_photos: list[tuple[str, str]]
    train: Callable[[int], tf.data.Dataset]
    evaluate: Callable[[Split], tf.data.Dataset]
    cached: bool = False
    trains_head_alone: bool = False
    seconds: float = 0.0


def choose_feed(
    network: Network, dataset: Dataset, config: RunConfig, *, trainings: int = 1, xla: bool, reporter: Reporter
) -> Feed:
    """Cached features where that is asked for or pays, else photos; says which and why.

    Args:
        network: what is trained.
        dataset: whose photos it sees.
        config: the settings.
        trainings: about how many trainings share the frozen part; by the settings and not by what is in the cache, so
            that the same command gives the same numbers.
        xla: whether to compile the pass.
        reporter: is told of the progress.

    Raises:
        UserError: there are bad photos, and they are not to be skipped.
    """
    cache = _open_cache(config, reporter)
    if cache is None:
        return _checked_photo_feed(network, dataset, config, reporter)
    views = _views(network, config)
    dtype = cache_dtype(config)
    key = entry_key(network.prefix, dataset, views=views, dtype=dtype, on_bad_image=config.on_bad_image)
    there = cache.load(key, dataset) is not None  # then it takes no more room, however full the disk is by now
    use, reason = worth_caching(
        config.cache,
        network.boundary,
        dataset.whole or dataset,
        views=views,
        dtype=dtype,
        epochs=config.epochs,
        trainings=trainings,
        limit_bytes=math.inf if there else cache.limit_bytes,
    )
    reporter.message(f"cache {'on' if use else 'off'}: {reason}")
    if use:
        try:
            return _cached_feed(
                network, dataset, config, cache, key, views=views, dtype=dtype, xla=xla, reporter=reporter
            )
        except OSError as error:
            _tell_if_full(error, cache, reporter)
    return _checked_photo_feed(network, dataset, config, reporter)


def _open_cache(config: RunConfig, reporter: Reporter) -> FeatureCache | None:
    """The cache; None, and a reason, where none is wanted or nobody asked for one that cannot be had.

    Raises:
        UserError: one was asked for.
    """
    if config.cache == "off":
        reporter.message("cache off: as asked")
        return None
    try:
        return FeatureCache(config.cache_dir or default_cache_dir(), limit_gib=config.cache_limit)
    except (OSError, RuntimeError) as error:  # read-only, or nobody's home
        if config.cache == "on" or config.cache_dir:
            raise UserError(f"Expected a folder that can be written to for --cache-dir. Received: {error}") from error
        reporter.message(f"cache off: {error}")
        return None


def _tell_if_full(error: OSError, cache: FeatureCache, reporter: Reporter) -> None:
    """Tells that the disk is full; raises every other error again."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise error
    reporter.message(f"cache off: no space left in {cache.folder}; --cache-dir names another folder")


def cache_dtype(config: RunConfig) -> str:
    """The cache's dtype: under mixed precision the features were 16 bits wide before they were written."""
    if config.cache_dtype != "auto":
        return config.cache_dtype
    return "float32" if keras.config.dtype_policy().compute_dtype == "float32" else "float16"


def _views(network: Network, config: RunConfig) -> Views:
    image_size = network.graph.input.shape[1]
    if config.augmentation == "none":
        return Views(image_size)
    return Views(image_size, config.augmentation, config.cache_views)


def _checked_photo_feed(network: Network, dataset: Dataset, config: RunConfig, reporter: Reporter) -> Feed:
    photos = PhotoCache(memory_gib=config.memory_gib)
    pixels = {"image_size": network.graph.input.shape[1], "cache": photos}
    dataset, bad_photos = _check(dataset, config, reporter, pixels)
    return dataclasses.replace(photo_feed(network, dataset, photos, config), bad_photos=bad_photos)


def photo_feed(network: Network, dataset: Dataset, photos: PhotoCache, config: RunConfig) -> Feed:
    """The whole network on photos.

    Args:
        network: what is trained.
        dataset: without its bad photos.
        photos: keeps those that were decoded.
        config: batch size, epochs, seed and augmentation.
    """
    pixels = {"image_size": network.graph.input.shape[1], "batch_size": config.batch_size, "cache": photos}

    def train(first_epoch: int) -> tf.data.Dataset:
        return training_batches(
            dataset.train,
            epochs=config.epochs,
            first_epoch=first_epoch,
            seed=config.seed,
            augmentation=config.augmentation,
            flip=dataset.flip,
            **pixels,
        )

    def evaluate(split: Split) -> tf.data.Dataset:
        return evaluation_batches(split, **pixels)

    return Feed(network.model, dataset, [], train, evaluate)


def compute_features(
    networks: Sequence[Network], dataset: Dataset, config: RunConfig, *, trainings: int, xla: bool, reporter: Reporter
):
    """Computes at once all frozen prefixes that are worth it and are not in the cache.

    Args:
        networks: of one backbone, cut at different boundaries; not to be trained afterwards, for all layers that one
            of them freezes are left frozen.
        dataset: whose photos they see.
        config: the settings that the networks share.
        trainings: see `choose_feed`.
        xla: whether to compile the pass.
        reporter: is told of the progress.

    Raises:
        UserError: there are bad photos, and they are not to be skipped; also where nothing is worth computing, before
            every run finds them for itself.
    """
    cache = _open_cache(config, reporter)
    views, dtype = _views(networks[0], config), cache_dtype(config)
    entries, room = {}, cache.limit_bytes if cache else 0
    for network in sorted(networks, key=lambda network: -network.boundary.depth):
        use, _ = worth_caching(
            config.cache,
            network.boundary,
            dataset,
            views=views,
            dtype=dtype,
            epochs=config.epochs,
            trainings=trainings,
            limit_bytes=math.inf,
        )
        if not use or cache is None:
            continue
        for layer in network.prefix.layers:  # a later cut of the same layers has thawed some, and the key tells
            layer.trainable = False
        key = entry_key(network.prefix, dataset, views=views, dtype=dtype, on_bad_image=config.on_bad_image)
        size = entry_bytes(network.boundary, dataset, views, dtype)
        if key not in entries and (size <= room or cache.load(key, dataset)):
            entries[key] = network.boundary
            room -= size
    missing = {key: boundary for key, boundary in entries.items() if cache.load(key, dataset) is None}
    if not entries and config.on_bad_image == "fail":
        _check(dataset, config, reporter, {"image_size": views.image_size, "cache": PhotoCache(memory_gib=0)})
    if not missing:
        return
    try:
        _fill(cache, missing, networks[0], dataset, config, views=views, dtype=dtype, xla=xla, reporter=reporter)
    except OSError as error:
        _tell_if_full(error, cache, reporter)


def _fill(cache: FeatureCache, entries, network, dataset, config: RunConfig, *, views, dtype, xla, reporter) -> None:
    """Checks the photos and computes the entries, key -> boundary of the network's graph, in one pass."""
    pixels = {"image_size": views.image_size, "cache": PhotoCache(memory_gib=config.memory_gib)}
    checked, bad_photos = _check(dataset, config, reporter, pixels)
    total = sum(len(split) * views.of(split) for split in checked.splits)
    with reporter.photos("computing frozen layers", total) as progress:
        cache.build(
            entries,
            network.graph.input,
            checked,
            bad_photos=bad_photos,
            views=views,
            dtype=dtype,
            photo_cache=pixels["cache"],
            jit_compile=xla,
            progress=progress,
            waiting=lambda: reporter.message("waiting for another process that computes the same frozen layers"),
        )


def _cached_feed(network, dataset, config: RunConfig, cache, key: str, *, views, dtype, xla, reporter) -> Feed:
    started = time.perf_counter()
    while (entry := cache.load(key, dataset)) is None:  # more than once, if another process needs the room at once
        _fill(
            cache,
            {key: network.boundary},
            network,
            dataset.whole or dataset,
            config,
            views=views,
            dtype=dtype,
            xla=xla,
            reporter=reporter,
        )
    dataset, features, bad_photos = entry
    feed = feature_feed(network, dataset, features, config)
    return dataclasses.replace(feed, bad_photos=bad_photos, seconds=time.perf_counter() - started)


def feature_feed(network: Network, dataset: Dataset, features: Mapping[str, Features], config: RunConfig) -> Feed:
    """The network's suffix on cached features.

    Args:
        network: cut where the features are from.
        dataset: without its bad photos.
        features: split's name -> what the prefix gives for it.
        config: batch size, epochs and seed.
    """

    def train(first_epoch: int) -> tf.data.Dataset:
        return cached_training_batches(
            features["train"],
            batch_size=config.batch_size,
            epochs=config.epochs,
            first_epoch=first_epoch,
            seed=config.seed,
        )

    def evaluate(split: Split) -> tf.data.Dataset:
        return cached_evaluation_batches(features[split.name], batch_size=config.batch_size)

    alone = network.boundary is network.boundaries[-1]
    return Feed(network.suffix, dataset, [], train, evaluate, cached=True, trains_head_alone=alone)


def _check(dataset: Dataset, config: RunConfig, reporter: Reporter, pixels: dict):
    with reporter.photos("checking photos", sum(map(len, dataset.splits))) as update:
        dataset, bad_photos = check_photos(dataset, on_bad_image=config.on_bad_image, progress=update, **pixels)
    if bad_photos:
        reporter.message(f"skipped {len(bad_photos)} photos that cannot be read; result.json lists them")
    return dataset, bad_photos
