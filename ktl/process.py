"""What makes a process that trains quick and quiet, in one call."""

import contextlib
import gc
import importlib
import logging
import os
import random
from collections.abc import Iterator

from ktl.streams import without_standard_error


def prepare_process() -> None:
    """Loads TensorFlow as the command line does: with pooled memory, and without its start-up messages.

    It changes the process, so it is never called for you: call it once, before TensorFlow is imported and before the
    long work. Numbers stay as they are; a second call does no harm. It sets:

    - the environment variable TF_CPU_ALLOCATOR_USE_BFC=true: half again as many photos a second on a CPU, where the
      plain allocator gives the memory of each activation back to the system;
    - TF_FORCE_GPU_ALLOW_GROWTH=true: several processes may share a GPU;
    - TF_CPP_MIN_LOG_LEVEL=3, and the loggers `absl` and `tensorflow` to errors alone. Where you have set this variable,
      the messages that you asked for are shown;
    - `gc.freeze()`: what is loaded by now lives as long as the process, and is not searched for garbage again. With
      TensorFlow loaded a search takes 0.4 s, and there is one for each trial.

    Each of these variables keeps the value that you gave it.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    asked = "TF_CPP_MIN_LOG_LEVEL" in os.environ
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # The first messages come before any log level is obeyed, so standard error itself is turned away meanwhile.
    with contextlib.nullcontext() if asked else without_standard_error():
        importlib.import_module("tensorflow")
    if not asked:
        logging.getLogger("absl").setLevel(logging.ERROR)  # data sets warn of every folder that they look into
        logging.getLogger("tensorflow").setLevel(logging.ERROR)  # each trial of a search traces anew; that is meant
    gc.freeze()


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
