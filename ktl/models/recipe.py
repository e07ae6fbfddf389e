"""The recipe: loss, two learning rates and their schedule, as pure functions and classes that Keras can save."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ktl.arguments import check_fields, check_number
from ktl.errors import UserError, unknown_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a classifier is trained; its defaults are those of `ktl run`.

    Attributes:
        optimizer: `adamw`, or `sgd` with momentum 0.9.
        learning_rate: the peak learning rate of the pre-trained layers.
        head_multiplier: the new layers' learning rate, as a multiple of the pre-trained layers'.
        warmup_epochs: epochs of linear warm-up before the cosine decay.
        weight_decay: share of each kernel that decay alone takes away over the whole training, 0 to 1, whatever the
            optimizer, the rates and the number of steps; norms and biases have none. See `decay_coefficient`.
        label_smoothing: share of each label that is spread over all classes, 0 to 1.

    Raises:
        UserError (a ValueError): an unknown optimizer, or a number of another type or outside of its limits.

    Example:
        >>> ktl.fit(classifier, dataset, recipe=ktl.Recipe(optimizer="sgd", learning_rate=0.01))
        >>> classifier.compile(recipe=ktl.Recipe(label_smoothing=0.1))
    """

    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    head_multiplier: float = 10.0
    warmup_epochs: float = 1.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self):
        check_fields(self)
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("`optimizer`", self.optimizer, OPTIMIZERS)
        for name in ("learning_rate", "head_multiplier", "warmup_epochs"):
            check_number(name, getattr(self, name), least=0)
        for name in ("weight_decay", "label_smoothing"):
            check_number(name, getattr(self, name), least=0, below=1)


MOMENTUM = 0.9
"""Of `sgd`."""

OPTIMIZERS = {
    # The same numbers as keras.optimizers.AdamW, which would multiply every kernel also where there is no decay.
    "adamw": lambda rate, decay: keras.optimizers.Adam(rate, weight_decay=decay or None),
    "sgd": lambda rate, decay: keras.optimizers.SGD(rate, momentum=MOMENTUM, weight_decay=decay or None),
}
"""Name -> builder from a learning rate or its schedule, and a coefficient of decoupled weight decay."""


def make_optimizer(
    recipe: Recipe,
    *,
    new_variables: Sequence[keras.Variable],
    pretrained_variables: Sequence[keras.Variable],
    epochs: int | None = None,
    steps_per_epoch: int = 1,
) -> "TwoRates":
    """The optimizer of a training of that length, built on the variables that it trains.

    Args:
        recipe: optimizer, rates and warm-up.
        new_variables: learn at `head_multiplier` times the learning rate.
        pretrained_variables: all others that are trained.
        epochs: after which the learning rate is 0; None for rates that stay at their peaks.
        steps_per_epoch: optimizer steps an epoch.

    Raises:
        UserError (a ValueError): a new variable has the path of a pre-trained one, so that a saved optimizer could not
            tell them apart.
    """
    paths = [variable.path for variable in new_variables]
    shared = sorted(set(paths) & {variable.path for variable in pretrained_variables})
    if shared or len(set(paths)) < len(paths):
        raise UserError(f"Expected new variables with paths of their own. Received: {', '.join(shared or paths)}")

    def single(peak: float) -> keras.optimizers.Optimizer:
        if epochs is None:  # how much of the decay a step has to do is not known yet
            return OPTIMIZERS[recipe.optimizer](peak, 0.0)
        schedule = WarmupCosine.of(recipe, peak, epochs=epochs, steps_per_epoch=steps_per_epoch)
        return OPTIMIZERS[recipe.optimizer](schedule, decay_coefficient(recipe.weight_decay, schedule.rates))

    return TwoRates(
        new=single(recipe.learning_rate * recipe.head_multiplier),
        pretrained=single(recipe.learning_rate),
        new_paths=paths,
    )


def decay_coefficient(weight_decay: float, rates: np.ndarray) -> float:
    """The coefficient c of a decoupled decay, kernel -= c * rate * kernel, that takes a share away in a training:

        product over the steps of (1 - c * rate) = 1 - weight_decay

    For small steps it is -log(1 - weight_decay) / sum(rates). A coefficient as papers give it has no such meaning: with
    1e-4 and rates of 1e-2 at most, 330 steps leave 0.99984 of a kernel.

    Args:
        weight_decay: the share, from 0 to below 1.
        rates: of every step, [steps].

    Returns:
        c; 0 where all rates are 0, which leave nothing to multiply.

    Reference:
        Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """
    peak = float(rates.max())
    if not weight_decay or not peak:
        return 0.0
    low, high = 0.0, 1 / peak
    for _ in range(50):  # halves the interval; the product falls from 1 to 0 in it
        middle = (low + high) / 2
        left = float(np.log1p(-middle * rates).sum())
        low, high = (middle, high) if left > math.log1p(-weight_decay) else (low, middle)
    return low


