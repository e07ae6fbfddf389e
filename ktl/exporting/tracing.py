"""What the converters to LiteRT and ONNX share."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


@contextlib.contextmanager
def in_float32(model: keras.Model) -> Iterator[None]:
    """Makes a model compute in float32 where it is traced anew, and gives its layers their dtype policies back.

    Neither format has mixed precision: LiteRT has no float16 convolution, and ONNX Runtime none of bfloat16.
    """
    policies = [(layer, layer.dtype_policy) for layer in model._flatten_layers(include_self=False)]
    try:
        for layer, _ in policies:
            layer.dtype_policy = "float32"
        yield
    finally:
        for layer, policy in policies:
            layer.dtype_policy = policy


def pixels_signature(model: keras.Model, dtype: tf.DType) -> tf.TensorSpec:
    """The input of a file: any number of views."""
    return tf.TensorSpec([None, *model.input_shape[1:]], dtype, name="pixels")
