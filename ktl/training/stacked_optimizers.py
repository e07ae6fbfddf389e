"""Optimizers of matrices that have a row for each of several trainings."""

from collections.abc import Sequence

import keras
import numpy as np

from ktl.backends.learning import Group
from ktl.models.recipe import OPTIMIZERS, Recipe, WarmupCosine, decay_coefficient


def make_groups(
    recipes: Sequence[Recipe],
    weights: Sequence[keras.Variable],
    *,
    new: Sequence[bool],
    vectors: Sequence[bool],
    epochs: int,
    steps_per_epoch: int,
) -> list[Group]:
    """The new layers' weights, then the pre-trained ones if any are trained, each with an optimizer built on them.

    Args:
        recipes: of each row; alike but for rates, decay and smoothing.
        weights: [rows, elements] each.
        new: of each weight, whether it is of a new layer.
        vectors: of each weight, whether its rows stand for vectors or scalars, which have no weight decay.
        epochs: after which all learning rates are 0.
        steps_per_epoch: optimizer steps an epoch.
    """
    groups = []
    for of_new in (True, False):
        places = [place for place, is_new in enumerate(new) if is_new == of_new]
        if not places:
            continue
        peaks = [recipe.learning_rate * (recipe.head_multiplier if of_new else 1.0) for recipe in recipes]
        optimizer = make_stacked_optimizer(recipes, peaks, epochs=epochs, steps_per_epoch=steps_per_epoch)
        optimizer.exclude_from_weight_decay(var_list=[weights[place] for place in places if vectors[place]])
        optimizer.build([weights[place] for place in places])
        groups.append(Group(optimizer, places))
    return groups


def make_stacked_optimizer(
    recipes: Sequence[Recipe], peaks: Sequence[float], *, epochs: int, steps_per_epoch: int
) -> keras.optimizers.Optimizer:
    """An optimizer that does to each row of its variables what the row's own recipe would do.

    Args:
        recipes: of each row.
        peaks: the highest learning rate of each row.
        epochs: after which all learning rates are 0.
        steps_per_epoch: optimizer steps an epoch.
    """
    length = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
    schedules = [WarmupCosine.of(recipe, peak, **length) for recipe, peak in zip(recipes, peaks, strict=True)]
    column = np.array(peaks, "float32")[:, None]
    optimizer = OPTIMIZERS[recipes[0].optimizer](WarmupCosine.of(recipes[0], column, **length), 0.0)
    decays = [decay_coefficient(r.weight_decay, s.rates) for r, s in zip(recipes, schedules, strict=True)]
    if any(decays):
        optimizer.weight_decay = np.array(decays, "float32")[:, None]
    return optimizer
