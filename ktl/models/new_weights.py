"""New weights: from NumPy's generator, so that a seed gives the same ones on each of Keras' backends."""

import contextlib
import math
import random
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

INITIALIZERS = {
    "kernel": ("kernel_initializer", "depthwise_initializer"),
    "depthwise_kernel": ("depthwise_initializer",),
    "pointwise_kernel": ("pointwise_initializer",),
}
"""Name of a variable -> where its layer has what the variable begins with. No other variables begin at random."""

CUT = 2.0
"""Standard deviations at which a truncated normal distribution ends."""

CUT_DEVIATION = 0.87962566103423978
"""The standard deviation of a normal distribution of deviation 1 that is cut there."""


def new_generator() -> np.random.Generator:
    """A generator whose seed Python's own gives, from which Keras takes its layers' seeds too."""
    return np.random.default_rng(random.getrandbits(64))


@contextlib.contextmanager
def quick_to_build() -> Iterator[None]:
    """While layers are built that get their weights afterwards: what they begin with costs little.

    JAX compiles its generator for every shape, which takes most of the time in which a network is built. The one whose
    numbers do not depend on how an array lies on devices, its default, takes several times as long as the other.
    """
    if keras.config.backend() != "jax":
        yield
        return
    import jax  # pyright: ignore[reportMissingImports]

    with jax.threefry_partitionable(False):
        yield


def draw_weights(layers: Iterable[keras.layers.Layer], generator: np.random.Generator) -> None:
    """Draws the weights of new layers anew, each from the distribution that its layer names.

    Not by initializers of our own in the layers' place for them: a saved model would open nowhere without ktl.

    Args:
        layers: built; those of Keras Applications, some of which are models of layers, or a head's.
        generator: what is drawn from, layer by layer.
    """
    for layer in layers:
        if isinstance(layer, keras.Model):
            draw_weights(layer.layers, generator)
            continue
        for variable in layer.weights:
            initializer = _initializer_of(layer, variable.name)
            if initializer is not None:
                variable.assign(_draw(initializer, tuple(variable.shape), generator))


def _initializer_of(layer: keras.layers.Layer, name: str) -> Any:
    found = [getattr(layer, attribute, None) for attribute in INITIALIZERS.get(name, ())]
    return next((each for each in found if isinstance(each, keras.initializers.VarianceScaling)), None)


def _draw(initializer: Any, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Values with the variance `scale / fan`, float32."""
    receptive = math.prod(shape[:-2])
    inputs, outputs = shape[-2] * receptive, shape[-1] * receptive
    fan = {"fan_in": inputs, "fan_out": outputs, "fan_avg": (inputs + outputs) / 2}[initializer.mode]
    deviation = math.sqrt(initializer.scale / max(1.0, fan))
    if initializer.distribution == "uniform":
        limit = math.sqrt(3) * deviation
        return (generator.random(shape, np.float32) * 2 - 1) * np.float32(limit)
    if initializer.distribution == "truncated_normal":
        return _cut_normal(shape, generator) * np.float32(deviation / CUT_DEVIATION)
    return generator.standard_normal(shape, np.float32) * np.float32(deviation)


def _cut_normal(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    values = generator.standard_normal(shape, np.float32)
    while (outside := np.abs(values) > CUT).any():
        values[outside] = generator.standard_normal(int(outside.sum()), np.float32)
    return values
