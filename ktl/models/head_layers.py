"""The layers behind a backbone: what a head reads, and the new layers that read it."""

import functools

import keras
import numpy as np

from ktl.memory import check_memory
from ktl.models.flat_graph import Backbone
from ktl.models.heads import Head
from ktl.models.layers import ScaledUnitNormalization

SOFTENING = 0.25
"""The power that singular values are raised to. Of 0, 1/4, 1/2, 3/4 and 1 it is the only one whose linear probe has a
lower log loss than that of the features on two data sets of three; on the third it is 0.003 nats higher, see
docs/evidence.md."""


BESIDE_FEATURES = {
    "features_and_logits": ("imagenet_features_unit", "imagenet_logits_unit", "imagenet_both"),
    "features_and_probabilities": (
        "imagenet_features_beside_unit",
        "imagenet_probabilities_unit",
        "imagenet_features_and_probabilities",
    ),
}
"""Source of two tensors -> the layers that give the features, the other tensor, and both of them, by name. Sources
share none: one pass over the photos computes several of them, as one model."""


def head_input(backbone: Backbone, row: Head):
    """The tensor that the new layers read."""
    return SOURCES[row.source](backbone)


def _probabilities(backbone: Backbone, name: str = "imagenet_probabilities"):
    return keras.layers.Softmax(dtype="float32", name=name)(backbone.logits)


def _beside_features(backbone: Backbone, tensor, source: str):
    """The features and another tensor, each of length 1, or the longer one would drown the other: logits are several
    times as long as features. In float32, or a sum of squares might not fit."""
    *names, both = BESIDE_FEATURES[source]
    units = [
        keras.layers.UnitNormalization(dtype="float32", name=name)(part)
        for name, part in zip(names, (backbone.features, tensor), strict=True)
    ]
    return keras.layers.Concatenate(dtype="float32", name=both)(units)


def make_new_layers(
    row: Head, *, inputs: int, classes: int, scale: float, hidden_units: int
) -> list[keras.layers.Layer]:
    layers = []
    if row.normalization == "scaled_unit":
        layers.append(ScaledUnitNormalization(scale, name="head_normalization"))
    elif row.normalization == "batch":
        layers.append(keras.layers.BatchNormalization(name="head_normalization"))
    if hidden_units:
        # Of the kernels before and behind it: themselves, their gradients, and two momenta, in float32.
        check_memory(4 * 4 * hidden_units * (inputs + classes), setting=f"`hidden_units` {hidden_units}")
        layers.append(keras.layers.Dense(hidden_units, activation="relu", name="head_hidden"))
    # The loss wants float32 logits under every precision policy.
    return [*layers, keras.layers.Dense(classes, dtype="float32", name="head_classifier")]


def soften(kernel: np.ndarray, power: float = SOFTENING) -> np.ndarray:
    """A layer's kernel with its singular values closer to each other; with the power 1 it stays as it is:

        U diag(s) V -> U diag(s_1 (s / s_1)^power) V

    The largest value s_1 stays. A few directions of the features, those that tell ImageNet's classes apart best, make
    up most of the logits' length. Others, that new classes may need, are lost in it, unless these values are raised.

    Args:
        kernel: float [features, classes].
        power: 0, for equal values, to 1.
    """
    left, values, right = np.linalg.svd(kernel.astype(np.float64), full_matrices=False)
    softened = values[0] * (values / values[0]) ** power
    return ((left * softened) @ right).astype(kernel.dtype)


@functools.lru_cache(2)
def _softened(kernel: bytes, dtype: str, features: int) -> np.ndarray:
    """Remembered: a search and a study build a network for each of their trainings."""
    return soften(np.frombuffer(kernel, dtype).reshape(features, -1))


def _softened_layer(backbone: Backbone) -> keras.layers.Dense:
    classifier = backbone.classification_layer
    features, classes = backbone.features.shape[-1], backbone.logits.shape[-1]
    kernel = np.asarray(keras.ops.convert_to_numpy(classifier.kernel))
    layer = keras.layers.Dense(classes, use_bias=classifier.use_bias, name="imagenet_softened")
    layer.build(backbone.features.shape)
    softened = _softened(kernel.tobytes(), kernel.dtype.str, features)
    layer.set_weights([softened, *classifier.get_weights()[1:]])
    return layer


SOURCES = {
    "logits": lambda backbone: backbone.logits,
    "probabilities": _probabilities,
    "features": lambda backbone: backbone.features,
    "features_and_logits": lambda backbone: _beside_features(backbone, backbone.logits, "features_and_logits"),
    "features_and_probabilities": lambda backbone: _beside_features(
        backbone, _probabilities(backbone, "imagenet_probabilities_beside"), "features_and_probabilities"
    ),
    "softened": lambda backbone: _softened_layer(backbone)(backbone.features),
}
"""Source of a head, see `ktl.models.heads.Head` -> a function of a backbone that gives the tensor."""
