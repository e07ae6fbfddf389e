"""What makes a process that trains quick and quiet, in one call."""

import contextlib
import gc
import importlib
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Iterator

from ktl.errors import UserError
from ktl.streams import without_standard_error

BACKENDS = ("tensorflow", "jax")
"""Keras' backends that ktl trains on; the first one unless KERAS_BACKEND says otherwise."""

CAPS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")
"""Variables by which Keras trains less than it is told, without a word."""


def prepare_process() -> None:
    """Loads Keras and its backend as the command line does: with pooled memory, and without start-up messages.

    It changes the process, so it is never called for you: call it once, before Keras is imported and before the
    long work. Numbers stay as they are; a second call does no harm. It sets:

    - the environment variable TF_CPU_ALLOCATOR_USE_BFC=true: half again as many photos a second on a CPU, where the
      plain allocator gives the memory of each activation back to the system;
    - TF_FORCE_GPU_ALLOW_GROWTH=true, for JAX XLA_PYTHON_CLIENT_PREALLOCATE=false: several processes may share a GPU;
    - KERAS_BACKEND=tensorflow, whatever `keras.json` says;
    - TF_CPP_MIN_LOG_LEVEL=3, and the loggers `absl` and `tensorflow` to errors alone. Where you have set this variable,
      the messages that you asked for are shown;
    - `gc.freeze()`: what is loaded by now lives as long as the process, and is not searched for garbage again. With
      TensorFlow loaded a search takes 0.4 s, and there is one for each trial.

    Each of these variables keeps the value that you gave it.

    Raises:
        UserError: a variable or `keras.json` sets Keras to what ktl cannot train with.

    Example:
        >>> import ktl
        >>> ktl.prepare_process()
        >>> import keras
    """
    _check_variables()
    os.environ["KERAS_BACKEND"] = _asked_backend()
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    asked = "TF_CPP_MIN_LOG_LEVEL" in os.environ
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # The first messages come before any log level is obeyed, so standard error itself is turned away meanwhile.
    with contextlib.nullcontext() if asked else without_standard_error():
        _load_keras()
    if not asked:
        logging.getLogger("absl").setLevel(logging.ERROR)  # data sets warn of every folder that they look into
        logging.getLogger("tensorflow").setLevel(logging.ERROR)  # each trial of a search traces anew; that is meant
    gc.freeze()


def set_up_keras() -> None:
    """Gives Keras the settings that ktl computes with, in place of those of a `keras.json`; they are the process's.

    Raises:
        UserError: its backend is another one, or an environment variable ends training early.
    """
    _check_variables()
    keras_backend()
    config = importlib.import_module("keras").config
    config.set_image_data_format("channels_last")
    config.set_floatx("float32")
    config.set_epsilon(1e-7)


def keras_backend() -> str:
    """The name of Keras' backend. Raises UserError for one that ktl does not train on."""
    backend = importlib.import_module("keras").config.backend()
    if backend not in BACKENDS:
        raise UserError(
            f"Expected Keras' backend to be {' or '.join(BACKENDS)}. Received: {backend}, from KERAS_BACKEND or "
            "keras.json"
        )
    return backend


def _load_keras() -> None:
    """Loads Keras, which loads its backend. Raises UserError where its settings keep it from starting."""
    try:
        importlib.import_module("keras")
    except ModuleNotFoundError as error:
        raise UserError(
            f"Expected Keras' backend, {_asked_backend()}, to be installed. Received: no package {error.name}"
        ) from error
    except (ValueError, AttributeError, TypeError, OSError, ImportError) as error:  # what reading its settings raises
        folder = os.path.expanduser(os.environ.get("KERAS_HOME", "~/.keras"))
        reason = " ".join(str(error).split())
        raise UserError(
            f"Expected {folder}/keras.json, and KERAS_ variables, that Keras can start with. Received: {reason}"
        ) from error


def _asked_backend() -> str:
    return os.environ.get("KERAS_BACKEND") or BACKENDS[0]  # an empty one is none


def require_tensorflow(purpose: str) -> None:
    """Raises UserError where Keras has another backend than TensorFlow, without which there is no `purpose`."""
    backend = importlib.import_module("keras").config.backend()
    if backend != BACKENDS[0]:
        raise UserError(
            f"Expected Keras' backend to be {BACKENDS[0]}, which {purpose} needs. Received: {backend}. "
            "Unset KERAS_BACKEND"
        )


def _check_variables() -> None:
    """Raises UserError where an environment variable sets Keras to what ktl cannot train with."""
    backend = _asked_backend()
    if backend not in BACKENDS:
        raise UserError(
            f"Expected KERAS_BACKEND to be {' or '.join(BACKENDS)}, on which ktl trains. Received: {backend}. "
            "Unset the variable"
        )
    for name in CAPS:
        if os.environ.get(name):
            raise UserError(f"Expected no {name}, which ends training early. Received: {os.environ[name]}. Unset it")


PARENT = "KTL_PARENT"
"""Environment variable of a process that ends with the one that started it: the latter's number."""


def child_environment() -> dict[str, str]:
    """The variable by which `end_with_parent` of a process that this one starts knows it."""
    return {PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Ends this process, from now on, as soon as the one is gone that started it with `child_environment`.

    Called before TensorFlow is loaded: by then, the parent may be gone for seconds.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    with contextlib.suppress(OSError, AttributeError):  # where there is no prctl, the thread alone does it
        importlib.import_module("ctypes").CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_after, args=(int(parent),), daemon=True).start()


PR_SET_PDEATHSIG = 1
"""Of Linux' prctl: which signal a process gets when its parent ends."""


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Puts Python's random generator back afterwards: Keras draws from it when it builds, copies or loads layers."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


@contextlib.contextmanager
def logging_kept() -> Iterator[None]:
    """Takes away afterwards what absl's first message, even one that is not shown, has set up of Python's logging: a
    program's own `logging.basicConfig(...)` would do nothing any more."""
    before, level = list(logging.root.handlers), logging.root.level
    try:
        yield
    finally:
        for handler in list(logging.root.handlers):
            plain = type(handler) is logging.StreamHandler and logging.root.level == level
            if plain and handler not in before:
                logging.root.removeHandler(handler)
