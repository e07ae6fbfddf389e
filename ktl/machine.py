"""The process and the machine: devices, precision, XLA, seeds, and what makes training faster on a CPU.

What differs between Keras' backends is in `ktl.backends`. All that ktl uses of Keras' private state is
here; `PRIVATE_NAMES` lists it.
"""

import contextlib
import dataclasses
import gc
import importlib
import random
from collections.abc import Iterable, Iterator
from typing import Any, cast

import keras
import numpy as np
from keras import ops
from keras.src.backend.common import global_state

from ktl.process import keras_backend, logging_kept, set_up_keras

backend: Any = importlib.import_module(f"ktl.backends.{keras_backend()}_machine")
"""The module of Keras' backend."""

PRIVATE_NAMES = (
    (global_state, "GLOBAL_STATE_TRACKER"),
    (global_state, "GLOBAL_SETTINGS_TRACKER"),
    (keras.layers.Conv2D, "convolution_op"),
)
"""Owner and name of each; a version of Keras without one needs another `ktl.machine`."""

OUT_OF_MEMORY: tuple[type[Exception], ...] = backend.OUT_OF_MEMORY
"""What is raised where memory runs out, the computer's or a GPU's."""


def has_gpu() -> bool:
    """Whether Keras computes on a GPU."""
    return bool(backend.gpus())


def trains_together(*, head_alone: bool) -> bool:
    """Whether trainings that differ in rates, scale and seed are better done in one program than one after another.

    Heads alone always are. Of convolutions a GPU computes no more at once, but JAX compiles for each training anew, and
    that takes longer than a small data set's steps: there one program does the trainings of one freeze depth.

    Args:
        head_alone: whether all else is frozen.
    """
    return head_alone or (backend.ALWAYS_COMPILES and has_gpu())


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
        return backend.scope(self.strategy)


def set_up_machine(*, seed: int, precision: str, xla: str, strategy: str, deterministic: bool) -> Machine:
    """Seeds everything and sets Keras' settings, before any layer is built; both are the whole process's.

    Mixed precision is chosen for GPUs with tensor cores: float16 from compute capability 7.0 on, bfloat16, which needs
    no loss scaling, from 8.0 on. XLA is chosen for every GPU. On a CPU both cost time instead of saving it.

    Args:
        seed: of Python's, NumPy's, Keras' and its backend's generators.
        precision: a Keras dtype policy, or `auto`.
        xla: `on`, `off` or `auto`.
        strategy: `auto` for all GPUs, or `none`.
        deterministic: the same numbers every time; excludes XLA.

    Raises:
        UserError: Keras has a backend that ktl does not train on, or is told to end training early.
    """
    set_up_keras()
    keras.utils.set_random_seed(seed)
    if deterministic:
        backend.be_deterministic()
    gpus = backend.gpus()
    if precision == "auto":
        capability = min((capability for _, capability in gpus), default=(0, 0))
        precision = "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"
    keras.config.set_dtype_policy(precision)
    return Machine(
        devices=tuple(name for name, _ in gpus) or ("CPU",),
        precision=precision,
        xla=backend.ALWAYS_COMPILES or xla == "on" or (xla == "auto" and bool(gpus) and not deterministic),
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
    settings = keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon()
    keras.backend.clear_session(free_memory=False)
    try:
        with backend.state_restored(), logging_kept():
            yield
    finally:
        global_state.GLOBAL_STATE_TRACKER, global_state.GLOBAL_SETTINGS_TRACKER = keras_state
        keras.config.set_image_data_format(settings[0])
        keras.config.set_floatx(settings[1])
        keras.config.set_epsilon(settings[2])
        random.setstate(generators[0])
        np.random.set_state(generators[1])


class Memory:
    """Frees between trainings what Keras and its backend would keep of them for ever.

    Attributes:
        used: there is something to free. To search for it takes 0.3 s, of which a first training is spared.
    """

    def __init__(self):
        self.used = False
        self._traces = backend.Traces()

    def free(self) -> None:
        """Lets go of all graphs, weights and optimizers that nobody holds. Keras' global state starts anew."""
        keras.backend.clear_session(free_memory=False)  # names of layers start again, too; memory is freed below
        self._traces.free()
        if self.used:
            gc.collect()


@contextlib.contextmanager
def traces_forgotten() -> Iterator[None]:
    """Frees what earlier work has left, and afterwards what the backend would keep for ever of graphs traced inside.

    Keras' global state stays, unlike after `Memory.free`: it is the caller's.
    """
    gc.collect()
    with backend.traces_forgotten():
        yield


@contextlib.contextmanager
def faster_on_cpu(layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """What a run trains in: `pointwise_as_matmul`, and TensorFlow's `graphs_as_traced`; on a GPU nothing.

    Args:
        layers: those that are trained.
    """
    with contextlib.ExitStack() as stack:
        if not has_gpu():
            stack.enter_context(pointwise_as_matmul(layers))
            stack.enter_context(backend.graphs_as_traced())
        yield


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
