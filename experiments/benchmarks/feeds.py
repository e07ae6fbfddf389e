"""Batches of decoded photos or of cached features, as a run of ktl has them."""

import keras
import numpy as np

from benchmarks.work import Work
from ktl.data.input_pipeline import PhotoCache
from ktl.features.store import FeatureCache, Views, entry_key
from ktl.models.boundaries import find_boundary
from ktl.training.inputs import cache_dtype


def write_features(work: Work, folder: str, *, depths: list[str], photos: PhotoCache) -> dict[str, dict]:
    """What the frozen layers give at some depths, all written by one pass: depth -> split's name -> features."""
    cache, views, dtype = FeatureCache(folder), Views(work.image_size), cache_dtype(work.config)
    boundaries = {depth: find_boundary(work.network.boundaries, depth) for depth in depths}
    pixels = work.network.graph.input
    keys = {
        depth: entry_key(
            keras.Model(pixels, boundary.tensor), work.dataset, views=views, dtype=dtype, on_bad_image="fail"
        )
        for depth, boundary in boundaries.items()
    }
    cache.build(
        {keys[depth]: boundary for depth, boundary in boundaries.items()},
        pixels,
        work.dataset,
        views=views,
        dtype=dtype,
        photo_cache=photos,
        jit_compile=work.machine.xla,
    )
    return {depth: cache.load(key, work.dataset)[1] for depth, key in keys.items()}


def random_batch(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """One batch of made-up features and labels."""
    generator, count = np.random.default_rng(0), work.config.batch_size
    features = generator.random((count, *work.network.boundary.tensor.shape[1:]), np.float32)
    return features, generator.integers(len(work.dataset.class_names), size=count, dtype=np.int32)
