"""What computes the frozen layers: an engine makes a graph a function of pixels, and says what its numbers depend on.

There is one for each of Keras' backends, in a module of its own.
"""

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Protocol

import keras
import numpy as np

BATCH = 64
"""Photos at a time: for MobileNet on a CPU faster than 32. JAX takes more on a GPU; nothing else was measured there."""


class Engine(Protocol):
    """Computes graphs.

    Attributes:
        batch: photos that it is given at a time.
        calls: how many batches it is given at a time, by as many threads.
    """

    @property
    def batch(self) -> int: ...

    @property
    def calls(self) -> int: ...

    @property
    def identity(self) -> dict[str, str]:
        """Everything of the engine and the machine that a number may depend on."""
        ...

    def compile(
        self, pixels: keras.KerasTensor, outputs: Sequence[keras.KerasTensor]
    ) -> Callable[[np.ndarray], list[np.ndarray]]:
        """A function from uint8 [batch, height, width, 3] to the graph's outputs, in one pass."""
        ...


def make_engine(*, jit_compile: bool = False) -> Engine:
    """The engine of Keras' backend, by its module's function `make`.

    Args:
        jit_compile: whether TensorFlow compiles graphs with XLA; JAX always does.
    """
    return engine_module().make(jit_compile)


def engine_module() -> ModuleType:
    """The module that the engine of Keras' backend is in."""
    return importlib.import_module(f"ktl.backends.{keras.config.backend()}_engine")
