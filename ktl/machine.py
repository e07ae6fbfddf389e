"""The process and the machine: devices, precision, XLA, seeds, and what makes training faster on a CPU.

All that ktl uses of TensorFlow's and Keras' private state is here; `PRIVATE_NAMES` lists it.
"""

import contextlib
import dataclasses
import functools
import gc
import random
from collections.abc import Iterable, Iterator
from typing import cast

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras.src.backend.common import global_state
from tensorflow.python.eager import context
from tensorflow.python.framework import config as framework_config
from tensorflow.python.framework.ops import gradient_registry

from ktl.process import set_up_keras

PRIVATE_NAMES = (
    (global_state, "GLOBAL_STATE_TRACKER"),
    (global_state, "GLOBAL_SETTINGS_TRACKER"),
    (context, "global_seed"),
    (context, "set_global_seed"),
    (context.Context, "clear_kernel_cache"),
    (framework_config, "is_op_determinism_enabled"),
    (framework_config, "disable_op_determinism"),
    (gradient_registry, "list"),
    (gradient_registry, "_registry"),
    (keras.layers.Conv2D, "convolution_op"),
)
"""Owner and name of each; a version of TensorFlow or Keras without one needs another `ktl.machine`."""


OUT_OF_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)
"""What is raised where memory runs out, the computer's or a GPU's."""


def has_gpu() -> bool:
    """Whether TensorFlow computes on a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


@dataclasses.dataclass(frozen=True)
class Machine:
    """How this machine computes; what is in force, not what was asked for.

    Attributes:
        devices: names of the GPUs, or of the CPU if there is none.
        precision: a Keras dtype policy.
        xla: whether models are compiled with XLA.
        strategy: `mirrored` when a batch is split over GPUs, else `none`.
    """

    devices: tuple[str, ...]
    precision: str
    xla: bool
    strategy: str

    def scope(self):
        """The context that models are built and compiled in."""
        strategy = _mirrored_strategy() if self.strategy == "mirrored" else tf.distribute.get_strategy()
        return strategy.scope()


@functools.cache
def _mirrored_strategy() -> tf.distribute.Strategy:
    """The only one: a model that one strategy's scope has built can't be compiled in another's."""
    return tf.distribute.MirroredStrategy()


def set_up_machine(*, seed: int, precision: str, xla: str, strategy: str, deterministic: bool) -> Machine:
    """Seeds everything and sets Keras' settings, before any layer is built; both are the whole process's.

    Mixed precision is chosen for GPUs with tensor cores: float16 from compute capability 7.0 on, bfloat16, which needs
    no loss scaling, from 8.0 on. XLA is chosen for every GPU. On a CPU both cost time instead of saving it.

    Args:
        seed: of Python's, NumPy's, Keras' and TensorFlow's generators.
        precision: a Keras dtype policy, or `auto`.
        xla: `on`, `off` or `auto`.
        strategy: `auto` for all GPUs, or `none`.
        deterministic: the same numbers every time; excludes XLA.

    Raises:
        UserError: Keras has another backend than TensorFlow, or is told to end training early.
    """
    set_up_keras()
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    if precision == "auto":
        capability = min((d.get("compute_capability", (0, 0)) for d in details), default=(0, 0))
        precision = "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"
    keras.config.set_dtype_policy(precision)
    return Machine(
        devices=tuple(d.get("device_name", "GPU") for d in details) or ("CPU",),
        precision=precision,
        xla=xla == "on" or (xla == "auto" and bool(gpus) and not deterministic),
        strategy="mirrored" if len(gpus) > 1 and strategy == "auto" else "none",
    )


@contextlib.contextmanager
def process_state_restored() -> Iterator[None]:
    """Inside, Keras' global state is new, and whoever seeds generators, sets the dtype policy or asks for determinism
    leaves no trace: afterwards all of it is as it was before.

    Random numbers of NumPy and Python go on where they were; those of TensorFlow start again from the process's seed.
    """
    keras_state = global_state.GLOBAL_STATE_TRACKER, global_state.GLOBAL_SETTINGS_TRACKER
    generators = random.getstate(), np.random.get_state()
    seed, deterministic = context.global_seed(), framework_config.is_op_determinism_enabled()
    settings = keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon()
    keras.backend.clear_session(free_memory=False)
    try:
        yield
    finally:
        global_state.GLOBAL_STATE_TRACKER, global_state.GLOBAL_SETTINGS_TRACKER = keras_state
        keras.config.set_image_data_format(settings[0])
        keras.config.set_floatx(settings[1])
        keras.config.set_epsilon(settings[2])
        random.setstate(generators[0])
        np.random.set_state(generators[1])
        context.set_global_seed(seed)
        if framework_config.is_op_determinism_enabled() and not deterministic:
            framework_config.disable_op_determinism()


class Memory:
    """Frees between trainings what TensorFlow and Keras would keep of them for ever.

    TensorFlow keeps every custom gradient. Keras' optimizers make one a trace, of their all-reduce, and it holds the
    graph that it is from.
    """

    def __init__(self):
        self._gradients: set[str] | None = None

    def free(self) -> None:
        """Lets go of all graphs, weights and optimizers that nobody holds. Keras' global state starts anew."""
        keras.backend.clear_session(free_memory=False)  # names of layers start again, too; memory is freed below
        if self._gradients is not None:
            for name in set(gradient_registry.list()) - self._gradients:
                del gradient_registry._registry[name]
        self._gradients = set(gradient_registry.list())
        gc.collect()


@contextlib.contextmanager
def traces_forgotten() -> Iterator[None]:
    """Frees what earlier work has left, and afterwards what TensorFlow would keep for ever of graphs traced inside.

    Keras' global state stays, unlike after `Memory.free`: it is the caller's. Of what is traced TensorFlow keeps custom
    gradients, Python's functions in pipelines with whatever photos they hold, and kernels.
    """
    gc.collect()
    gradients, functions = set(gradient_registry.list()), len(_functions_in_pipelines())
    try:
        yield
    finally:
        for name in set(gradient_registry.list()) - gradients:
            del gradient_registry._registry[name]
        del _functions_in_pipelines()[functions:]
        cast(context.Context, context.context()).clear_kernel_cache()  # a megabyte a training


def _functions_in_pipelines() -> list:
    return getattr(tf.compat.v1.get_default_graph(), "_py_funcs_used_in_graph", [])


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
        layer.__dict__["convolution_op"] = _matmul  # shadows the method that Keras has for this purpose
    try:
        yield
    finally:
        for layer in chosen:
            del layer.__dict__["convolution_op"]


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
    rows, shape = ops.reshape(inputs, (-1, inputs.shape[-1])), cast(tuple, ops.shape(inputs))
    return ops.reshape(ops.matmul(rows, kernel[0, 0]), (*shape[:-1], kernel.shape[-1]))
