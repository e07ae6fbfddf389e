"""EfficientNet-Lite0 in the manner of `keras.applications`, with its published PyTorch weights.

The net is EfficientNet-B0 for devices that have no fast sigmoid: no squeeze-and-excitation, ReLU6 in place of swish,
and a stem and head of fixed width. Pre-processing stays outside: see `preprocess_input`.

Reference:
    Tan, Le, "EfficientNet", ICML 2019 (arXiv 1905.11946), table 1;
    Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, March 2020.
"""

import string
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from ktl.errors import UserError, unknown_name
from ktl.models.efficientnet_lite_weights import load_weights

DEFAULT_SIZE = 224
PIXEL_MEAN = 127.0
PIXEL_SCALE = 128.0
DROP_RATE = 0.2
DROP_CONNECT_RATE = 0.2
STEM_FILTERS = 32
TOP_FILTERS = 1280


class Stage(NamedTuple):
    """Blocks of one width; only the first block of a stage strides."""

    repeats: int
    kernel_size: int
    strides: int
    expand_ratio: int
    filters: int


STAGES = (
    Stage(repeats=1, kernel_size=3, strides=1, expand_ratio=1, filters=16),
    Stage(repeats=2, kernel_size=3, strides=2, expand_ratio=6, filters=24),
    Stage(repeats=2, kernel_size=5, strides=2, expand_ratio=6, filters=40),
    Stage(repeats=3, kernel_size=3, strides=2, expand_ratio=6, filters=80),
    Stage(repeats=3, kernel_size=5, strides=1, expand_ratio=6, filters=112),
    Stage(repeats=4, kernel_size=5, strides=2, expand_ratio=6, filters=192),
    Stage(repeats=1, kernel_size=3, strides=1, expand_ratio=6, filters=320),
)
# (name, stage with the block's own strides), from input to output: block1a_, block2a_, block2b_, ...
BLOCKS = tuple(
    (f"block{number}{letter}_", stage._replace(strides=stage.strides if letter == "a" else 1))
    for number, stage in enumerate(STAGES, 1)
    for letter in string.ascii_lowercase[: stage.repeats]
)

POOLING = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}

# TensorFlow's 'same', which the weights were trained with: strided on an even size, it pads less above and to the left
# than below and to the right.
_CONVOLUTION = {"padding": "same", "use_bias": False, "data_format": "channels_last"}
# Not initializers: one of those would give each layer the same random numbers.
_CONVOLUTION_INITIALIZER: Any = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"},
}
_DENSE_INITIALIZER: Any = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1.0 / 3.0, "mode": "fan_out", "distribution": "uniform"},
}


def preprocess_input(x: Any) -> Any:
    """Brings pixels into the range that the weights were trained on:

        y = (x - 127) / 128

    Args:
        x: pixels 0 to 255 in RGB order, of any shape: a numpy array, a tensor or a KerasTensor. Never changed in place.

    Returns:
        The same kind of object, about -1 to 1; floating inputs keep their type, others become `keras.config.floatx()`.
    """
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
        floatx = keras.config.floatx()
        x = x.astype(floatx) if isinstance(x, np.ndarray) else keras.ops.cast(x, floatx)
    return (x - PIXEL_MEAN) / PIXEL_SCALE


