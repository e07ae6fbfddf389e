"""What several test files share and no fixture is: processes, scripts, made-up photos."""

import contextlib
import importlib
import io
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ktl.progress import Reporter

REPOSITORY = Path(__file__).parent.parent


def script(name: str):
    """A module of experiments/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "experiments")
        return importlib.import_module(name)


def run_script(module, *arguments) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a script of experiments/, in this process."""
    out, err = io.StringIO(), io.StringIO()
    script = Path(module.__file__)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.syspath_prepend(script.parent)
        patch.setattr(sys, "argv", [script.name, *map(str, arguments)])
        return module.main(), out.getvalue(), err.getvalue()


_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["ktl.cli.console", "ktl.runs.run", "ktl.training.fit", "ktl.data.loading", "ktl.evaluation.metrics"]
)


def start(target, *arguments) -> multiprocessing.Process:
    """A process of its own for `target(*arguments)`, forked from one that has loaded TensorFlow: 7 seconds less."""
    process = _PROCESSES.Process(target=target, args=arguments)
    process.start()
    return process


class Command:
    """`ktl ARGUMENTS` in a process of its own, started in `folder`; its output goes to files.

    Args:
        *arguments: of `ktl`.
        folder: where it works.
        environment: variables that it has besides this process's.
        within: what it runs in, such as `few_tries`.
    """

    def __init__(self, *arguments, folder: Path, environment: Mapping[str, str] | None = None, within=nullcontext):
        self.name = f"command-{len(list(folder.glob('command-*.out')))}"
        self.streams = [folder / f"{self.name}.{suffix}" for suffix in ("out", "err")]
        for stream in self.streams:
            stream.touch()
        texts = [str(argument) for argument in arguments]
        self.process = start(_command, texts, str(folder), self.streams, dict(environment or {}), within)

    @property
    def running(self) -> bool:
        return self.process.is_alive()

    def wait(self, timeout: float = 300) -> tuple[int, str, str]:
        """Exit code (-9 of a process that was killed), standard output, standard error."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutError(f"not done after {timeout} s: {self.streams[1].read_text()}")
        return self.process.exitcode, *(stream.read_text() for stream in self.streams)


def _command(arguments, folder, streams, environment, within):
    os.chdir(folder)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and we inherit that
    for descriptor, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY), descriptor)
    from ktl.cli.main import main

    try:
        with within():
            sys.exit(main(arguments))
    finally:
        # What multiprocessing does after a command's end is not the command's: an interrupt of it would be a code of 1.
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def until(condition: Callable[[], object], *, limit: float) -> None:
    """Waits for something true, at most `limit` seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"not so after {limit} s"
        time.sleep(0.02)


def free_port() -> int:
    """A port of the loopback address that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def as_dataset(batches):
    """Batches as what Keras' own `fit`, `evaluate` and `predict` take."""
    import keras

    from ktl.training.feeds import PlainFeed

    if keras.config.backend() != "tensorflow":
        return PlainFeed().dataset(batches)
    from ktl.data.tf_data import TensorFlowFeed

    return TensorFlowFeed().dataset(batches)


def environment_of(backend: str) -> dict[str, str]:
    """The environment of a process with that backend of Keras; JAX's finds no TensorFlow."""
    pytest.importorskip("jax", reason='the extra "jax" is not installed')
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_"))}
    folders = [REPOSITORY / "tests" / "without_tensorflow", REPOSITORY] if backend == "jax" else [REPOSITORY]
    return {**kept, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(map(str, folders))}


class Interrupt(Exception):
    """Raised by a Listener."""


class Listener(Reporter):
    """Keeps what it is told: messages, tasks with their number of photos, rows of epochs.

    Args:
        interrupt_after: the epoch, counted from 1, after which it raises Interrupt.
    """

    def __init__(self, interrupt_after: int | None = None):
        self.messages, self.tasks, self.rows = [], [], []
        self.interrupt_after = interrupt_after

    def message(self, text):
        self.messages.append(text)

    def photos(self, task, total):
        self.tasks.append((task, total))
        return super().photos(task, total)

    def epoch(self, row):
        self.rows.append(dict(row))
        if row["epoch"] == self.interrupt_after:
            raise Interrupt


