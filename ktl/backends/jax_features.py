"""Features in the memory of a GPU: a step takes its batch from there, where the disk and the way from it are slower."""

import functools
from collections.abc import Mapping
from typing import TypeVar

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np

from ktl.data.batches import Rows

SHARE = 0.4
"""Of the memory of the GPU that is free: the rest is the training's."""

CHUNK_BYTES = 2**27
"""That are brought at a time."""

_Name = TypeVar("_Name")


class DeviceFeatures:
    """Features of a split, all of whose rows are brought into the device's memory when the first ones are asked for.

    Args:
        features: that they are copies of.
    """

    def __init__(self, features: Rows):
        self._features = features
        self.labels, self.views = features.labels, features.views
        self.shape, self.dtype = features.shape, features.dtype

    def __len__(self) -> int:
        return len(self._features)

    @property
    def nbytes(self) -> int:
        """Of all rows."""
        return self._features.nbytes

    @property
    def at_url(self) -> bool:
        """Whether rows are read at a URL: no longer."""
        return False

    @functools.cached_property
    def values(self) -> jax.Array:
        """[photos * views, *shape], a photo's views one after another."""
        count = len(self._features) * self.views
        values = jnp.zeros((count, *self.shape), self.dtype)
        rows = max(1, min(count, CHUNK_BYTES * count // max(1, self._features.nbytes)))
        for start in range(0, count, rows):
            # The last ones come in a chunk of the same size, which is compiled once.
            first = min(start, count - rows)
            values = _put(values, self._features.read(np.arange(first, first + rows)), first)
        return values

    def read(self, rows: np.ndarray) -> jax.Array:
        """The features of some rows, [len(rows), *shape], in the device's memory."""
        return _take(self.values, rows)


def kept(features: Mapping[_Name, Rows]) -> Mapping[_Name, Rows]:
    """The same features, in the memory of a GPU if there is one and they fit."""
    if sum(split.nbytes for split in features.values()) > SHARE * free_bytes():
        return features
    return {name: DeviceFeatures(split) for name, split in features.items()}


def free_bytes() -> int:
    """Of the memory of the one GPU; 0 without one, or with several."""
    devices = jax.devices()
    if len(devices) > 1 or devices[0].platform != "gpu":
        return 0
    memory = devices[0].memory_stats() or {}
    return memory.get("bytes_limit", 0) - memory.get("bytes_in_use", 0)


@functools.partial(jax.jit, donate_argnums=0)
def _put(values, chunk, first):
    return jax.lax.dynamic_update_slice_in_dim(values, chunk, first, axis=0)


_take = jax.jit(lambda values, rows: jnp.take(values, rows, axis=0))
