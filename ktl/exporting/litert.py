"""A network as a LiteRT (.tflite) file.

It takes a batch of any size: `pixels`, uint8 [batch, image_size, image_size, 3], so that nobody has to know what the
network does to them first; and gives `probabilities`, float32 [batch, classes].
"""

import dataclasses
import itertools
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ktl.errors import UserError, unknown_name
from ktl.exporting.tracing import in_float32, pixels_signature
from ktl.files import write_atomically
from ktl.inference.formats import quiet_converters


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
        with tempfile.TemporaryDirectory() as folder, in_float32(model), quiet_converters():
            file = Path(folder, "model.tflite")
            named.export(
                file, format="litert", verbose=False, input_signature=[pixels_signature(model, row.traced)], **settings
            )
            content = file.read_bytes()
    except Exception as error:
        lacking = re.findall(r"^(?:Custom|TF Select) ops: (.+)$", str(error), re.MULTILINE)
        if not lacking:
            raise
        raise UserError(f"Expected operations that LiteRT has. Received: {', '.join(lacking)}") from error
    write_atomically(path, lambda file: file.write(content))


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
