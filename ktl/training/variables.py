"""The variables that a training changes, and their values."""

from collections.abc import Sequence

import keras
import numpy as np


def state_variables(model) -> list:
    """All variables that training goes on with: those that it changes, and the optimizer's."""
    return [*trained_variables(model), *model.optimizer.variables]


def trained_variables(model) -> list:
    """The variables that training changes; frozen ones come from the backbone's weights again."""
    frozen = {id(v) for layer in model.layers if not layer.trainable for v in layer.variables}
    return [v for v in model.variables if id(v) not in frozen]


def to_numpy(value) -> np.ndarray:
    """A variable's or a tensor's value."""
    return np.asarray(keras.ops.convert_to_numpy(value))


def assign(variables: Sequence, values: Sequence[np.ndarray]) -> None:
    """Gives each variable its value."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
