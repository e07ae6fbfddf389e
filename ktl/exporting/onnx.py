"""A network as an ONNX file, of the same inputs and outputs as a LiteRT file."""

import os

import keras
import tensorflow as tf

from ktl.errors import UserError, reason_of
from ktl.exporting.tracing import in_float32, pixels_signature
from ktl.files import write_atomically
from ktl.inference.formats import onnx_package, quiet_converters


def write_onnx(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes a network as an ONNX file, in float32 whatever precision it was trained in.

    Args:
        model: see `ktl.exporting.litert.write_litert`.
        path: the file.

    Raises:
        UserError: a package is missing, or an operation that ONNX does not have.
    """
    onnx, tf2onnx = onnx_package("onnx"), onnx_package("tf2onnx")
    # Not `model.export(format="onnx")`: that takes the constants of a Normalization layer for further inputs.
    function = tf.function(lambda pixels: model(pixels, training=False), autograph=False)
    with in_float32(model), quiet_converters():
        traced = function.get_concrete_function(pixels_signature(model, tf.uint8))
        output = traced.outputs[0].name
        graph = tf2onnx.tf_loader.from_function(traced, ["pixels:0"], [output])
        converted, _ = tf2onnx.convert.from_graph_def(
            graph,
            input_names=["pixels:0"],
            output_names=[output],
            tensors_to_rename={"pixels:0": "pixels", output: "probabilities"},
        )
    try:
        # The converter leaves an operation that it does not know as it is, and raises nothing.
        onnx.checker.check_model(converted)
    except onnx.checker.ValidationError as error:
        raise UserError(f"Expected operations that ONNX has. Received: {reason_of(error)}") from error
    write_atomically(path, lambda file: file.write(converted.SerializeToString()))
