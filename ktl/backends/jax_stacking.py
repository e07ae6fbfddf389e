"""JAX's share of `ktl.training.stacked`."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np

from ktl.backends.jax_features import DeviceFeatures
from ktl.backends.learning import Learning
from ktl.data.batches import RowBatches

compiled: Callable[..., Any] = jax.jit
"""A function of arrays alone, compiled."""


def mapping(*, small: bool) -> Callable:
    """A function (function, arguments) that gives what a function gives for each row of its arguments.

    Args:
        small: whether the function's layers are dense. Their kernels become one larger one; of convolutions there are
            as many groups then, which a GPU is slower at than at one row after another in the same program.
    """
    return _vectorized if small else jax.lax.map


def _vectorized(function: Callable, arguments: Any) -> Any:
    return jax.vmap(function)(arguments)


def value_and_gradients(function: Callable, weights: Sequence) -> tuple:
    """What a function of weights gives, a loss and more, and the gradients of the loss."""
    (loss, more), gradients = jax.value_and_grad(function, has_aux=True)(weights)
    return loss, more, gradients


class Steps:
    """Takes steps of a training: of features in the device's memory many of them in one program.

    Args:
        learning: of a step.
        batches: of all steps.
        jit_compile: JAX compiles whatever is asked for.
    """

    def __init__(self, learning: Learning, batches: RowBatches, *, jit_compile: bool):
        self._learning, self._batches, self._taken = learning, batches, 0
        optimizers = [group.optimizer.variables for group in learning.groups]
        self._variables = [learning.weights, learning.others, *optimizers]
        self._at_hand = isinstance(batches.source, DeviceFeatures)
        self._feed = iter(()) if self._at_hand else iter(batches)
        self._one, self._many = jax.jit(self._take_one), jax.jit(self._take_many)

    def take(self, steps: int, measured: Any) -> Any:
        """So many steps more; what has been measured by then."""
        state = tuple([variable.value for variable in group] for group in self._variables)
        if self._at_hand:
            source: Any = self._batches.source
            rows = np.stack([self._batches.rows(self._taken + step) for step in range(steps)])
            labels = source.labels[rows // source.views]
            state, measured = self._many(state, measured, source.values, rows, labels)
        else:
            for features, labels in itertools.islice(self._feed, steps):
                state, measured = self._one(state, measured, features, labels)
        self._taken += steps
        for variables, values in zip(self._variables, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return measured

    def _take_one(self, state, measured, features, labels):
        weights, others, *own = state
        gradients, others, measured = self._learning.learn(weights, others, features, labels, measured)
        weights = list(weights)
        for number, group in enumerate(self._learning.groups):
            changed = group.of(gradients), group.of(weights)
            values, own[number] = group.optimizer.stateless_apply(own[number], *changed)
            for place, value in zip(group.places, values, strict=True):
                weights[place] = value
        return (weights, others, *own), measured

    def _take_many(self, state, measured, features, rows, labels):
        def step(carried, given):
            (state, measured), (chosen, labels) = carried, given
            return self._take_one(state, measured, jnp.take(features, chosen, axis=0), labels), None

        return jax.lax.scan(step, (state, measured), (rows, labels))[0]
