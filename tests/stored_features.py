"""Features of a small classifier, computed into a store: what the tests of several modules share."""

import math
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from support import as_dataset
from tiny import SIZE

from ktl.backends.tensorflow_engine import TensorFlowEngine
from ktl.data.input_pipeline import PhotoCache, evaluation_batches
from ktl.features.batches import cached_evaluation_batches
from ktl.features.digests import DigestMemory, digests_of
from ktl.features.extraction import Extraction, Views, extract, open_features
from ktl.features.folder import own_entries
from ktl.features.shards import Shard
from ktl.features.store import Features
from ktl.models.boundaries import find_boundary


def extraction_of(classifier, dataset, depth=None, *, views=None, dtype="float32", **engine) -> Extraction:
    """Features at a depth, that of the classifier if None."""
    boundary = classifier.boundary if depth is None else find_boundary(classifier.boundaries, depth)
    return Extraction(classifier.input, boundary, dataset, views or Views(SIZE), dtype, TensorFlowEngine(**engine))


def digests(store, dataset) -> dict[str, bytes | None]:
    """Of a data set's photos, as a run has them."""
    return digests_of(dataset.splits, DigestMemory(store.folder))


def compute(store, *extractions, checked=None, **arguments) -> None:
    """Computes features in one pass, of the data set without its bad photos where `checked` is one."""
    dataset = checked or extractions[0].dataset
    arguments.setdefault("photo_cache", PhotoCache(memory_gib=0.1))
    extract(store, extractions, dataset, digests(store, dataset), **arguments)


def stored(store, extraction, dataset=None, **arguments) -> dict[str, Features] | None:
    """The features of each split; None where a row is missing."""
    dataset = dataset or extraction.dataset
    return open_features(store, extraction, dataset, digests(store, dataset), **arguments)


def everything(features) -> np.ndarray:
    """All rows of a split, as they are stored."""
    return features.read(np.arange(len(features) * features.views))


def expected_features(classifier, depth, split) -> np.ndarray:
    """By Keras' own `predict`, of the photos' evaluation views."""
    batches = evaluation_batches(split, image_size=SIZE, batch_size=32, cache=PhotoCache(memory_gib=0))
    tensor = find_boundary(classifier.boundaries, depth).tensor
    return keras.Model(classifier.input, tensor).predict(as_dataset(batches), verbose=0)


def read_features(features) -> tuple[np.ndarray, np.ndarray]:
    """All features of a split's first view, and the labels."""
    batches = list(cached_evaluation_batches(features, batch_size=7))
    values, labels = (np.concatenate(column) for column in zip(*batches, strict=True))
    return values, labels


def rows_in(folder: Path) -> dict[str, dict[bytes, bytes]]:
    """Entry -> row id -> the row's bytes: all that is in a cache folder."""
    found = {entry.path.name: {} for entry in own_entries(folder)}
    for entry, row_bytes, shard in shards_in(folder):
        values = np.empty((len(shard.ids), row_bytes), np.uint8)
        shard.read(np.arange(len(values)), list(values))
        found[entry] |= {name: value.tobytes() for name, value in zip(shard.ids.tolist(), values, strict=True)}
    return found


def shards_in(folder: Path) -> Iterator[tuple[str, int, Shard]]:
    """All that is in a cache folder: entry, size of a row in bytes, shard."""
    for entry in own_entries(folder):
        row_bytes = math.prod(entry.about["shape"]) * np.dtype(entry.about["dtype"]).itemsize
        for file in entry.shards:
            yield entry.path.name, row_bytes, Shard(file.path, key=entry.path.name, row_bytes=row_bytes)
