"""TensorFlow's share of `ktl.machine`, and all that ktl uses of its private state; `PRIVATE_NAMES` lists it."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, cast

import keras
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import config as framework_config
from tensorflow.python.framework.ops import gradient_registry

PRIVATE_NAMES = (
    (context, "global_seed"),
    (context, "set_global_seed"),
    (context.Context, "clear_kernel_cache"),
    (framework_config, "is_op_determinism_enabled"),
    (framework_config, "disable_op_determinism"),
    (gradient_registry, "list"),
    (gradient_registry, "_registry"),
)
"""Owner and name of each; a version of TensorFlow without one needs another module here."""

OUT_OF_MEMORY: tuple[type[Exception], ...] = (MemoryError, tf.errors.ResourceExhaustedError)
"""What is raised where memory runs out, the computer's or a GPU's."""

ALWAYS_COMPILES = False
"""Whether all is compiled with XLA, whatever is asked for."""

SEES_WHOLE_BATCH = False
"""Whether BatchNormalization sees the whole of a batch that is split over devices, without being told."""


def gpus() -> list[tuple[str, tuple[int, int]]]:
    """Name and compute capability of each GPU."""
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.get_visible_devices("GPU")]
    return [(found.get("device_name", "GPU"), found.get("compute_capability", (0, 0))) for found in details]


def be_deterministic() -> None:
    """The same numbers every time, from now on."""
    tf.config.experimental.enable_op_determinism()


def scope(strategy: str):
    """The context that models are built and compiled in, see `ktl.machine.Machine.strategy`."""
    return (_mirrored_strategy() if strategy == "mirrored" else tf.distribute.get_strategy()).scope()


@functools.cache
def _mirrored_strategy() -> tf.distribute.Strategy:
    """The only one: a model that one strategy's scope has built can't be compiled in another's."""
    return tf.distribute.MirroredStrategy()


def scope_of(model: keras.Model):
    """The context that this model was built in: the variables of several GPUs can be made there alone."""
    return model.distribute_strategy.scope()


def devices_of(model: keras.Model) -> int:
    """Over how many devices its batches are split."""
    return model.distribute_strategy.num_replicas_in_sync


@contextlib.contextmanager
def state_restored() -> Iterator[None]:
    """Afterwards random numbers start again from the seed of before, and determinism is asked for as before."""
    seed, deterministic = context.global_seed(), framework_config.is_op_determinism_enabled()
    try:
        yield
    finally:
        context.set_global_seed(seed)
        if framework_config.is_op_determinism_enabled() and not deterministic:
            framework_config.disable_op_determinism()


class Traces:
    """What tracing leaves behind.

    TensorFlow keeps every custom gradient. Keras' optimizers make one a trace, of their all-reduce, and it holds the
    graph that it is from.
    """

    def __init__(self):
        self._gradients: set[str] | None = None

    def free(self) -> None:
        """Lets go of those that were made since this was called last."""
        if self._gradients is not None:
            _forget_gradients(but=self._gradients)
        self._gradients = set(gradient_registry.list())


def _forget_gradients(*, but: set[str]) -> None:
    for name in set(gradient_registry.list()) - but:
        del gradient_registry._registry[name]


@contextlib.contextmanager
def traces_forgotten() -> Iterator[None]:
    """Afterwards, what TensorFlow would keep for ever of graphs traced inside is freed.

    It keeps custom gradients, Python's functions in pipelines with whatever photos they hold, and kernels.
    """
    gradients, functions = set(gradient_registry.list()), len(_functions_in_pipelines())
    try:
        yield
    finally:
        _forget_gradients(but=gradients)
        del _functions_in_pipelines()[functions:]
        cast(Any, context.context()).clear_kernel_cache()  # a megabyte a training


def _functions_in_pipelines() -> list:
    return getattr(tf.compat.v1.get_default_graph(), "_py_funcs_used_in_graph", [])


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
