"""What a training step of several heads at once is made of, on every backend."""

import dataclasses
from collections.abc import Callable, Sequence

import keras


@dataclasses.dataclass(frozen=True)
class Learning:
    """What a step computes, and what it changes.

    Attributes:
        learn: (weights, others, features, labels, measured) -> (gradients, others, measured), of the backend's arrays.
        weights: what the optimizer changes.
        others: what `learn` gives anew.
        optimizer: is built on the weights.
    """

    learn: Callable
    weights: Sequence[keras.Variable]
    others: Sequence[keras.Variable]
    optimizer: keras.optimizers.Optimizer
