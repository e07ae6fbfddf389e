"""TensorFlow's share of `ktl.training.stacked`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ktl.backends.learning import Learning
from ktl.data.batches import Batches
from ktl.data.tf_data import TensorFlowFeed


def mapping(*, small: bool) -> Callable:
    """A function (function, arguments) that gives what a function gives for each row of its arguments, at once.

    Args:
        small: whether the function's layers are dense; TensorFlow trains no others at once.
    """
    # Without a word where TensorFlow has no vectorized form: of the bits of dropout's random numbers.
    return functools.partial(tf.vectorized_map, warn=False)


compiled: Callable[..., Any] = functools.partial(tf.function, autograph=False, reduce_retracing=True)
"""A function of tensors alone as one graph."""


def value_and_gradients(function: Callable, weights: Sequence) -> tuple:
    """What a function of weights gives, a loss and more, and the gradients of the loss."""
    with tf.GradientTape() as tape:
        tape.watch(weights)
        loss, more = function(weights)
    return loss, more, tape.gradient(loss, weights)


class Steps:
    """Takes steps of a training, many of them in one call of TensorFlow.

    Args:
        learning: of a step.
        batches: of all steps.
        jit_compile: whether to compile a step with XLA.
    """

    def __init__(self, learning: Learning, batches: Batches, *, jit_compile: bool):
        self._learning = learning
        self._feed = TensorFlowFeed()
        self._batches = iter(self._feed.dataset(batches))
        self._one = tf.function(self._take_one, autograph=False, jit_compile=jit_compile)
        self._many = tf.function(self._take_many, autograph=False)

    def take(self, steps: int, measured: Any) -> Any:
        """So many steps more; what has been measured by then."""
        with self._feed:
            return self._many(self._batches, tf.constant(steps), measured)

    def _take_many(self, batches, steps, measured):
        def step(number, measured):
            return number + 1, self._one(*batches.get_next(), measured)

        return tf.while_loop(lambda number, _: number < steps, step, (tf.constant(0), measured))[1]

    def _take_one(self, features, labels, measured):
        learning = self._learning
        values = ([variable.value for variable in group] for group in (learning.weights, learning.others))
        gradients, others, measured = learning.learn(*values, features, labels, measured)
        for group in learning.groups:
            group.optimizer.apply(group.of(gradients), group.of(learning.weights))
        for variable, value in zip(learning.others, others, strict=True):
            variable.assign(value)
        return measured
