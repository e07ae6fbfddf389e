"""The pass on JAX, which compiles it with XLA."""

import dataclasses
import os
from collections.abc import Callable, Sequence

import jax  # pyright: ignore[reportMissingImports]
import keras
import numpy as np

from ktl.models.batchnorm_folding import fold_batch_normalization


@dataclasses.dataclass(frozen=True)
class JaxEngine:
    """JAX's graphs, compiled with XLA."""

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
    return JaxEngine()