@keras.saving.register_keras_serializable(package="ktl")
class TwoRates(keras.optimizers.MultiOptimizer):
    """One optimizer for the new layers and one for the pre-trained layers. Vectors and scalars, which norms and biases
    are, have no weight decay.

    Args:
        new: the new layers' optimizer.
        pretrained: the optimizer of all other variables.
        new_paths: exact paths of the new layers' variables.
    """

    def __init__(
        self,
        new: keras.optimizers.Optimizer,
        pretrained: keras.optimizers.Optimizer,
        new_paths: Sequence[str],
        name: str = "two_rates",
        loss_scale_factor: float | None = None,
    ):
        # One pattern of exact paths: Keras saves an optimizer for each key of the map.
        pattern = "|".join(map(re.escape, new_paths))
        routes = keras.optimizers.OptimizerMap(pretrained, {pattern: new} if pattern else {})
        super().__init__(routes, loss_scale_factor=loss_scale_factor, name=name)
        self.new, self.pretrained, self.new_paths = new, pretrained, list(new_paths)

    def build(self, variables):
        if not self.built:
            undecayed = [variable for variable in variables if len(variable.shape) < 2]
            for optimizer in (self.new, self.pretrained):
                optimizer.exclude_from_weight_decay(var_list=undecayed)
        super().build(variables)

    def get_config(self) -> dict[str, Any]:
        return {
            "new": keras.saving.serialize_keras_object(self.new),
            "pretrained": keras.saving.serialize_keras_object(self.pretrained),
            "new_paths": self.new_paths,
            "name": self.name,
            "loss_scale_factor": self.loss_scale_factor,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        made = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
            for name in ("new", "pretrained")
        }
        return cls(**{**config, **made})


@keras.saving.register_keras_serializable(package="ktl")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises from 0 in a line and falls back to 0 as a cosine:

        rate(t) = peak * t / warmup                                            for t < warmup
        rate(t) = peak * (1 + cos(pi * (t - warmup) / (total - warmup))) / 2   after that

    Keras' CosineDecay with warm-up gives the same numbers through `cond`, whose two branches TensorFlow keeps for ever:
    a search would grow with every trial.

    Args:
        peak: the highest rate.
        warmup_steps: optimizer steps to the peak; 0 for none.
        total_steps: optimizer steps to the end, more than `warmup_steps`.

    Reference:
        Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017; Goyal et al., "Accurate,
        Large Minibatch SGD", 2017, section 2.2.
    """

    def __init__(self, peak: float, *, warmup_steps: int, total_steps: int):
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps

    @classmethod
    def of(cls, recipe: Recipe, peak, *, epochs: int, steps_per_epoch: int) -> "WarmupCosine":
        """The schedule of a training of that length; `peak` may be an array, and so is the rate then."""
        total = epochs * steps_per_epoch
        warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total - 1)
        return cls(peak, warmup_steps=warmup, total_steps=total)

    def __call__(self, step):
        now: Any = ops.cast(step, "float32")
        rising = now / max(self.warmup_steps, 1)
        progress: Any = (now - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        falling: Any = ops.clip(progress, 0, 1)
        cosine: Any = ops.cos(math.pi * falling)
        part: Any = ops.where(now < self.warmup_steps, rising, (1 + cosine) / 2)
        return self.peak * part

    @property
    def rates(self) -> np.ndarray:
        """The rate of every step, float64 [total_steps]."""
        return np.asarray(ops.convert_to_numpy(self(np.arange(self.total_steps))), "float64")

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "total_steps": self.total_steps}


@keras.saving.register_keras_serializable(package="ktl")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy of logits and integer labels, a part of each label spread evenly over all classes:

        loss = -sum_c q_c log softmax(logits)_c,   q = (1 - s) one_hot(label) + s / classes

    Args:
        label_smoothing: s, 0 to 1; a number, or a tensor without axes.

    Reference:
        Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, section 7.
    """

    def __init__(self, label_smoothing: float = 0.0, *, name: str = "smoothed_cross_entropy", **arguments):
        super().__init__(name=name, **arguments)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        classes = y_pred.shape[-1]
        if len(y_true.shape) > 1 and y_true.shape[-1] != 1:  # as one-hot labels, or none, have it
            raise ValueError(f"Expected whole labels [photos] from 0 to {classes - 1}. Received: {y_true.shape}")
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")  # Keras makes floats of them
        one_hot: Any = ops.one_hot(labels, classes, dtype=y_pred.dtype)
        # Not Keras' own smoothing: that asks whether there is any, which a tensor can't say.
        target = one_hot * (1.0 - self.label_smoothing) + self.label_smoothing / classes
        return keras.losses.categorical_crossentropy(target, y_pred, from_logits=True)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def batch_normalization_momentum(momentum: float, steps_per_epoch: int) -> float:
    """The momentum with which BatchNormalization's moving statistics keep up with fine-tuning.

    The momentum of ImageNet training, 0.99 or more, needs hundreds of steps to forget; a small data set's epoch has
    twenty, and validation, which uses the moving statistics, collapses meanwhile. With s steps an epoch:

        min(momentum, max(1 - 10 / s, 0.9))

    Args:
        momentum: of the layer as it was built.
        steps_per_epoch: optimizer steps an epoch.

    Reference:
        Kornblith, Shlens, Le, "Do Better ImageNet Models Transfer Better?", CVPR 2019, appendix A.5.
    """
    return min(momentum, max(1 - 10 / steps_per_epoch, 0.9))