def EfficientNetLite0(
    *,
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation="softmax",
    name: str = "efficientnet_lite0",
) -> keras.Model:
    """Builds EfficientNet-Lite0, a flat functional model of 4.7 million parameters.

    Args:
        include_top: whether pooling and the classification layer `predictions` are part of the model.
        weights: None for random ones, "imagenet" for those of the optional package (see
            `ktl.models.efficientnet_lite_weights.find_demo_weights`), or a
            file: PyTorch's `.pth`, or what `keras.Model.load_weights` reads.
        input_tensor: a KerasTensor, images already pre-processed, that the net continues from; the model then starts at
            that tensor's own inputs.
        input_shape: `(height, width, channels)`, without the batch; height and width may be None. Not used with
            `input_tensor`. Default `(224, 224, 3)`, the size of the training.
        pooling: without the top, None for the feature map `(batch, height / 32, width / 32, 1280)`, "avg" or "max" for
            a vector `(batch, 1280)`.
        classes: width of the classification layer.
        classifier_activation: of the classification layer; None for logits.
        name: of the model.

    Returns:
        A model from pre-processed images `(batch, height, width, channels)` to `(batch, classes)`.

    Raises:
        UserError: an argument is none of the above, or the weights do not fit.
    """
    if pooling not in (None, *POOLING):
        raise unknown_name("pooling", pooling, (None, *POOLING))
    inputs, x = _inputs(input_tensor, input_shape)
    x = _features(x)
    if include_top:
        x = layers.GlobalAveragePooling2D(data_format="channels_last", name="avg_pool")(x)
        x = layers.Dropout(DROP_RATE, name="top_dropout")(x)
        x = layers.Dense(
            classes, activation=classifier_activation, kernel_initializer=_DENSE_INITIALIZER, name="predictions"
        )(x)
    elif pooling is not None:
        x = POOLING[pooling](data_format="channels_last", name=f"{pooling}_pool")(x)
    model = keras.Model(inputs, x, name=name)
    if weights is not None:
        load_weights(model, weights)
    return model


def _inputs(input_tensor, input_shape):
    """The inputs of the model, and the tensor that its first convolution reads."""
    if input_tensor is None:
        shape = (DEFAULT_SIZE, DEFAULT_SIZE, 3) if input_shape is None else tuple(input_shape)
        if len(shape) != 3:
            raise UserError(f"Expected `input_shape` to be (height, width, channels). Received: input_shape={shape}")
        image = keras.Input(shape)
        return image, image
    if not keras.backend.is_keras_tensor(input_tensor):
        raise UserError(f"Expected `input_tensor` to be a KerasTensor. Received: {type(input_tensor).__name__}")
    sources = keras.utils.get_source_inputs(input_tensor)
    return sources[0] if len(sources) == 1 else sources, input_tensor


def _features(x):
    """Stem, blocks and the last 1x1 convolution: image to feature map."""
    x = layers.Conv2D(
        STEM_FILTERS, 3, strides=2, kernel_initializer=_CONVOLUTION_INITIALIZER, name="stem_conv", **_CONVOLUTION
    )(x)
    x = _normalize(x, "stem_")
    for index, (name, stage) in enumerate(BLOCKS):
        x = _block(x, stage, drop_rate=DROP_CONNECT_RATE * index / len(BLOCKS), name=name)
    return _normalize(_pointwise(x, TOP_FILTERS, "top_conv"), "top_")


def _block(inputs, stage: Stage, *, drop_rate: float, name: str):
    """Inverted residual: widen, filter each channel, narrow; add the input where the shapes agree."""
    x = inputs
    if stage.expand_ratio != 1:
        x = _pointwise(x, inputs.shape[-1] * stage.expand_ratio, f"{name}expand_conv")
        x = _normalize(x, f"{name}expand_")
    x = layers.DepthwiseConv2D(
        stage.kernel_size,
        strides=stage.strides,
        depthwise_initializer=_CONVOLUTION_INITIALIZER,
        name=f"{name}dwconv",
        **_CONVOLUTION,
    )(x)
    x = _normalize(x, name)
    x = _pointwise(x, stage.filters, f"{name}project_conv")
    x = _normalize(x, f"{name}project_", activation=None)
    if stage.strides == 1 and inputs.shape[-1] == stage.filters:
        # One draw an image drops the whole branch (stochastic depth), more often the deeper the block.
        x = layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}drop")(x)
        x = layers.Add(name=f"{name}add")([x, inputs])
    return x


def _pointwise(x, filters: int, name: str):
    return layers.Conv2D(filters, 1, kernel_initializer=_CONVOLUTION_INITIALIZER, name=name, **_CONVOLUTION)(x)


def _normalize(x, prefix: str, activation: str | None = "relu6"):
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{prefix}bn")(x)
    return x if activation is None else layers.Activation(activation, name=f"{prefix}activation")(x)
