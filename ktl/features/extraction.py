"""The pass: what the frozen layers give for every photo and view, computed once and written to the store.

Everything before a freeze boundary is a pure function of the photo. One forward pass writes what it gives at one
boundary or at several.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from ktl.data.dataset import Dataset, Split
from ktl.data.input_pipeline import PhotoCache, view_batches
from ktl.features.store import FeatureStore
from ktl.models.batchnorm_folding import fold_batch_normalization
from ktl.models.boundaries import Boundary

PASS_BATCH = 64
"""Photos a step of the pass: for MobileNet on a CPU faster than 32; nothing was measured on a GPU."""


@dataclasses.dataclass(frozen=True)
class Views:
    """How the photos of a data set are seen by the pass.

    Attributes:
        image_size: side of the network's input, pixels.
        augmentation: of the training photos, see `ktl.data.input_pipeline.training_batches`.
        count: views of each training photo, those of uncached training; validation and test photos have the one
            evaluation view.
        flip: whether "standard" mirrors photos.
    """

    image_size: int
    augmentation: Literal["standard", "none"] = "none"
    count: int = 1
    flip: bool = False

    def of(self, split: Split) -> int:
        """The number of views of each photo of a split."""
        return self.count if split.name == "train" and self.augmentation != "none" else 1


@dataclasses.dataclass(frozen=True)
class Extraction:
    """Features that can be computed: of one data set at one freeze boundary.

    Attributes:
        pixels: input of the graph that the boundary is in.
        boundary: where freezing ends.
        dataset: whose photos are seen, as it was before they were checked; never a part of another.
        views: how they are seen.
        dtype: float32 or float16, of the features.
        on_bad_image: what is done about photos that cannot be read, `fail` or `skip`.
    """

    pixels: keras.KerasTensor
    boundary: Boundary
    dataset: Dataset
    views: Views
    dtype: str
    on_bad_image: str

    @property
    def nbytes(self) -> int:
        """Disk space of the features, bytes."""
        rows = sum(len(split) * self.views.of(split) for split in self.dataset.splits)
        return rows * math.prod(self.boundary.tensor.shape[1:]) * np.dtype(self.dtype).itemsize

    @functools.cached_property
    def key(self) -> str:
        """32 hexadecimal digits that differ when anything that the features depend on does."""
        prefix = keras.Model(self.pixels, self.boundary.tensor, name="prefix")
        digest = hashlib.sha256(json.dumps(_without_trainable(json.loads(prefix.to_json())), sort_keys=True).encode())
        for variable in prefix.weights:  # without the seeds of dropout, which the prefix does not use
            digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).view("uint8").data)
        seen = (dataclasses.astuple(self.views), self.dtype, self.on_bad_image)
        identity = (self.dataset.fingerprint, seen, keras.__version__, tf.__version__)
        digest.update(repr(identity).encode())
        return digest.hexdigest()[:32]


def _without_trainable(config: Any) -> Any:
    """A configuration without its `trainable` flags: what is frozen gives the same as what is not."""
    if isinstance(config, dict):
        return {name: _without_trainable(value) for name, value in config.items() if name != "trainable"}
    return [_without_trainable(value) for value in config] if isinstance(config, list) else config


def extract(
    store: FeatureStore,
    extractions: Sequence[Extraction],
    dataset: Dataset,
    *,
    bad_photos: Sequence[tuple[str, str]] = (),
    photo_cache: PhotoCache,
    jit_compile: bool = False,
    progress: Callable[[int], None] = lambda done: None,
    waiting: Callable[[], None] = lambda: None,
) -> None:
    """Computes what the store does not have, all of it in one forward pass.

    Args:
        store: where the features go.
        extractions: of one graph and one data set, seen in one way.
        dataset: theirs without its bad photos.
        bad_photos: (photo, reason) of each photo that was left out.
        photo_cache: holds decoded photos.
        jit_compile: whether to compile the pass with XLA.
        progress: called with the number of views computed.
        waiting: called once if another process is computing one of them.

    Raises:
        OSError: the disk is full; nothing of the features is left.
    """
    sizes = {extraction.key: extraction.nbytes for extraction in extractions}
    with store.writing(sizes, waiting=waiting) as writers:
        missing = {extraction.key: extraction for extraction in extractions if extraction.key in writers}
        if not missing:
            return
        first = next(iter(missing.values()))
        forward = _forward(first.pixels, [extraction.boundary for extraction in missing.values()], jit_compile)
        done = 0
        for split in dataset.splits:
            with contextlib.ExitStack() as files:
                outputs = [files.enter_context(writers[key].split(split.name)) for key in missing]
                writer = files.enter_context(futures.ThreadPoolExecutor(1))  # writes while the next batch computes
                written = writer.submit(lambda: None)
                for rows, batch in _views_of(split, first.views, photo_cache):
                    values = [tensor.numpy().astype(first.dtype, copy=False) for tensor in forward(batch)]
                    written.result()
                    written = writer.submit(_write_all, outputs, rows, values)
                    done += len(rows)
                    progress(done)
                written.result()
        views = {split.name: first.views.of(split) for split in dataset.splits}
        for key, extraction in missing.items():
            shape = extraction.boundary.tensor.shape[1:]
            writers[key].finish(shape=shape, dtype=extraction.dtype, views=views, bad_photos=bad_photos)


def _write_all(outputs: Sequence[Callable], rows: np.ndarray, values: Sequence[np.ndarray]) -> None:
    for write, value in zip(outputs, values, strict=True):
        write(rows, value)


def _forward(pixels, boundaries: Sequence[Boundary], jit_compile: bool):
    """A compiled function from pixels to the tensors of all boundaries, in one pass."""
    # Folded: the same values up to rounding, without a pass over memory for each normalization.
    model = fold_batch_normalization(pixels, [boundary.tensor for boundary in boundaries])
    signature = [tf.TensorSpec([None, *pixels.shape[1:]], tf.uint8)]

    @tf.function(input_signature=signature, jit_compile=jit_compile)
    def forward(batch):
        outputs = model(tf.cast(batch, pixels.dtype), training=False)
        return outputs if isinstance(outputs, (list, tuple)) else [outputs]

    return forward


def _views_of(split: Split, views: Views, cache: PhotoCache) -> Iterator[tuple[np.ndarray, tf.Tensor]]:
    """(rows, pixels) over all views of a split."""
    augmentation = views.augmentation if split.name == "train" else "none"
    common: dict[str, Any] = {"augmentation": augmentation, "flip": views.flip, "cache": cache}
    batches = view_batches(split, image_size=views.image_size, batch_size=PASS_BATCH, views=views.of(split), **common)
    start = 0
    for pixels, _ in batches:
        yield np.arange(start, start + len(pixels)), pixels
        start += len(pixels)
