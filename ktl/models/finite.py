"""Weights that are numbers."""

from collections.abc import Iterable

import keras
import numpy as np

from ktl.errors import UserError


def check_finite(variables: Iterable[keras.Variable], *, holder: object) -> None:
    """Raises UserError where a variable has values that are no finite numbers; it says whose they are, and which."""
    for variable in variables:
        values = np.asarray(keras.ops.convert_to_numpy(variable))
        if not np.isfinite(values).all():
            wrong = values[~np.isfinite(values)][0]
            raise UserError(f"Expected {holder} to hold finite numbers. Received: {wrong} in {variable.path}")
