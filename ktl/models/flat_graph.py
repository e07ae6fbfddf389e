"""A classifier as one flat graph of Keras layers, so that it can be cut anywhere, and how models become one.

The layers of nested models become part of the one graph; the softmax at its end is taken away.
"""

import dataclasses
import math
import re
from typing import Any

import keras
import numpy as np

import ktl.models.layers  # noqa: F401  Keras finds the layers of a file by their registered names
from ktl.errors import UserError, reason_of
from ktl.models import own_network
from ktl.models.keras_graph import (
    forget_other_uses,
    has_kernel,
    has_made_up_name,
    kind,
    node_of,
    topological_nodes,
)

RESERVED_NAMES = frozenset(
    {
        "features",
        "imagenet_probabilities",
        "imagenet_features_unit",
        "imagenet_logits_unit",
        "imagenet_probabilities_beside",
        "imagenet_probabilities_unit",
        "imagenet_features_beside_unit",
        "imagenet_features_and_probabilities",
        "imagenet_both",
        "imagenet_softened",
        "head_normalization",
        "head_hidden",
        "head_classifier",
    }
)
"""Of layers that a transfer classifier puts behind a backbone. One that is itself such a classifier has them too."""

PREVIOUS = "previous_"
"""What stands before the name of a backbone's layer that was reserved, or that another layer has."""

NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.\\/>-]")
"""Signs that TensorFlow takes in no name; in those of layers each becomes `_`."""


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A classifier as one flat graph of Keras operations.

    Attributes:
        name: a name in BACKBONES, the path of a `.keras` file, or the name of a model.
        image_size: side of the input in pixels.
        pixels: input tensor, float32 [batch, image_size, image_size, 3], RGB in 0..255.
        features: what the classification layer reads, flattened: [batch, channels].
        logits: what it gives before any softmax: [batch, ImageNet classes].
    """

    name: str
    image_size: int
    pixels: keras.KerasTensor
    features: keras.KerasTensor
    logits: keras.KerasTensor

    @property
    def model(self) -> keras.Model:
        """Pixels to logits."""
        return keras.Model(self.pixels, self.logits, name="backbone")

    @property
    def classification_layer(self) -> keras.layers.Layer:
        """The layer from `features` to `logits`: Dense, or a 1x1 convolution."""
        # By graph, not by type: MobileNet classifies with a 1x1 convolution, a Reshape behind it.
        return [node.operation for node in topological_nodes(self.logits) if has_kernel(node.operation)][-1]


def as_backbone(name: str, pixels, logits) -> Backbone:
    """A flat graph as a backbone. Its layers get names that are the same in every process.

    Args:
        name: of the backbone.
        pixels: the graph's input tensor.
        logits: its output tensor.
    """
    nodes = topological_nodes(logits)
    _number_operations([node.operation for node in nodes])
    classifier = [node for node in nodes if has_kernel(node.operation)][-1]
    features = classifier.input_tensors[0]
    if len(features.shape) > 2:  # of a convolution; where its results are pooled, so is what it reads
        pooled = math.prod(classifier.outputs[0].shape[1:]) > logits.shape[-1]
        features = (keras.layers.GlobalAveragePooling2D if pooled else keras.layers.Flatten)(name="features")(features)
    return Backbone(name=name, image_size=pixels.shape[1], pixels=pixels, features=features, logits=logits)


def flatten(model: keras.Model, *, name: str, image_size: int | None = None) -> Backbone:
    """A classifier as a backbone, of the model's own layers: the model must not be used any more.

    Args:
        model: pixels in 0..255, [batch, height, width, 3], to [batch, classes].
        name: what errors call it.
        image_size: side of the input in pixels; the model's own, or 224, if None.

    Raises:
        UserError: the model is no such functional model, or was built for another image size.
    """
    model = model.as_functional() if hasattr(model, "as_functional") else model
    inputs, outputs = ([tensor.shape for tensor in getattr(model, side, None) or ()] for side in ("inputs", "outputs"))
    if [(len(shape), shape[-1]) for shape in inputs] != [(4, 3)] or [len(shape) for shape in outputs] != [2]:
        raise UserError(
            f"Expected {name} to be a functional classifier, [batch, height, width, 3] to [batch, classes]. "
            f"Received: {inputs or 'no graph'} to {outputs or 'no graph'}"
        )
    height, width = inputs[0][1:3]
    size = image_size or height or width or 224
    if height not in (None, size) or width not in (None, size):
        raise UserError(f"Expected the image size that {name} was built for, {height} x {width}. Received: {size}")
    pixels = keras.Input((size, size, 3), dtype="float32", name="pixels")
    with own_network.foreign_errors_told(name, size):
        (output,) = _flat_call(model, [pixels])
    own_network.check_end(output, name=name)
    with own_network.foreign_errors_told(name, size):
        pixels, logits = _as_layers_are_here(pixels, _before_softmax(output))
    own_network.check_answers(pixels, logits, name=name)
    forget_other_uses(logits)
    return as_backbone(name, pixels, logits)


def copy_model(model: keras.Model) -> keras.Model:
    """A copy of a functional model: other layers, the same weights.

    Raises:
        UserError: the model is not functional, has a `call` of its own, has layers that cannot be made again from
            their configuration, or gives other outputs when it is.
    """
    name = model.name
    source = model.as_functional() if hasattr(model, "as_functional") else model
    if not getattr(source, "inputs", None) or not _is_plain(source):
        raise UserError(f"Expected a functional model, which can be copied and cut. Received: {name}, a subclassed one")
    try:
        copied = keras.models.clone_model(source)
        _copy_weights(source, copied)
    except Exception as error:  # a user's own layers may raise anything
        reason = reason_of(error)
        raise UserError(f"Expected a model whose layers can be copied. Received: {name} ({reason})") from error
    shapes = [[1, *(side or 224 for side in tensor.shape[1:])] for tensor in source.inputs]
    noise = [np.random.default_rng(0).uniform(0, 255, shape).astype("float32") for shape in shapes]
    inputs = noise if len(noise) > 1 else noise[0]
    given, received = (keras.tree.flatten(model(inputs, training=False)) for model in (source, copied))
    if not all(map(_alike, given, received)):
        raise UserError(f"Expected a model whose copy gives the same. Received: {name}, whose copy gives other outputs")
    return copied


def _copy_weights(source: keras.Model, copied: keras.Model) -> None:
    copied.set_weights(source.get_weights())
    for layer in _all_layers(copied):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # set_weights changes the mean and variance, not the copies it computes with


def _alike(given, received) -> bool:
    given, received = (np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in (given, received))
    return np.allclose(given, received, rtol=1e-3, atol=1e-4, equal_nan=True)  # `own_network` tells of NaN


def _is_plain(model: keras.Model) -> bool:
    """Whether the model computes what its graph says: no class of the user's has a `call` of its own."""
    if isinstance(model, keras.Sequential):
        return type(model) is keras.Sequential
    tensor = keras.Input((1,))
    return type(model).call is type(keras.Model(tensor, tensor)).call


