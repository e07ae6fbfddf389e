"""compile and fit of a Keras model by a recipe whose schedule needs to know the number of steps."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from ktl.arguments import check_number, checked_arguments
from ktl.errors import UserError
from ktl.models.recipe import Recipe, SmoothedCrossEntropy, batch_normalization_momentum, make_optimizer
from ktl.models.recipe_metrics import make_metrics
from ktl.progress import warn_once

UNKNOWN = "Expected `steps_per_epoch` for batches of unknown number. Received: none"


@dataclasses.dataclass(frozen=True)
class _Compilation:
    """What `compile` was given, for a `fit` that knows the number of its steps."""

    recipe: Recipe | None = None
    new_variables: tuple[keras.Variable, ...] | None = None
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)


# What it is mixed into, for type checkers.
Model = keras.Model if TYPE_CHECKING else object


class RecipeTraining(Model):
    """Mixed into a `keras.Model`, before it, which has the attributes below."""

    suffix: keras.Model
    new_variables: list[keras.Variable]
    built_momenta: dict[str, float]
    """Name of a BatchNormalization layer -> the momentum that it was built with."""
    _compilation = _Compilation()
    _recorded: dict[str, Any] | None = None
    """What a file says of it, until Keras compiles the model that it opens."""

    def _hold_frozen(self) -> None:
        """Freezes what is never trained, whatever has thawed it."""

    @checked_arguments
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
        smoothed cross-entropy of integer labels, and the metrics `top1` and `log_loss`.

        The length of the schedule is known when `fit` is called: each `fit` from epoch 0 on starts the recipe's
        optimizer anew. Until then, and for training loops of your own, the rates stay at their peaks.

        Args:
            optimizer: a Keras optimizer; None for the recipe's.
            loss: a Keras loss of logits; None for the recipe's.
            metrics: Keras metrics. None: with the recipe's loss those of `ktl.models.recipe_metrics.make_metrics`,
                with another loss none.
            recipe: rates, decay and smoothing; `Recipe()` if None.
            new_variables: those that learn at `head_multiplier` times the learning rate; the new layers' if None.
            **arguments: others of `keras.Model.compile`.

        Raises:
            ValueError: an optimizer and a recipe, or what is no recipe.
        """
        self._hold_frozen()
        if optimizer is not None and recipe is not None:
            raise ValueError("Expected `optimizer` or `recipe`. Received: both")
        chosen = recipe or Recipe()
        if loss is None:
            loss = SmoothedCrossEntropy(chosen.label_smoothing)
            metrics = make_metrics(classes=self.output_shape[-1]) if metrics is None else metrics
        arguments |= {"loss": loss, "metrics": metrics}
        fast = None if new_variables is None else tuple(new_variables)
        self._compilation = _Compilation(chosen if optimizer is None else None, fast, arguments)
        super().compile(optimizer=self._make_optimizer() if optimizer is None else optimizer, **arguments)

    def start_schedule(self, *, epochs: int, steps_per_epoch: int) -> None:
        """Compiles the recipe anew for a training of that length, which starts at its first step. `fit` does it.

        Args:
            epochs: after which the learning rate is 0.
            steps_per_epoch: optimizer steps an epoch.

        Raises:
            ValueError: the classifier was compiled with an optimizer, or not at all.
        """
        self._hold_frozen()
        if self._compilation.recipe is None:
            raise ValueError("Expected a classifier that was compiled with a recipe. Call compile() without optimizer")
        for layer in self.suffix.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                built = self.built_momenta.setdefault(layer.name, layer.momentum)
                layer.momentum = batch_normalization_momentum(built, steps_per_epoch)
        optimizer = self._make_optimizer(epochs=epochs, steps_per_epoch=steps_per_epoch)
        super().compile(optimizer=optimizer, **self._compilation.arguments)
        # In this order, also where the suffix alone is trained: a saved optimizer's state has no names.
        self.optimizer.build(self.trainable_variables)

    def _make_optimizer(self, **length: int) -> keras.optimizers.Optimizer:
        compilation = self._compilation
        assert compilation.recipe is not None
        new = self.new_variables if compilation.new_variables is None else compilation.new_variables
        ids = {id(variable) for variable in new}
        return make_optimizer(
            compilation.recipe,
            new_variables=new,
            pretrained_variables=[variable for variable in self.trainable_variables if id(variable) not in ids],
            **length,
        )

    def fit(self, x=None, y=None, batch_size=None, epochs=1, **arguments):
        """As Keras' own, on pixels in 0..255 and integer labels.

        Args:
            x: pixels, [photos, image_size, image_size, 3], or batches of (pixels, labels): tf.data, a PyDataset, ...
            y: int labels, [photos] or [photos, 1], where `x` is pixels alone; others where the loss is your own.
            batch_size: photos a step, where `x` is pixels; 32 if None.
            epochs: where training ends.
            **arguments: others of `keras.Model.fit`.

        Raises:
            ValueError: with the recipe's loss, labels that are no classes; with its optimizer, nothing to train on,
                batches of unknown number and no `steps_per_epoch`, a callback that sets the learning rate, or epochs
                after the end of the schedule that an earlier `fit` began.
        """
        y = np.asarray(y) if isinstance(y, list | tuple) else y
        _tell_of_small_pixels(x)
        if isinstance(self.loss, SmoothedCrossEntropy):
            for labels in (y, _labels_of(arguments.get("validation_data"))):
                if labels is not None:
                    _check_labels(labels, classes=self.output_shape[-1])
        if isinstance(weights := arguments.get("class_weight"), Mapping):
            # Of batches Keras wants one for each label.
            arguments["class_weight"] = {**dict.fromkeys(range(self.output_shape[-1]), 1.0), **weights}
        if self._compilation.recipe is not None:
            check_number("epochs", epochs, least=1)
            check_callbacks(keras.tree.flatten(arguments.get("callbacks")))
            split = arguments.get("validation_split", 0.0)
            steps = arguments.get("steps_per_epoch") or _steps_per_epoch(x, y, batch_size or 32, split)
            if not arguments.get("initial_epoch") or not int(self.optimizer.iterations):
                self.start_schedule(epochs=epochs, steps_per_epoch=steps)
            elif (total := _scheduled_steps(self.optimizer)) < epochs * steps:
                raise ValueError(
                    f"Expected `epochs` up to {total // steps}, where the learning rate that began with epoch 0 ends. "
                    f"Received: epochs={epochs}. initial_epoch=0 begins anew"
                )
        return super().fit(x, y, batch_size=batch_size, epochs=epochs, **arguments)

    def recipe_config(self) -> dict[str, Any] | None:
        """What a file needs of `compile`, beside what Keras writes; None without a recipe."""
        compilation = self._compilation
        if compilation.recipe is None:
            return None
        paths = None if compilation.new_variables is None else [v.path for v in compilation.new_variables]
        recipe = dataclasses.asdict(compilation.recipe)
        return {"recipe": recipe, "new_variables": paths, "trained": self.optimizer.built}

    def compile_from_config(self, config) -> None:
        config = keras.saving.deserialize_keras_object(config)
        optimizer, recorded = config.pop("optimizer"), self._recorded or {}
        recipe, paths = recorded.get("recipe"), recorded.get("new_variables")
        chosen = None if paths is None else tuple(v for v in self.variables if v.path in paths)
        self._compilation = _Compilation(recipe and Recipe(**recipe), chosen, config)
        super().compile(optimizer=optimizer, **config)
        if recorded.get("trained", True):
            self.optimizer.build(self.trainable_variables)


