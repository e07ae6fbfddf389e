"""A network as a LiteRT or ONNX file, and such a file as a function, in the runtime that it was written for.

Every file takes a batch of any size: `pixels`, uint8 [batch, image_size, image_size, 3], so that nobody has to know
what the network does to them first; and gives `probabilities`, float32 [batch, classes].
"""

import contextlib
import dataclasses
import importlib
import itertools
import os
import re
import tempfile
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ktl.errors import UserError, unknown_name
from ktl.files import write_atomically
from ktl.machine import cores
from ktl.streams import without_standard_error

Classify = Callable[[np.ndarray], np.ndarray]
"""Views, uint8 [batch, image_size, image_size, 3], to probabilities, float32 [batch, classes]."""


@dataclasses.dataclass(frozen=True)
class Quantization:
    """One way to store a LiteRT file's numbers.

    Attributes:
        traced: dtype of the pixels in the graph that is converted.
        settings: attributes of `tf.lite.TFLiteConverter`.
    """

    traced: tf.DType
    settings: dict


_BUILTINS = tf.lite.OpsSet.TFLITE_BUILTINS
_SMALL = [tf.lite.Optimize.DEFAULT]

# Built-in operations alone: a file with others opens in no plain LiteRT interpreter.
QUANTIZATIONS = {
    "none": Quantization(tf.uint8, {"target_spec": {"supported_ops": [_BUILTINS]}}),
    "float16": Quantization(
        tf.uint8,
        {
            "optimizations": _SMALL,
            "target_spec": {"supported_ops": [_BUILTINS], "supported_types": [tf.float16]},
        },
    ),
    # Pixels that are traced as uint8 would be cast to floats, and only then quantized.
    "int8": Quantization(
        tf.float32,
        {
            "optimizations": _SMALL,
            "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, _BUILTINS]},
            "inference_input_type": tf.uint8,
        },
    ),
}


def write_litert(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    quantization: str = "none",
    calibration: Iterable[np.ndarray] | None = None,
) -> None:
    """Writes a network as a LiteRT (.tflite) file, in float32 whatever precision it was trained in, or quantized.

    `float16` stores the weights in float16 and computes in float32. `int8` stores weights, a scale a channel, and
    activations, a scale a tensor, in 8 bits, except where an operation, such as SQUARE, has no 8-bit kernel.

    Args:
        model: pixels in 0..255, [batch, image_size, image_size, 3], to probabilities, [batch, classes], as one
            functional model.
        path: the file.
        quantization: a name in QUANTIZATIONS.
        calibration: batches of training views, uint8 [batch, image_size, image_size, 3], read once, by `int8` alone;
            the range of every activation is what it is on these views.

    Raises:
        UserError: unknown quantization, no views for `int8`, or an operation that LiteRT does not have.

    Reference:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
        CVPR 2018 (arXiv 1712.05877); https://ai.google.dev/edge/litert/conversion/tensorflow/quantization
    """
    if quantization not in QUANTIZATIONS:
        raise unknown_name("quantization", quantization, QUANTIZATIONS)
    row = QUANTIZATIONS[quantization]
    settings = dict(row.settings)
    if quantization == "int8":
        samples = _samples(calibration)
        settings["representative_dataset"] = lambda: samples
    # The name of an output comes from its key.
    named = keras.Model(model.input, {"probabilities": model.output})
    try:
        with tempfile.TemporaryDirectory() as folder, in_float32(model), _quiet():
            file = Path(folder, "model.tflite")
            named.export(
                file, format="litert", verbose=False, input_signature=[_signature(model, row.traced)], **settings
            )
            content = file.read_bytes()
    except Exception as error:
        lacking = re.findall(r"^(?:Custom|TF Select) ops: (.+)$", str(error), re.MULTILINE)
        if not lacking:
            raise
        raise UserError(f"Expected operations that LiteRT has. Received: {', '.join(lacking)}") from error
    write_atomically(path, lambda file: file.write(content))


def write_onnx(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes a network as an ONNX file, in float32 whatever precision it was trained in.

    Args:
        model: see `write_litert`.
        path: the file.

    Raises:
        UserError: a package is missing, or an operation that ONNX does not have.
    """
    onnx, tf2onnx = _package("onnx"), _package("tf2onnx")
    # Not `model.export(format="onnx")`: that takes the constants of a Normalization layer for further inputs.
    function = tf.function(lambda pixels: model(pixels, training=False), autograph=False)
    with in_float32(model), _quiet():
        traced = function.get_concrete_function(_signature(model, tf.uint8))
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
        raise UserError(f"Expected operations that ONNX has. Received: {str(error).strip().splitlines()[0]}") from error
    write_atomically(path, lambda file: file.write(converted.SerializeToString()))


def open_litert(path: str | os.PathLike) -> tuple[int, Classify]:
    """The size of a `write_litert` file's views, and the file as a function. Not for several threads at a time."""
    with _quiet():
        interpreter = _litert_interpreter()(model_path=os.fspath(path), num_threads=cores())
        interpreter.allocate_tensors()
    (pixels,), (probabilities,) = interpreter.get_input_details(), interpreter.get_output_details()

    def classify(views: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(pixels["index"], views.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(pixels["index"], views)
        interpreter.invoke()
        return interpreter.get_tensor(probabilities["index"])

    return int(pixels["shape"][1]), classify


def open_onnx(path: str | os.PathLike) -> tuple[int, Classify]:
    """The size of a `write_onnx` file's views, and the file as a function, on the CPU.

    Raises:
        UserError: a package is missing.
    """
    session = _package("onnxruntime").InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    (pixels,) = session.get_inputs()
    return pixels.shape[1], lambda views: session.run(["probabilities"], {"pixels": views})[0]


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


def _signature(model: keras.Model, dtype: tf.DType) -> tf.TensorSpec:
    return tf.TensorSpec([None, *model.input_shape[1:]], dtype, name="pixels")


def _samples(calibration: Iterable[np.ndarray] | None) -> Iterator[list[np.ndarray]]:
    """The views one by one, as the converter wants them."""
    views = (view for batch in (() if calibration is None else calibration) for view in batch)
    first = next(views, None)
    if first is None:
        raise UserError("Expected training photos that calibrate int8. Received: none")
    # Extremes in one corner make the pixels' range 0..255, and so the file's 8-bit input the pixels themselves.
    first = np.array(first)
    first[0, 0] = 0, 0, 255
    return ([np.asarray(view, "float32")[None]] for view in itertools.chain([first], views))


def _package(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f'Expected pip install "ktl[export]" for --format onnx. Received: no package {error.name}'
        ) from error


def _litert_interpreter() -> type:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError:
        return tf.lite.Interpreter
    return Interpreter


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the converters, also Python's warnings. What goes wrong is raised, with its text."""
    with without_standard_error(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
