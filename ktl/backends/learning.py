"""What a training step of several heads at once is made of, on every backend."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras


class Group(NamedTuple):
    """Weights that learn at rates of their own: an optimizer that is built on them, and their places among all."""

    optimizer: keras.optimizers.Optimizer
    places: Sequence[int]

    def of(self, values: Sequence) -> list:
        """Those of the group."""
        return [values[place] for place in self.places]


@dataclasses.dataclass(frozen=True)
class Learning:
    """What a step computes, and what it changes.

    Attributes:
        learn: (weights, others, features, labels, measured) -> (gradients, others, measured), of the backend's arrays.
        weights: what the optimizers change.
        others: what `learn` gives anew.
        groups: each weight is in one of them.
    """

    learn: Callable
    weights: Sequence[keras.Variable]
    others: Sequence[keras.Variable]
    groups: Sequence[Group]
