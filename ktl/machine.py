"""What makes training faster on a CPU, and changes nothing else."""

import contextlib
import os
from collections.abc import Iterable, Iterator

import keras
import tensorflow as tf
from keras import ops


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def faster_on_cpu(layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """What a run trains in: `pointwise_as_matmul` and `graphs_as_traced`; on a GPU nothing.

    Args:
        layers: those that are trained.
    """
    with contextlib.ExitStack() as stack:
        if not tf.config.list_logical_devices("GPU"):
            stack.enter_context(pointwise_as_matmul(layers))
            stack.enter_context(graphs_as_traced())
        yield


@contextlib.contextmanager
def graphs_as_traced() -> Iterator[None]:
    """Inside, TensorFlow computes graphs as they were traced, without rewriting them first.

    Rewriting (Grappler) takes half a second a graph, and a run has two, one for training and one for validation; it
    made no step faster on a CPU.
    """
    name = "disable_meta_optimizer"
    before = tf.config.optimizer.get_experimental_options().get(name, False)
    tf.config.optimizer.set_experimental_options({name: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({name: before})


@contextlib.contextmanager
def pointwise_as_matmul(layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """Inside, convolutions of one pixel are computed as the matrix products that they are.

    The same values and gradients up to rounding, in less time: on a CPU, TensorFlow takes two to four times as long
    for the gradient of such a convolution's input as for the product, four where the picture is small. What is
    traced inside keeps the product; outside, what is exported or folded, the layers are as ever.

    Args:
        layers: among them Conv2D layers with a kernel of 1 x 1.
    """
    chosen = [layer for layer in layers if _is_pointwise(layer)]
    for layer in chosen:
        vars(layer)["convolution_op"] = _matmul  # shadows the method that Keras has for this purpose
    try:
        yield
    finally:
        for layer in chosen:
            del vars(layer)["convolution_op"]


def _is_pointwise(layer: keras.layers.Layer) -> bool:
    # Its own class alone: a subclass may convolve in another way.
    return (
        type(layer) is keras.layers.Conv2D
        and tuple(layer.kernel_size) == tuple(layer.strides) == (1, 1)
        and layer.groups == 1
        and layer.data_format == "channels_last"
    )


def _matmul(inputs, kernel):
    """Of pixels [batch, height, width, channels] and a kernel [1, 1, channels, filters]."""
    rows = ops.reshape(inputs, (-1, inputs.shape[-1]))
    return ops.reshape(ops.matmul(rows, kernel[0, 0]), (*ops.shape(inputs)[:-1], kernel.shape[-1]))
