"""The pass on JAX, which compiles it with XLA."""

import dataclasses
import os
from collections.abc import Callable, Sequence

import jax  # pyright: ignore[reportMissingImports]
import keras
import numpy as np

from ktl.backends.engines import BATCH
from ktl.backends.jax_machine import gpus
from ktl.models.batchnorm_folding import fold_batch_normalization

GPU_BATCH = 256
"""Photos at a time on a GPU: for ResNet50 a third faster than 64; 1,024 are a tenth faster and take 14 GiB of it."""


@dataclasses.dataclass(frozen=True)
class JaxEngine:
    """JAX's graphs, compiled with XLA.

    Attributes:
        batch: photos that it is given at a time.
        calls: how many batches it is given at a time: a GPU computes one while the pixels of another are on their way.
    """

    batch: int
    calls: int

    @property
    def identity(self) -> dict[str, str]:
        """Everything of the engine and the machine that a number may depend on."""
        devices = jax.devices()
        return {
            "engine": f"jax {jax.__version__}, keras {keras.__version__}",
            "device": " ".join(sorted({device.device_kind for device in devices})),
            "matmul_precision": str(jax.config.jax_default_matmul_precision),  # pyright: ignore[reportAttributeAccessIssue]
            "xla_flags": os.environ.get("XLA_FLAGS", ""),
        }

    def compile(
        self, pixels: keras.KerasTensor, outputs: Sequence[keras.KerasTensor]
    ) -> Callable[[np.ndarray], list[np.ndarray]]:
        """A function from uint8 [batch, height, width, 3] to the graph's outputs, in one pass."""
        # Folded: the same values up to rounding, without a pass over memory for each normalization.
        model = fold_batch_normalization(pixels, outputs)
        groups = model.trainable_variables, model.non_trainable_variables
        weights = [[variable.value for variable in group] for group in groups]

        def forward(weights, batch):
            found = model.stateless_call(*weights, batch.astype(pixels.dtype), training=False)[0]
            return list(found) if isinstance(found, (list, tuple)) else [found]

        compiled = jax.jit(forward)
        return lambda batch: [np.asarray(array) for array in compiled(weights, batch)]


def make(jit_compile: bool) -> JaxEngine:
    """The engine; JAX compiles whatever is asked for."""
    return JaxEngine(batch=GPU_BATCH, calls=2) if gpus() else JaxEngine(batch=BATCH, calls=1)
