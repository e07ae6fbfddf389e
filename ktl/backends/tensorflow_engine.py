"""The pass on TensorFlow."""

import dataclasses
import os
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from ktl.backends.engines import BATCH
from ktl.backends.tensorflow_machine import gpus
from ktl.models.batchnorm_folding import fold_batch_normalization


@dataclasses.dataclass(frozen=True)
class TensorFlowEngine:
    """TensorFlow's own kernels.

    Attributes:
        jit_compile: whether the graph is compiled with XLA.
        batch: photos that it is given at a time.
        calls: how many batches it is given at a time.
    """

    jit_compile: bool = False
    batch: int = BATCH
    calls: int = 1

    @property
    def identity(self) -> dict[str, str]:
        """Everything of the engine and the machine that a number may depend on."""
        names = sorted({name for name, _ in gpus()})
        return {
            "engine": f"tensorflow {tf.__version__}, keras {keras.__version__}",
            "xla": str(self.jit_compile),
            "device": " ".join(names) or "CPU",
            "tensor_float_32": str(bool(names) and tf.config.experimental.tensor_float_32_execution_enabled()),
            "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        }

    def compile(
        self, pixels: keras.KerasTensor, outputs: Sequence[keras.KerasTensor]
    ) -> Callable[[np.ndarray], list[np.ndarray]]:
        """A function from uint8 [batch, height, width, 3] to the graph's outputs, in one pass."""
        # Folded: the same values up to rounding, without a pass over memory for each normalization.
        model = fold_batch_normalization(pixels, outputs)
        signature = [tf.TensorSpec([None, *pixels.shape[1:]], tf.uint8)]

        @tf.function(input_signature=signature, jit_compile=self.jit_compile)
        def forward(batch):
            found = model(tf.cast(batch, pixels.dtype), training=False)
            return found if isinstance(found, (list, tuple)) else [found]

        return lambda batch: [tensor.numpy() for tensor in forward(batch)]


make = TensorFlowEngine
