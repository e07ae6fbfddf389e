"""JAX's share of `ktl.training.stacked`."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax  # pyright: ignore[reportMissingImports]

from ktl.backends.learning import Learning
from ktl.data.batches import Batches

compiled: Callable[..., Any] = jax.jit
"""A function of arrays alone, compiled."""


def vectorized(function: Callable, arguments: Any) -> Any:
    """A function of each row of its arguments, at once."""
    return jax.vmap(function)(arguments)


def value_and_gradients(function: Callable, weights: Sequence) -> tuple:
    """What a function of weights gives, a loss and more, and the gradients of the loss."""
    (loss, more), gradients = jax.value_and_grad(function, has_aux=True)(weights)
    return loss, more, gradients


class Steps:
    """Takes steps of a training.

    Args:
        learning: of a step.
        batches: of all steps.
        jit_compile: JAX compiles whatever is asked for.
    """

    def __init__(self, learning: Learning, batches: Batches, *, jit_compile: bool):
        def step(state, features, labels, measured):
            weights, others, own = state
            gradients, others, measured = learning.learn(weights, others, features, labels, measured)
            weights, own = optimizer.stateless_apply(own, gradients, weights)
            return (weights, others, own), measured

        optimizer = learning.optimizer
        self._variables = learning.weights, learning.others, optimizer.variables
        self._batches = iter(batches)
        self._step = jax.jit(step)

    def take(self, steps: int, measured: Any) -> Any:
        """So many steps more; what has been measured by then."""
        state = tuple([variable.value for variable in group] for group in self._variables)
        for features, labels in itertools.islice(self._batches, steps):
            state, measured = self._step(state, features, labels, measured)
        for variables, values in zip(self._variables, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return measured
