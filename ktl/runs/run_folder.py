"""A run's folder, safe to copy; an export, a resume and a report's thumbnails read the photos of its data set too.

config.json       the settings
dataset.json      how many photos each split has, and a digest of which; of weights and other files that were named, too
environment.json  versions, machine, and the precision, XLA and strategy in force
history.csv       one row an epoch
result.json       scores on validation and test, settings, seconds, parameters
model.keras       pixels in 0..255 to logits, with its preprocessing
labels.txt        class names, a line each, in the order of the logits
predictions.csv   one row a test photo
confusion.csv     rows: true class; columns: predicted class
probabilities.npz class probabilities and labels: validation, validation_labels, test, test_labels
kept_layer.csv    for each class the ImageNet classes that drive it on its test photos, an explanation that nothing is
                  chosen by; of heads alone whose last Dense layer reads a pre-trained layer of 1000 classes
checkpoint/       of a run that has not ended
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ktl.config.settings import RunConfig
from ktl.data.dataset import Dataset
from ktl.errors import UserError
from ktl.files import (
    empty_folder,
    is_temporary,
    make_folder,
    read_csv,
    read_lines,
    write_atomically,
    write_csv,
    write_lines,
)
from ktl.machine import cores

REPORTED_PACKAGES = ("ktl", "tensorflow", "keras", "numpy", "tensorflow-datasets", "scikit-learn", "pillow")


class RunFolder:
    """The files of one run.

    Args:
        path: the folder; made if it is not there.
        config: the settings; must equal those of a run that is already there.
        overwrite: remove what is there, if it is such a folder.

    Raises:
        UserError: the folder holds a run with other settings (the differences are listed), or something else.
    """

    KIND = "run"
    WORK = ("checkpoint", "trials", "runs", "result.json")  # of any kind: a search does not take over a run's folder
    WAYS_ON = "Name another --output"

    def __init__(self, path: str | os.PathLike, config: RunConfig, *, overwrite: bool = False):
        self.path, self.config = Path(path), config
        recorded = self._read_json("config.json")
        if overwrite and recorded is not None:
            if recorded.keys() != config.as_dict().keys():  # many a program writes a config.json
                raise UserError(
                    f"Expected a {self.KIND} to overwrite. Received: {self.path}, a folder of something else"
                )
            with self.held():
                empty_folder(self.path, last="config.json")
            recorded = None
        if recorded is None and self._holds_something_else():
            raise UserError(
                f"Expected a new or empty folder, or one with a {self.KIND}. Received: --output {self.path}"
            )
        changed = config.differences(recorded or {})
        if recorded is not None and changed and self._holds_work():
            raise UserError(
                f"Expected the settings of the {self.KIND} in {self.path}. Received: {'; '.join(changed)}. "
                f"{self.WAYS_ON}"
            )
        make_folder(self.path)
        if recorded != config.as_dict():
            self.write_json("config.json", config.as_dict())

    @property
    def checkpoint_dir(self) -> str:
        return str(self.path / "checkpoint")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes of this machine out meanwhile; the lock goes with the process, whatever ends it.

        Raises:
            UserError: another process is at work there.
        """
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # of a file system without locks
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise UserError(
                        f"Expected no other process at work on the {self.KIND} in {self.path}. Received: one that is. "
                        "Wait for it, or name another --output"
                    ) from error
            yield
        finally:
            os.close(descriptor)

    @property
    def result(self) -> dict | None:
        """The result of a run that has ended, else None."""
        return self._read_json("result.json")

    def hold_to(self, dataset: Dataset) -> None:
        """Writes down which photos are in which split, and what the settings' files hold, or compares.

        A photo more or less may move test photos to train.

        Raises:
            UserError: there is work of others.
        """
        members = [(split.name, split.photos, split.labels.tolist()) for split in dataset.splits]
        counts = {split.name: len(split) for split in dataset.splits}
        found = {"photos": counts, "splits": hashlib.sha256(repr((dataset.class_names, members)).encode()).hexdigest()}
        found["files"] = {path: _digest(path) for path in self.config.files}
        recorded = self._read_json("dataset.json")
        if recorded not in (None, found) and self._holds_work():
            raise UserError(
                f"Expected the photos, classes, splits and files that the {self.KIND} in {self.path} began with. "
                f"Received: others, of now {counts} photos{''.join(f', {name}' for name in self.config.files)}. "
                f"{self.WAYS_ON}"
            )
        if recorded != found:
            self.write_json("dataset.json", found)

    def remove_leftovers(self) -> None:
        """Removes what a run that has ended needs no more: its checkpoint, and files that a kill left half written."""
        shutil.rmtree(self.checkpoint_dir, ignore_errors=True)
        for path in self.path.glob(".*"):
            if is_temporary(path.name) and path.is_file():
                path.unlink()

    def write_json(self, name: str, value: dict) -> None:
        write_atomically(self.path / name, json.dumps(value, indent=2) + "\n")

    def write_csv(self, name: str, header, rows) -> None:
        write_csv(self.path / name, header, rows)

    def write_history(self, history: list[dict]) -> None:
        self.write_csv("history.csv", history[0].keys(), (row.values() for row in history))

    def write_labels(self, class_names) -> None:
        write_lines(self.path / "labels.txt", class_names)

    def write_predictions(self, photos, labels: np.ndarray, probabilities: np.ndarray, class_names) -> None:
        """predictions.csv: photo, label, prediction, probability, runner_up, runner_up_probability."""
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
        rows = []
        for photo, label, (first, second), row in zip(photos, labels, order, probabilities, strict=True):
            names = [class_names[i] for i in (label, first, second)]
            rows.append([photo, *names[:2], f"{row[first]:.6f}", names[2], f"{row[second]:.6f}"])
        header = ("photo", "label", "prediction", "probability", "runner_up", "runner_up_probability")
        self.write_csv("predictions.csv", header, rows)

    def write_confusion(self, matrix: np.ndarray, class_names) -> None:
        rows = ([name, *row] for name, row in zip(class_names, matrix.tolist(), strict=True))
        self.write_csv("confusion.csv", ["label", *class_names], rows)

    def write_probabilities(self, probabilities: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> None:
        """probabilities.npz: split -> float32 [photos, classes], and split_labels -> int32 [photos]."""
        arrays = {split: values.astype(np.float32) for split, values in probabilities.items()}
        arrays |= {f"{split}_labels": values for split, values in labels.items()}
        write_atomically(self.path / "probabilities.npz", lambda file: np.savez_compressed(file, **arrays))

    def write_kept_layer(self, rows: Sequence[dict]) -> None:
        """kept_layer.csv, from the rows of `ktl.runs.attribution.strongest_classes`."""
        header = ("class", "rank", "synset", "imagenet_class", "contribution", "share", "activation")
        values = ([row[name] for name in header] for row in rows)
        self.write_csv("kept_layer.csv", header, [[*v[:4], *(f"{number:.6g}" for number in v[4:])] for v in values])

    def write_model(self, model) -> None:
        """model.keras; a model that was not compiled, so that no optimizer or loss goes with it."""
        temporary = self.path / ".model.keras"
        model.save(temporary)
        os.replace(temporary, self.path / "model.keras")

    def _holds_something_else(self) -> bool:
        # A kill in the middle of the first write leaves a hidden temporary file; that is nobody's work.
        return self.path.exists() and (
            not self.path.is_dir() or any(not file.name.startswith(".config.json-") for file in self.path.iterdir())
        )

    def _holds_work(self) -> bool:
        """Whether an epoch or a result would be lost. A run that failed on bad input has neither."""
        return any((self.path / name).exists() for name in self.WORK)

    def _read_json(self, name: str) -> dict | None:
        try:
            value = json.loads((self.path / name).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise UserError(
                f"Expected a {self.KIND} in {self.path}. Received: a {name} of something else. {self.WAYS_ON}"
            )
        return value


class SearchFolder(RunFolder):
    """The files of one search: config.json, dataset.json, environment.json and result.json as a run has them, and

    trials.csv   one row a trial
    heatmap.png  validation top-1 over scale and freeze depth, where both are varied
    trials/      KerasTuner's project: oracle.json, and a folder a trial
    best/        a run's folder: of the best trial
    """

    KIND = "search"
    WAYS_ON = "Name another --output, or --overwrite this one"


class StudyFolder(RunFolder):
    """The files of one study: config.json, dataset.json and environment.json as a run has them, and

    runs.csv     one row a run
    summary.csv  one row for each head, freeze depth and share of the training photos: means over the seeds
    duplicates.csv
                 one row for each test photo that is among the training photos too, or looks like one of them
    result.json  the heads at the depths that validation chose for them, and the differences to the replaced layer; what
                 the backbone's own layer reaches on the classes that ImageNet has too; how many duplicates there are
    runs/        a folder a run: run.json, or tried.json of a try at its settings; checkpoint/ of one that has not ended
    """

    KIND = "study"
    WAYS_ON = "Name another --output, or --overwrite this one"


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What is left of a run that has ended.

    Attributes:
        path: its folder.
        config: its settings.
        result: what result.json holds.
        environment: what environment.json holds.
        class_names: in the order of the probabilities.
        test_photos: ids, in the order of the test probabilities.
        probabilities: validation and test, float32 [photos, classes], and their labels, validation_labels and
            test_labels, int32 [photos].
    """

    path: Path
    config: RunConfig
    result: dict
    environment: dict
    class_names: tuple[str, ...]
    test_photos: tuple[str, ...]
    probabilities: Mapping[str, np.ndarray]


def read_run(path: str | os.PathLike) -> FinishedRun:
    """Reads the folder of a run, or of a search: then its best run.

    Raises:
        UserError: it is neither, or has not ended.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"Expected the folder of a run that has ended. Received: {path}, which is no folder")
    folder = path / "best" if (path / "best").is_dir() else path
    names = ("config.json", "result.json", "environment.json", "labels.txt", "predictions.csv", "probabilities.npz")
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise UserError(f"Expected the folder of a run that has ended. Received: {path}, without {', '.join(missing)}")
    config, result, environment = (json.loads((folder / name).read_text()) for name in names[:3])
    test_photos = tuple(row["photo"] for row in read_csv(folder / "predictions.csv"))
    with np.load(folder / "probabilities.npz", allow_pickle=False) as file:
        probabilities = dict(file)
    class_names = read_lines(folder / "labels.txt")
    try:
        settings = RunConfig(**config)
    except TypeError as error:
        raise UserError(f"Expected a run of this version of ktl. Received: {path} ({error})") from error
    return FinishedRun(folder, settings, result, environment, class_names, test_photos, probabilities)


def read_trials(path: str | os.PathLike) -> list[dict[str, str]]:
    """The rows of trials.csv of a search's folder, the best first."""
    return read_csv(Path(path) / "trials.csv")


def describe_environment(machine) -> dict:
    """Versions and hardware of this process, and what is in force on it.

    Args:
        machine: a `ktl.training.fit.Machine`.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "versions": {name: importlib.metadata.version(name) for name in REPORTED_PACKAGES},
        "devices": list(machine.devices),
        "precision": machine.precision,
        "xla": machine.xla,
        "strategy": machine.strategy,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
