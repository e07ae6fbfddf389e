"""ScaledUnitNormalization, the one layer that Keras does not have."""

import math
import numbers

import keras
import numpy as np
from keras import ops

from ktl.arguments import fits
from ktl.errors import UserError, shown

_FLOAT32 = np.finfo("float32")


@keras.saving.register_keras_serializable(package="ktl")
class ScaledUnitNormalization(keras.layers.Layer):
    """Divides every vector along the last axis by its Euclidean length and multiplies it by learned factors.

    The kept classification layer's logits come with a norm of their own, tens of times what a new Dense layer is
    initialised for. This layer takes the norm away and gives a chosen one back:

        y = gamma * x / max(||x||_2, epsilon)

    where `gamma` starts at `scale`. A zero vector stays zero; its gradient is at most `gamma / epsilon`, which fits
    into float16. The arithmetic is float32 whatever the dtype policy is, because a sum of squares above 65504 does not
    fit; the output has the policy's compute dtype.

    Args:
        scale: float > 0, the initial value of gamma: the Euclidean norm of the output at the start. No unit.
        per_channel: if True gamma has one value a channel, shape `(channels,)`; if False a single one, shape `()`.
        trainable: if False gamma keeps the value `scale`.
        epsilon: float > 0, the smallest norm that is divided by.

    Input shape: `(batch, ..., channels)`, rank 2 to 4.
    Output shape: the input's.

    Raises:
        UserError (a ValueError): `scale` or `epsilon` is not a positive number that float32 holds, and whose square it
            holds for `epsilon`; or the input's rank is not 2, 3 or 4.

    Example:
        >>> layer = ktl.ScaledUnitNormalization(scale=2.0)
        >>> layer(np.array([[3.0, 4.0]])).numpy()
        array([[1.2, 1.6]], dtype=float32)

    Reference:
        Wang, Ramanan, Hebert, "Growing a Brain", CVPR 2017 (arXiv 1907.07844), section 3.2;
        Liu, Rabinovich, Berg, "ParseNet", 2015 (arXiv 1506.04579), section 3.3.
    """

    def __init__(
        self,
        scale: float = 3.0,
        *,
        per_channel: bool = True,
        trainable: bool = True,
        epsilon: float = 1e-3,
        **kwargs,
    ):
        for argument, value in (("per_channel", per_channel), ("trainable", trainable)):
            if not fits(value, bool):
                raise UserError(f"Expected `{argument}` to be True or False. Received: {shown(value)}")
        super().__init__(trainable=trainable, **kwargs)
        self.scale = _number("scale", scale, float(_FLOAT32.tiny), float(_FLOAT32.max))
        self.per_channel = bool(per_channel)
        self.epsilon = _number("epsilon", epsilon, float(_FLOAT32.tiny) ** 0.5, float(_FLOAT32.max) ** 0.5)
        self.supports_masking = True

    def build(self, input_shape):
        if not 2 <= len(input_shape) <= 4:
            raise UserError(f"Expected an input of rank 2, 3 or 4. Received: shape={tuple(input_shape)}")
        self.gamma = self.add_weight(
            name="gamma",
            shape=(input_shape[-1],) if self.per_channel else (),
            initializer=keras.initializers.Constant(self.scale),
            dtype="float32",
            autocast=False,
        )

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        # The maximum is taken before the root: the root's gradient at zero is infinite, and infinity * 0 is NaN.
        squared_norm = ops.sum(ops.square(x), axis=-1, keepdims=True)
        inverse_norm = ops.rsqrt(ops.maximum(squared_norm, self.epsilon**2))
        return ops.cast(self.gamma * x * inverse_norm, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "scale": self.scale,
            "per_channel": self.per_channel,
            "epsilon": self.epsilon,
        }


def _number(name: str, value, least: float, most: float) -> float:
    """`value` as a Python float, which JSON has; numpy's numbers are none."""
    # A bool is a number to Python, and a mistake here.
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not least <= _float(value) <= most:
        raise UserError(f"Expected `{name}` to be a number from {least:.2g} to {most:.2g}. Received: {shown(value)}")
    return _float(value)


def _float(value: numbers.Real) -> float:
    try:
        return float(value)
    except OverflowError:  # of an int beyond all floats
        return math.inf