def _all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The model's layers, those of nested models too."""
    found = []
    for layer in model.layers:
        found += _all_layers(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def _flat_call(model, tensors: list) -> list:
    """Calls a functional model layer by layer, those of nested models too, on symbolic tensors."""
    values = dict(zip(map(id, model.inputs), tensors, strict=True))
    for output in model.outputs:
        for node in topological_nodes(output):
            if id(node.outputs[0]) in values:
                continue
            operation = node.operation
            if isinstance(operation, keras.Layer) and not _has_other_floats(operation):
                operation.dtype_policy = keras.config.dtype_policy()  # not the one that the file was saved under
            arguments, keywords = node.arguments.fill_in(values)
            if isinstance(operation, keras.Model) and hasattr(operation, "outputs"):
                operation = operation.as_functional() if hasattr(operation, "as_functional") else operation
                if not _is_plain(operation):
                    raise UserError(f"Expected nested models without a `call` of their own. Received: {operation.name}")
                parts = keras.tree.flatten((arguments, keywords))
                results = _flat_call(operation, [part for part in parts if isinstance(part, keras.KerasTensor)])
            else:
                # One by one: Keras takes no notice of `model.trainable = True` where the model itself is not frozen.
                operation.trainable = True
                results = keras.tree.flatten(operation(*arguments, **keywords))
            values.update(zip(map(id, node.outputs), results, strict=True))
    return [values[id(output)] for output in model.outputs]


_ENDS = (keras.activations.softmax, keras.activations.log_softmax, keras.activations.sigmoid)


def _before_softmax(output):
    """Takes the final softmax or sigmoid away, be it a layer, an operation or an `activation` argument."""
    node = node_of(output)
    if kind(node.operation) in ("softmax", "log_softmax", "sigmoid"):
        return node.input_tensors[0]
    while not has_kernel(node.operation) and len(node.input_tensors) == 1 and not _ends_in_softmax(node.operation):
        node = node_of(node.input_tensors[0])  # a Reshape, an Activation("linear")
    if _ends_in_softmax(node.operation):
        node.operation.activation = keras.activations.linear
    return output


def _ends_in_softmax(operation) -> bool:
    return getattr(operation, "activation", None) in _ENDS


def _as_layers_are_here(pixels, logits) -> tuple:
    """The graph's input and output; of a copy where a layer has a name that it cannot keep, or weights of another type.

    A copy, because variables keep the path and the type that they were made with.
    """
    operations = [node.operation for node in topological_nodes(logits)]
    _number_operations(operations)
    names = _names_here([operation.name for operation in operations])
    if all(old == new for old, new in names.items()) and not any(map(_has_other_floats, operations)):
        return pixels, logits

    def made_again(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        config = _under_own_policy(config) if _has_other_floats(layer) else config
        return layer.__class__.from_config({**config, "name": names[layer.name]})

    graph = keras.Model(pixels, logits)
    copied = keras.models.clone_model(graph, clone_function=made_again)
    _copy_weights(graph, copied)
    return copied.input, copied.output


def _names_here(names: list[str]) -> dict[str, str]:
    """Name -> what the layer is called here."""
    found, taken = {}, set(names)
    for name in dict.fromkeys(names):
        new = NOT_IN_NAMES.sub("_", name)
        while new in RESERVED_NAMES or (new != name and new in taken):
            new = PREVIOUS + new
        found[name] = new
        taken.add(new)
    return found


def _has_other_floats(operation) -> bool:
    """Whether a layer has weights of another type than those that are trained here, such as float16."""
    own = keras.config.dtype_policy().variable_dtype
    return any("float" in weight.dtype and weight.dtype != own for weight in getattr(operation, "weights", ()))


def _under_own_policy(config: Any) -> Any:
    """A layer's configuration, for itself and the layers in it, with numbers of the type that is trained here."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return keras.config.dtype_policy().name
        return {name: _under_own_policy(value) for name, value in config.items()}
    return [_under_own_policy(value) for value in config] if isinstance(config, list) else config


def _number_operations(operations) -> None:
    """Renames what Keras named by a process-wide counter (`conv2d_94`) and what nested models named twice.

    Names are stable from process to process, and each is there once.
    """
    operations = list({id(operation): operation for operation in operations}.values())
    taken, counts = set(), {}
    for operation in sorted(operations, key=has_made_up_name):  # given names first: they stay if they can
        base, made_up = (kind(operation), True) if has_made_up_name(operation) else (operation.name, False)
        name = base
        while made_up or name in taken:
            counts[base] = counts.get(base, 0 if made_up else 1) + 1
            name, made_up = f"{base}_{counts[base]}", False
        operation.name = name
        taken.add(name)
