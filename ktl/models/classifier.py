"""TransferClassifier: a backbone, a normalization-and-scaling layer and a new Dense head, as one Keras model."""

import contextlib
import dataclasses
import math
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras

from ktl.arguments import check_number, checked_arguments
from ktl.errors import UserError, shown
from ktl.models.backbones import build_backbone
from ktl.models.boundaries import Boundary, find_boundaries, find_boundary
from ktl.models.flat_graph import Backbone, copy_model, flatten
from ktl.models.head_layers import head_input, make_new_layers
from ktl.models.heads import find_head
from ktl.models.new_weights import draw_weights, new_generator, quick_to_build
from ktl.models.recipe_training import RecipeTraining
from ktl.names import alike, distinct_names
from ktl.progress import warn_once


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What Keras need not track: all of it is made of the classifier's own layers."""

    new_layers: tuple[keras.layers.Layer, ...]
    boundaries: tuple[Boundary, ...]
    boundary: Boundary
    prefix: keras.Model
    suffix: keras.Model
    momenta: dict[str, float]


@keras.saving.register_keras_serializable(package="ktl")
class TransferClassifier(RecipeTraining, keras.Model):
    """A classifier of photos that keeps, or replaces, the ImageNet classification layer of its backbone.

    Pixels in 0..255 go through the backbone, preprocessing inside, and through new layers that give a logit a class.
    The layers before the freeze boundary are frozen: no training changes a bit of them, and their dropout and
    BatchNormalization are in inference mode.

        classifier = ktl.TransferClassifier("mobilenet_0.75", class_names=["cat", "dog"])
        classifier.compile()
        classifier.fit(images, labels, epochs=15)

    Args:
        backbone: a name that `ktl backbones` lists, the path of a classifier's `.keras` file, or a functional
            `keras.Model` of pixels in 0..255 (a copy of it is cut, it stays as it is). A `Backbone` of
            `ktl.build_backbone` is not copied: classifiers that are made of one share its layers and weights, and
            only the one that was made last can be trained.
        class_names: of the new classes, in the order of the logits; two or more, each of one line.
        head: what the new layers read, a name in `ktl.HEADS`.
        scale: initial Euclidean norm of what the new Dense layer reads, where the head normalises it. No unit.
        hidden_units: width of one more ReLU Dense layer before the last; 0 for none.
        freeze_depth: where freezing ends: `none`, `all`, `auto`, which the head decides, or the number or layer name of
            a boundary.
        weights: of a named backbone: `imagenet`, `random`, or the path of a weights file.
        image_size: side of the square input in pixels; the backbone's own if None.
        seed: of the new layers' initial weights, and of `random` ones, from 0, the same on each backend of Keras; None
            draws them from Keras' global seed.
        name: of the model.

    Input shape: `(batch, image_size, image_size, 3)`, RGB in 0..255, any number type.
    Output shape: `(batch, classes)`, logits in float32.

    Raises:
        UserError (a ValueError): an unknown backbone, head or boundary, fewer than two classes, a number out of range,
            weights that are missing or do not fit, or a model that cannot be copied.

    Reference:
        Shermin et al., "Enhanced Transfer Learning with ImageNet Trained Classification Layer", PSIVT 2019
        (arXiv 1903.10150).
    """

    @checked_arguments
    def __init__(
        self,
        backbone: "str | os.PathLike | keras.Model | Backbone",
        *,
        class_names: Iterable[str],
        head: str = "kept",
        scale: float = 3.0,
        hidden_units: int = 0,
        freeze_depth: int | str = "auto",
        weights: str | os.PathLike = "imagenet",
        image_size: int | None = None,
        seed: int | None = None,
        name: str = "transfer_classifier",
    ):
        class_names = distinct_names(class_names)
        for group in alike(class_names):
            if any(len(class_name) > 1 for class_name in group):  # letters are classes, as of handwriting
                warn_once(f"WARNING: the classes {' and '.join(map(repr, group))} look alike")
        for argument, value in (("hidden_units", hidden_units), ("seed", seed or 0)):
            check_number(argument, value, least=0)
        if not (scale > 0 and math.isfinite(scale)):
            raise UserError(f"Expected `scale` to be a positive number. Received: {shown(scale)}")
        row = find_head(head)

        # Layers, and the functional model of them.
        with _seeded(seed), quick_to_build():
            generator = new_generator()  # before the backbone draws, which not every one does
            base = _as_backbone(backbone, weights=os.fspath(weights), image_size=image_size)
            logits = head_input(base, row)
            sizes = {"inputs": logits.shape[-1], "classes": len(class_names), "hidden_units": hidden_units}
            new_layers = make_new_layers(row, scale=scale, **sizes)
            for layer in new_layers:
                logits = layer(logits)
        draw_weights(new_layers, generator)
        self._assemble(base.pixels, logits, new_layers, head=head, freeze_depth=freeze_depth, name=name)

        # Configuration.
        self.class_names = class_names

    def _assemble(
        self, pixels, logits, new_layers: Sequence[keras.layers.Layer], *, head, freeze_depth, name: str, momenta=None
    ) -> None:
        super().__init__(inputs=pixels, outputs=logits, name=name)
        self.head = head
        self._thaw()  # another classifier of this backbone may have frozen layers, and kernels are known by training
        first: Any = new_layers[0].input
        boundaries = find_boundaries(first)
        boundary = find_boundary(boundaries, find_head(head).depth_of(freeze_depth))
        self._parts = _cut(self, tuple(new_layers), boundaries, boundary, dict(momenta or {}))

    @property
    def image_size(self) -> int:
        """Side of the square input, pixels."""
        return self.input_shape[1]

    @property
    def boundaries(self) -> tuple[Boundary, ...]:
        """Every place where freezing can end, from the input on; `boundaries[d].depth == d`."""
        return self._parts.boundaries

    @property
    def boundary(self) -> Boundary:
        """Where freezing ends."""
        return self._parts.boundary

    @property
    def prefix(self) -> keras.Model:
        """Pixels to the boundary's tensor: the frozen layers, shared with the classifier."""
        return self._parts.prefix

    @property
    def suffix(self) -> keras.Model:
        """The boundary's tensor to logits: the layers that are trained, shared with the classifier."""
        return self._parts.suffix

    @property
    def new_layers(self) -> tuple[keras.layers.Layer, ...]:
        """The layers that are not the backbone's, in order; the last gives the logits."""
        return self._parts.new_layers

    @property
    def new_variables(self) -> list[keras.Variable]:
        """The new layers' trainable variables."""
        return [variable for layer in self.new_layers for variable in layer.trainable_variables]

    @property
    def built_momenta(self) -> dict[str, float]:
        """Name of a BatchNormalization layer that was trained -> the momentum that it was built with."""
        return self._parts.momenta

    def boundary_at(self, freeze_depth: int | str) -> Boundary:
        """The boundary that a freeze depth names, as `freeze` takes it. Raises the same."""
        return find_boundary(self.boundaries, find_head(self.head).depth_of(freeze_depth))

    @checked_arguments
    def freeze(self, freeze_depth: int | str) -> None:
        """Freezes up to another boundary. Compile again before further training, a model around this one too.

        Args:
            freeze_depth: `none`, `all`, `auto`, which the head decides, or the number or layer name of a boundary.

        Raises:
            UserError: there is no such boundary; the message lists those that exist.
        """
        boundary = self.boundary_at(freeze_depth)
        self._thaw()
        self._parts = _cut(self, self.new_layers, self.boundaries, boundary, self.built_momenta)
        self.train_function = None  # it was traced with the earlier cut, and would train what is frozen now

    def as_functional(self) -> keras.Model:
        """The same layers as a plain functional model, which opens where this class is not known."""
        return keras.Model(self.input, self.output, name=self.name)

    def _thaw(self) -> None:
        # Layer by layer: Keras takes no notice of `trainable = True` where the model itself was never frozen.
        for layer in self.layers:
            layer.trainable = True

    def call(self, inputs, training=None, mask=None):
        # Not as one graph: there the `training` argument of a call reaches all layers, and the frozen part's dropout
        # would be drawn anew in every step.
        self._hold_frozen()
        return self.suffix(self.prefix(inputs, training=False), training=training)

    @property
    def trainable(self) -> bool:
        """Whether anything is trained; only `freeze` thaws what is before the boundary."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        setter: Any = keras.Model.trainable.fset
        setter(self, value)
        self._hold_frozen()

    def _hold_frozen(self) -> None:
        """Whoever sets `trainable` from outside, of this, of a model around it or of a layer, thaws nothing."""
        parts = getattr(self, "_parts", None)  # Keras sets `trainable` before there are any
        for layer in parts.prefix.layers if parts else ():
            if layer.trainable:
                layer.trainable = False

    def save_own_variables(self, store) -> None:
        # Keras saves no state of dropout, and training would not go on with the same numbers.
        for number, state in enumerate(self._seed_states()):
            store[f"seed_{number}"] = keras.ops.convert_to_numpy(state)

    def load_own_variables(self, store) -> None:
        for number, state in enumerate(self._seed_states()):
            if f"seed_{number}" in store:
                state.assign(store[f"seed_{number}"])

    def _seed_states(self) -> list[keras.Variable]:
        weights = {id(variable) for variable in self.weights}
        return [variable for variable in self.variables if id(variable) not in weights]

    def get_config(self) -> dict[str, Any]:
        # The graph itself, so that nothing is built or fetched to open it.
        return {
            "name": self.name,
            "graph": keras.saving.serialize_keras_object(self.as_functional()),
            "new_layers": [layer.name for layer in self.new_layers],
            "class_names": list(self.class_names),
            "head": self.head,
            "freeze_depth": self.boundary.depth,
            "trainable": self.trainable,
            "built_momenta": self.built_momenta,
            "compilation": self.recipe_config(),
        }

    @classmethod
    @quick_to_build()
    def from_config(cls, config, custom_objects=None):
        graph = keras.saving.deserialize_keras_object(config["graph"], custom_objects=custom_objects)
        self = cls.__new__(cls)
        new_layers = [graph.get_layer(name) for name in config["new_layers"]]
        flags = {layer.name: layer.trainable for layer in graph.layers}
        arguments = {name: config[name] for name in ("head", "freeze_depth", "name")}
        self._assemble(graph.input, graph.output, new_layers, momenta=config["built_momenta"], **arguments)
        for layer in self.suffix.layers:  # what was frozen by hand stays so
            layer.trainable = flags.get(layer.name, True)
        self._trainable = config["trainable"]
        self.class_names = tuple(config["class_names"])
        self._recorded = config["compilation"]
        return self


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Keras draws the seeds of initializers and of dropout from Python's generator, which is put back afterwards."""
    if seed is None:
        yield
        return
    state = random.getstate()
    random.seed(int(seed))
    try:
        yield
    finally:
        random.setstate(state)


def _as_backbone(backbone, *, weights: str, image_size: int | None) -> Backbone:
    if isinstance(backbone, (Backbone, keras.Model)) and weights != "imagenet":
        raise UserError(f"Expected no `weights` with a backbone that has its own. Received: {weights}")
    if isinstance(backbone, Backbone):
        if image_size not in (None, backbone.image_size):
            raise UserError(f"Expected `image_size` {backbone.image_size}, the backbone's. Received: {image_size}")
        return backbone
    if isinstance(backbone, keras.Model):
        return flatten(copy_model(backbone), name=backbone.name, image_size=image_size)
    return build_backbone(os.fspath(backbone), weights=weights, image_size=image_size)


def _cut(classifier: TransferClassifier, new_layers, boundaries, boundary: Boundary, momenta: dict) -> _Parts:
    prefix = keras.Model(classifier.input, boundary.tensor, name="prefix")
    suffix = keras.Model(boundary.tensor, classifier.output, name="suffix")
    prefix.trainable = False
    return _Parts(new_layers, boundaries, boundary, prefix, suffix, momenta)