class Heard(Reporter):
    """Remembers the lines that it is told."""

    def __init__(self):
        self.heard: list[str] = []

    def message(self, text):
        self.heard.append(text)


class Interrupting(Reporter):
    """Ends the first training that it is told of after its second epoch, as Ctrl-C would."""

    def training(self, *, epochs, photos):
        import keras

        def stop(epoch, logs):
            if epoch == 1:
                raise KeyboardInterrupt

        return (keras.callbacks.LambdaCallback(on_epoch_end=stop),)


@contextlib.contextmanager
def few_tries():
    """Inside, a study tries each head twice at each depth, after a third of the epochs, and goes on with one of them:
    as many for all, as in earnest, but fewer."""
    from ktl.studies import design, trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(design, "TRIES", 2)
        patch.setattr(trainer, "RUNGS", (design.Rung(2, 1 / 3), design.Rung(1, 2 / 3)))
        yield


def edit_json(path: Path, **changes) -> dict:
    """Changes an object in a JSON file as people do who know of its checksum; gives it."""
    value = {**json.loads(path.read_text()), **changes}
    value.pop("checksum", None)
    path.write_text(json.dumps(value))
    return value


def mark_first_epoch(state: Path) -> dict:
    """Writes impossible numbers into the first epoch of a training's state.json, and gives it."""
    found = json.loads(state.read_text())
    assert len(found["history"]) == 2
    found["history"][0].update(loss=-17.0, validation_top1=0.017)
    edit_json(state, history=found["history"])
    return found["history"][0]


def write_photos(folder: Path, *, classes: int = 6, each: int = 12) -> Path:
    """Class folders of stripes, 48 pixels high: the direction is the class, the rest is chance."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:48, 0:60]
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        angle = np.pi * label / classes
        for index in range(each):
            stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 0.5 + generator.uniform(0, 6))
            pixels = 128 + 60 * stripes[..., None] * [1, 0.5, -0.3] + generator.normal(0, 20, (48, 60, 3))
            file = io.BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, ("PNG", "JPEG")[index % 2], quality=95)
            (folder / f"class{label}" / f"{index:02}.{('png', 'jpg')[index % 2]}").write_bytes(file.getvalue())
    return folder


def encode(image: np.ndarray | Image.Image, form: str = "PNG", **options) -> bytes:
    """An image file of these pixels; `options` are those of Pillow's `save`."""
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, form, **options)
    return file.getvalue()


def smooth_pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A random photo with few high frequencies, uint8 [height, width, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, [7, 9, 3], np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def plain_photo(number: int, form: str = "PNG") -> bytes:
    """A small photo of one colour, another for each number below 65,536."""
    return encode(Image.new("RGB", (6, 5), (number % 256, number // 256, 7)), form)


def write_classes(root: Path, counts: dict[str, int]) -> Path:
    """<root>/<class>/<n>.png with distinct contents for {class: number of photos}."""
    for offset, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            (root / name / f"{index:03}.png").write_bytes(plain_photo(1000 * offset + index))
    return root


def count_labels(split, classes: int) -> list[int]:
    """How many photos of each class a split has."""
    return np.bincount(split.labels, minlength=classes).tolist()


def one_line(error: pytest.ExceptionInfo) -> str:
    """The message of a refusal, which has one line and says what was received."""
    text = str(error.value)
    assert "\n" not in text
    assert "Received: " in text
    return text


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "object": lambda content: b"{}",
    "list": lambda content: b"[]",
    "null": lambda content: b"null",
    "deep": lambda content: b'{"a": ' + b"[" * 100_000,
}
"""Name -> a file's content to what is there in its place."""


def pickled(name: str) -> bytes:
    """An .npz file whose array of this name is a pickled object."""
    file = io.BytesIO()
    np.savez(file, **{name: np.array([{"a": 1}], object)})
    return file.getvalue()
