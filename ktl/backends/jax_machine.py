"""JAX's share of `ktl.machine`."""

import contextlib

import jax  # pyright: ignore[reportMissingImports]
import keras

from ktl.errors import UserError

OUT_OF_MEMORY: tuple[type[Exception], ...] = (MemoryError,)
"""What is raised where the computer's memory runs out. For a GPU's, JAX has no error of its own."""

ALWAYS_COMPILES = True
"""Whether all is compiled with XLA, whatever is asked for."""

MIRRORS = False
"""Whether a batch can be split over several GPUs."""


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
    """The context that models are built and compiled in; JAX needs none."""
    return contextlib.nullcontext()


def scope_of(model: keras.Model) -> contextlib.AbstractContextManager:
    """The context that this model was built in."""
    return contextlib.nullcontext()


def devices_of(model: keras.Model) -> int:
    """Over how many devices its batches are split."""
    return 1


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
