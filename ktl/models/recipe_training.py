"""compile and fit of a Keras model by a recipe whose schedule needs to know the number of steps."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from ktl.models.recipe import Recipe, SmoothedCrossEntropy, batch_normalization_momentum, make_optimizer


@dataclasses.dataclass(frozen=True)
class _Compilation:
    """What `compile` was given, for a `fit` that knows the number of its steps."""

    recipe: Recipe | None = None
    new_variables: tuple[keras.Variable, ...] | None = None
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)


# What it is mixed into, for type checkers.
Model = keras.Model if TYPE_CHECKING else object


class RecipeTraining(Model):
    """Mixed into a `keras.Model`, before it, which has `suffix`, the part that is trained, and `new_variables`."""

    suffix: keras.Model
    new_variables: list[keras.Variable]
    _compilation = _Compilation()

    def compile(
        self,
        optimizer=None,
        loss=None,
        *,
        metrics=None,
        recipe: Recipe | None = None,
        new_variables: Sequence[keras.Variable] | None = None,
        **arguments,
    ) -> None:
        """As Keras' own, and what is not given is the recipe's: two learning rates with warm-up and cosine decay, a
        smoothed cross-entropy of integer labels, and the metric `top1`.

        The length of the schedule is known when `fit` is: each `fit` from epoch 0 on starts the recipe's optimizer
        anew.

        Args:
            optimizer: a Keras optimizer; None for the recipe's.
            loss: a Keras loss of logits; None for the recipe's.
            metrics: Keras metrics; None for `top1`.
            recipe: rates, decay and smoothing; `Recipe()` if None.
            new_variables: those that learn at `head_multiplier` times the learning rate; the new layers' if None.
            **arguments: others of `keras.Model.compile`.

        Raises:
            ValueError: an optimizer and a recipe.
        """
        if optimizer is not None and recipe is not None:
            raise ValueError("Expected `optimizer` or `recipe`. Received: both")
        chosen = recipe or Recipe()
        arguments["loss"] = SmoothedCrossEntropy(chosen.label_smoothing) if loss is None else loss
        arguments["metrics"] = [keras.metrics.SparseCategoricalAccuracy(name="top1")] if metrics is None else metrics
        fast = None if new_variables is None else tuple(new_variables)
        self._compilation = _Compilation(chosen if optimizer is None else None, fast, arguments)
        if optimizer is not None:
            super().compile(optimizer=optimizer, **arguments)
            return
        super().compile(optimizer=self._make_optimizer(1, 1), **arguments)
        self.optimizer.build(self.trainable_variables)  # so that it is in a file that is saved before training

    def start_schedule(self, *, epochs: int, steps_per_epoch: int) -> None:
        """Compiles the recipe anew for a training of that length, which starts at its first step. `fit` does it.

        Args:
            epochs: after which the learning rate is 0.
            steps_per_epoch: optimizer steps an epoch.

        Raises:
            ValueError: the classifier was compiled with an optimizer, or not at all.
        """
        if self._compilation.recipe is None:
            raise ValueError("Expected a classifier that was compiled with a recipe. Call compile() without optimizer")
        for layer in self.suffix.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = batch_normalization_momentum(layer.momentum, steps_per_epoch)
        super().compile(optimizer=self._make_optimizer(epochs, steps_per_epoch), **self._compilation.arguments)
        # In this order, also where the suffix alone is trained: a saved optimizer's state has no names.
        self.optimizer.build(self.trainable_variables)

    def _make_optimizer(self, epochs: int, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        compilation = self._compilation
        assert compilation.recipe is not None
        new = self.new_variables if compilation.new_variables is None else compilation.new_variables
        ids = {id(variable) for variable in new}
        return make_optimizer(
            compilation.recipe,
            new_variables=new,
            pretrained_variables=[variable for variable in self.trainable_variables if id(variable) not in ids],
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
        )

    def fit(self, x=None, y=None, batch_size=None, epochs=1, **arguments):
        """As Keras' own, on pixels in 0..255 and integer labels.

        Args:
            x: pixels, [photos, image_size, image_size, 3], or batches of (pixels, labels): tf.data, a PyDataset, ...
            y: int labels, [photos], where `x` is pixels alone.
            batch_size: photos a step, where `x` is pixels; 32 if None.
            epochs: where training ends.
            **arguments: others of `keras.Model.fit`.

        Raises:
            ValueError: with a recipe, batches of unknown number and no `steps_per_epoch`.
        """
        if self._compilation.recipe is not None and not arguments.get("initial_epoch"):
            steps = arguments.get("steps_per_epoch") or _steps_per_epoch(
                x, y, batch_size or 32, arguments.get("validation_split", 0.0)
            )
            self.start_schedule(epochs=epochs, steps_per_epoch=steps)
        return super().fit(x, y, batch_size=batch_size, epochs=epochs, **arguments)

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        recipe = self._compilation.recipe
        return {**config, "recipe": dataclasses.asdict(recipe)} if config and recipe else config

    def compile_from_config(self, config) -> None:
        config = keras.saving.deserialize_keras_object(config)
        recipe, optimizer = config.pop("recipe", None), config.pop("optimizer")
        self._compilation = _Compilation(recipe and Recipe(**recipe), None, config)
        super().compile(optimizer=optimizer, **config)
        self.optimizer.build(self.trainable_variables)


def _steps_per_epoch(x, y, batch_size: int, validation_split: float) -> int:
    if y is not None:
        return math.ceil(math.floor(len(x) * (1 - validation_split)) / batch_size)
    try:
        return len(x)
    except TypeError as error:
        raise ValueError("Expected `steps_per_epoch` for batches of unknown number. Received: none") from error
