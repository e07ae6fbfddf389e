"""Batches of decoded photos or of cached features, as a run of ktl has them."""

from collections.abc import Mapping

import keras
import numpy as np

from benchmarks.work import Work
from ktl.backends.engines import make_engine
from ktl.data.input_pipeline import PhotoCache
from ktl.features.digests import DigestMemory, digests_of
from ktl.features.extraction import Extraction, Views, extract, open_features
from ktl.features.store import Features, FeatureStore
from ktl.training.inputs import Inputs
from ktl.training.options import InputOptions


def photo_inputs(work: Work, photos: PhotoCache) -> Inputs:
    """What the whole network is trained on."""
    return inputs(work, photos=photos)


def feature_inputs(work: Work, features: Mapping[str, Features]) -> Inputs:
    """What the suffix is trained on."""
    return inputs(work, photos=PhotoCache(memory_gib=0), features=features)


def inputs(work: Work, **batches) -> Inputs:
    config = work.config
    options = InputOptions(
        batch_size=config.batch_size, least_steps=config.least_steps, seed=config.seed, augmentation="none"
    )
    return Inputs(dataset=work.dataset, bad_photos=(), options=options, image_size=work.image_size, **batches)


def extraction(work: Work, depth: str) -> Extraction:
    """What the frozen layers up to a depth give."""
    classifier = work.classifier
    dtype = "float32" if keras.config.dtype_policy().compute_dtype == "float32" else "float16"
    boundary = classifier.boundary_at(depth)
    engine = make_engine(jit_compile=work.machine.xla)
    return Extraction(classifier.input, boundary, work.dataset, Views(work.image_size), dtype, engine)


def write_features(work: Work, folder: str, *, depths: list[str], photos: PhotoCache) -> dict[str, dict]:
    """What the frozen layers give at some depths, all written by one pass: depth -> split's name -> features."""
    store = FeatureStore(folder)
    extractions = {depth: extraction(work, depth) for depth in depths}
    digests = digests_of(work.dataset.splits, DigestMemory(store.folder))
    extract(store, list(extractions.values()), work.dataset, digests, photo_cache=photos)
    found = {depth: open_features(store, wanted, work.dataset, digests) for depth, wanted in extractions.items()}
    return {depth: features for depth, features in found.items() if features is not None}


def random_batch(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """One batch of made-up features and labels."""
    generator, count = np.random.default_rng(0), work.config.batch_size
    features = generator.random((count, *work.classifier.boundary.tensor.shape[1:]), np.float32)
    return features, generator.integers(len(work.dataset.class_names), size=count, dtype=np.int32)
