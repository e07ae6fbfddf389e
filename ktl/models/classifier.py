"""A backbone, a normalization-and-scaling layer and a new Dense head, cut in two where freezing ends."""

import dataclasses

import keras

from ktl.errors import UserError
from ktl.models.backbones import Backbone
from ktl.models.boundaries import Boundary, find_boundaries, find_boundary
from ktl.models.heads import Head, find_head
from ktl.models.layers import ScaledUnitNormalization

HEAD_PREFIX = "head_"


class CutModel(keras.Model):
    """A frozen prefix in inference mode, then a suffix in the mode of the call.

    A functional model would not do: the `training` argument of its call replaces the `training=False` that its graph
    recorded, and the frozen part's dropout would be drawn anew in every step.
    """

    def __init__(self, prefix: keras.Model, suffix: keras.Model):
        super().__init__(name="network")
        self.prefix = prefix
        self.suffix = suffix
        self.build(prefix.input_shape)

    def build(self, input_shape):
        self.built = True

    def call(self, pixels, training=None):
        return self.suffix(self.prefix(pixels, training=False), training=training)


@dataclasses.dataclass(frozen=True)
class Network:
    """A classifier of photos, uncut and cut, always of the very same layer objects.

    Attributes:
        graph: pixels in 0..255, [batch, image_size, image_size, 3], to logits [batch, classes], as one flat functional
            model: what is saved.
        prefix: pixels to the boundary's tensor: frozen.
        suffix: the boundary's tensor to logits: all that is trained.
        model: suffix after prefix: what is trained and evaluated.
        boundary: where the two meet.
        boundaries: every place where they could.
    """

    graph: keras.Model
    prefix: keras.Model
    suffix: keras.Model
    model: "CutModel"
    boundary: Boundary
    boundaries: tuple[Boundary, ...]

    @property
    def head_variables(self) -> list:
        """The new layers' trainable variables."""
        return [
            variable
            for layer in self.suffix.layers
            if layer.name.startswith(HEAD_PREFIX)
            for variable in layer.trainable_variables
        ]


def build_network(
    backbone: Backbone,
    *,
    classes: int,
    head: str = "kept",
    scale: float = 3.0,
    hidden_units: int = 0,
    freeze_depth: int | str = "none",
) -> Network:
    """Joins a new head to a backbone.

    Args:
        backbone: from `ktl.models.backbones.build_backbone`; an earlier network of it must not be trained any more.
        classes: number of the new classes.
        head: a name in `ktl.models.heads.HEADS`.
        scale: initial norm of what `scaled_unit` heads feed to the Dense layers; other heads have none.
        hidden_units: width of one more ReLU Dense layer before the last; 0 for none.
        freeze_depth: see `ktl.models.boundaries.find_boundary`.

    Returns:
        The network, cut and frozen at `freeze_depth`.

    Raises:
        UserError: unknown head or boundary, or a number out of range.
    """
    for name, value, least in (("classes", classes, 2), ("hidden_units", hidden_units, 0)):
        if value < least:
            raise UserError(f"Expected {name} to be at least {least}. Received: {value}")
    if scale <= 0:
        raise UserError(f"Expected scale to be positive. Received: {scale}")
    row = find_head(head)
    source = _source(backbone, row)
    logits = _new_layers(source, row, classes=classes, scale=scale, hidden_units=hidden_units)
    graph = keras.Model(backbone.pixels, logits)
    _thaw(graph)  # another network of this backbone may have frozen layers, and kernels are known by being trained
    boundaries = find_boundaries(source)
    return _cut(graph, boundaries, find_boundary(boundaries, freeze_depth))


def freeze(network: Network, freeze_depth: int | str) -> Network:
    """The same network, of the same layer objects, frozen up to another boundary.

    Args:
        network: from `build_network`; its models must not be used any more, since layers are shared.
        freeze_depth: see `ktl.models.boundaries.find_boundary`.

    Raises:
        UserError: there is no such boundary.
    """
    return _cut(network.graph, network.boundaries, find_boundary(network.boundaries, freeze_depth))


def _source(backbone: Backbone, row: Head):
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


def _new_layers(x, row: Head, *, classes: int, scale: float, hidden_units: int):
    if row.normalization == "scaled_unit":
        x = ScaledUnitNormalization(scale, name=f"{HEAD_PREFIX}normalization")(x)
    elif row.normalization == "batch":
        x = keras.layers.BatchNormalization(name=f"{HEAD_PREFIX}normalization")(x)
    if hidden_units:
        x = keras.layers.Dense(hidden_units, activation="relu", name=f"{HEAD_PREFIX}hidden")(x)
    # The loss wants float32 logits under every precision policy.
    return keras.layers.Dense(classes, dtype="float32", name=f"{HEAD_PREFIX}classifier")(x)


def _cut(graph: keras.Model, boundaries, boundary: Boundary) -> Network:
    _thaw(graph)
    prefix = keras.Model(graph.input, boundary.tensor, name="prefix")
    prefix.trainable = False
    suffix = keras.Model(boundary.tensor, graph.output, name="suffix")
    return Network(graph, prefix, suffix, CutModel(prefix, suffix), boundary, boundaries)


def _thaw(graph: keras.Model) -> None:
    # Layer by layer: Keras takes no notice of `graph.trainable = True` where the graph itself was never frozen.
    for layer in graph.layers:
        layer.trainable = True
