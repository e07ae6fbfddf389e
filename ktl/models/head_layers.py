"""The layers behind a backbone: what a head reads, and the new layers that read it."""

import keras

from ktl.models.flat_graph import Backbone
from ktl.models.heads import Head
from ktl.models.layers import ScaledUnitNormalization


def head_input(backbone: Backbone, row: Head):
    """The tensor that the new layers read."""
    if row.source == "probabilities":
        return keras.layers.Softmax(dtype="float32", name="imagenet_probabilities")(backbone.logits)
    if row.source == "both":
        # Of one length, or the logits' norm, several times that of the features, would drown these. In float32, or a
        # sum of squares might not fit.
        parts = {"imagenet_features": backbone.features, "imagenet_logits": backbone.logits}
        units = [
            keras.layers.UnitNormalization(dtype="float32", name=f"{name}_unit")(tensor)
            for name, tensor in parts.items()
        ]
        return keras.layers.Concatenate(dtype="float32", name="imagenet_both")(units)
    return {"logits": backbone.logits, "features": backbone.features}[row.source]


def make_new_layers(row: Head, *, classes: int, scale: float, hidden_units: int) -> list[keras.layers.Layer]:
    layers = []
    if row.normalization == "scaled_unit":
        layers.append(ScaledUnitNormalization(scale, name="head_normalization"))
    elif row.normalization == "batch":
        layers.append(keras.layers.BatchNormalization(name="head_normalization"))
    if hidden_units:
        layers.append(keras.layers.Dense(hidden_units, activation="relu", name="head_hidden"))
    # The loss wants float32 logits under every precision policy.
    return [*layers, keras.layers.Dense(classes, dtype="float32", name="head_classifier")]
