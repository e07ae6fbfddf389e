"""JAX's share of `ktl.machine`."""

import contextlib
import functools
from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import keras
import numpy as np

from ktl.errors import UserError

OUT_OF_MEMORY: tuple[type[Exception], ...] = (MemoryError,)
"""What is raised where the computer's memory runs out. For a GPU's, JAX has no error of its own."""

ALWAYS_COMPILES = True
"""Whether all is compiled with XLA, whatever is asked for."""

SEES_WHOLE_BATCH = True
"""Whether BatchNormalization sees the whole of a batch that is split over devices, without being told."""


def gpus() -> list[tuple[str, tuple[int, int]]]:
    """Name and compute capability of each GPU."""
    found = [device for device in jax.devices() if device.platform == "gpu"]
    return [(device.device_kind, _capability(device)) for device in found]


def _capability(device) -> tuple[int, int]:
    major, _, minor = str(getattr(device, "compute_capability", "0.0")).partition(".")
    return int(major), int(minor or 0)


def be_deterministic() -> None:
    """The same numbers every time, as on a CPU they are. Raises UserError with a GPU."""
    if gpus():
        raise UserError(
            "Expected `deterministic` to be False with JAX and a GPU. Received: True. "
            "Set XLA_FLAGS=--xla_gpu_deterministic_ops=true in its place"
        )


def scope(strategy: str) -> contextlib.AbstractContextManager:
    """The context that models are built and compiled in, see `ktl.machine.Machine.strategy`."""
    return _data_parallel().scope() if strategy == "mirrored" else contextlib.nullcontext()


@functools.cache
def _data_parallel() -> keras.distribution.DataParallel:
    """All devices, each with a copy of all variables."""
    return keras.distribution.DataParallel()


def scope_of(model: keras.Model) -> contextlib.AbstractContextManager:
    """The context that this model was built in."""
    return scope("mirrored" if devices_of(model) > 1 else "none")


def devices_of(model: keras.Model) -> int:
    """Over how many devices its batches are split."""
    values: list[Any] = [variable.value for variable in model.variables[:1]]
    return len(values[0].sharding.device_set) if values else 1


def placed(array: np.ndarray) -> Any:
    """An array of a batch for a model on several devices: a part on each, or all of it where no equal parts are.

    Keras' own way, training in the scope of the distribution, takes no batch that cannot be split evenly, and the last
    photos of a split seldom can.
    """
    distribution = _data_parallel()
    layout = distribution.get_data_layout(array.shape)
    if len(array) % distribution.num_model_replicas:
        layout = keras.distribution.TensorLayout([None] * array.ndim, distribution.device_mesh)
    return jax.device_put(array, layout.backend_layout)


def state_restored() -> contextlib.AbstractContextManager:
    """JAX has no state of its own that a training changes."""
    return contextlib.nullcontext()


class Traces:
    """What tracing leaves behind: nothing that its model does not hold."""

    def free(self) -> None:
        pass


def traces_forgotten() -> contextlib.AbstractContextManager:
    """JAX keeps nothing for ever."""
    return contextlib.nullcontext()


def graphs_as_traced() -> contextlib.AbstractContextManager:
    """JAX has no rewriting that could be left out."""
    return contextlib.nullcontext()