def check_callbacks(callbacks: Iterable) -> None:
    """Raises UserError for a callback that sets the learning rate: Keras would say so when it first does, maybe after
    hours."""
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.LearningRateScheduler | keras.callbacks.ReduceLROnPlateau):
            raise UserError(
                "Expected no callback that sets the learning rate, for which the recipe has a schedule. Received: "
                f'{type(callback).__name__}. `classifier.compile("adam")` and `classifier.fit` take it'
            )


def _tell_of_small_pixels(x) -> None:
    """Pixels that were divided by 255 look all black to a network; where `x` is batches, they are not known yet."""
    if len(getattr(x, "shape", ())) == 4 and "float" in keras.backend.standardize_dtype(x.dtype) and x.shape[0]:
        largest = np.max(np.asarray(keras.ops.convert_to_numpy(x[:32])))
        if largest <= 1:
            warn_once(f"WARNING: pixels are up to {largest:g}, where 0..255 are expected: what rescales them is inside")


def _labels_of(validation_data):
    """The labels of a pair or triple of arrays; None of batches."""
    return validation_data[1] if isinstance(validation_data, list | tuple) and len(validation_data) > 1 else None


def _check_labels(labels, *, classes: int) -> None:
    """One-hot encoding gives nothing to a label that is no class, which would then be learned as none."""
    values = np.asarray(labels)
    whole = values.dtype.kind in "iu" and (values.ndim == 1 or values.shape[1:] == (1,))
    if not whole or (values.size and not 0 <= values.min() <= values.max() < classes):
        received = f"{values.min()} to {values.max()}" if whole else f"{values.dtype} of shape {values.shape}"
        raise ValueError(f"Expected whole labels [photos] from 0 to {classes - 1}. Received: {received}")


def _scheduled_steps(optimizer) -> float:
    """Optimizer steps after which the recipe's learning rate is 0; infinity where it stays as it is."""
    schedule = getattr(optimizer, "inner_optimizer", optimizer).new.get_config()["learning_rate"]
    return schedule["config"]["total_steps"] if isinstance(schedule, dict) else math.inf


def _steps_per_epoch(x, y, batch_size: int, validation_split: float) -> int:
    """As Keras counts them. Of photos it is the labels that are counted: these may be in a list or a dict."""
    if y is not None:
        steps = math.ceil(math.floor(len(y) * (1 - validation_split)) / batch_size)
    else:
        try:
            steps = x.num_batches if isinstance(x, keras.utils.PyDataset) else len(x)
        except (TypeError, NotImplementedError) as error:
            raise ValueError(UNKNOWN) from error
        if steps is None:  # of a PyDataset without end
            raise ValueError(UNKNOWN)
    if not steps:
        raise ValueError("Expected photos to train on. Received: none")
    return steps
