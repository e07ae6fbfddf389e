"""What a run or a search left in its folder, read as data: no settings object is made, and no TensorFlow is loaded."""

import contextlib
import dataclasses
import os
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import numpy as np

from ktl.arguments import path_of
from ktl.data.duplicates import DuplicateCounts
from ktl.errors import UserError
from ktl.evaluation.metrics import TOP, Scores
from ktl.files import damaged, read_csv, read_lines, reading, way_on
from ktl.stored import read_arrays, read_record

EXTRAS = "extras"
"""In config.json: what a training took that no setting can say; see `ktl.runs.session.Extras`."""


FILES = ("config.json", "result.json", "environment.json", "labels.txt", "predictions.csv", "probabilities.npz")
"""What `read_run` reads."""


class RunSettings(TypedDict):
    """What config.json holds, as far as readers of a run rely on it."""

    dataset: str
    data_dir: str | None
    backbone: str
    weights: str
    head: str
    freeze_depth: str
    scale: float
    seed: int
    extras: NotRequired[dict[str, Any]]


class Environment(TypedDict):
    """What environment.json holds, as far as readers of a run rely on it."""

    versions: dict[str, str]
    devices: list[str]


class WithoutDuplicates(TypedDict):
    """What a run reached on the test photos that look like no training or validation photo.

    Attributes:
        photos: how many these are.
        test: scores on them; None where there are none.
    """

    photos: int
    test: Scores | None


class RefitResult(TypedDict):
    """The second training of a run, see `ktl.runs.refit`: on how many photos, how many epochs, how long."""

    photos: int
    epochs: int
    seconds: float


class MachineRecord(TypedDict):
    """What a run ran on, as far as readers rely on it."""

    devices: list[str]
    precision: str


class ParameterCounts(TypedDict):
    """Elements of all weights, of the frozen ones, and of those that were trained."""

    total: int
    frozen: int
    trained: int


class SplitCounts(TypedDict):
    """Photos of each split."""

    train: int
    validation: int
    test: int


class RunResult(TypedDict):
    """What a run found: result.json.

    Attributes:
        validation: scores on the validation photos, which chose the epoch; with `refit` those of the training that
            did, since the model that is kept was fitted to them.
        test: scores on the test photos, which nothing was chosen by.
        duplicates: split, validation or test -> how many of its photos are in an earlier split too. Version 0.1 wrote
            none, as of the next.
        without_duplicates: scores without these.
        refit: the second training, whose model is kept; None without one. Version 0.1 wrote none.
        settings: the settings that decide numbers.
        command: a shell command that gives the same numbers. Version 0.1 wrote none.
        frozen_up_to: name of the freeze boundary.
        parameters: elements of all weights, of the frozen ones, of those that were trained.
        photos: of each split.
        bad_photos: photo and reason of each that was left out.
        passed_over: what was found and not used: what, count, and example, a path. Version 0.1 wrote none.
        notice: what a reader must know of the data set, or None.
        warnings: what a reader must know of the choices, in lines. Version 0.1 wrote none.
        epochs: how many were trained.
        best_epoch: whose weights the model has, counted from 1.
        seconds: of the epochs, and of computing the frozen layers.
        machine: what it ran on, see `ktl.machine.Machine`.
    """

    validation: Scores
    test: Scores
    duplicates: NotRequired[dict[str, DuplicateCounts]]
    without_duplicates: NotRequired[WithoutDuplicates]
    refit: NotRequired[RefitResult | None]
    settings: dict[str, Any]
    command: NotRequired[str]
    frozen_up_to: str
    parameters: ParameterCounts
    photos: SplitCounts
    bad_photos: list[dict[str, str]]
    passed_over: NotRequired[list[dict[str, Any]]]
    notice: str | None
    warnings: NotRequired[list[str]]
    epochs: int
    best_epoch: int
    seconds: float
    machine: MachineRecord


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What is left of a run that has ended.

    Attributes:
        path: its folder.
        settings: setting -> value, as config.json has it.
        extras: what the training took that no setting can say; see `ktl.runs.session.Extras`.
        result: what result.json holds.
        environment: what environment.json holds.
        class_names: in the order of the probabilities.
        test_photos: ids, in the order of the test probabilities.
        probabilities: validation and test, float32 [photos, classes], and their labels, validation_labels and
            test_labels, int32 [photos].
    """

    path: Path
    settings: Mapping[str, Any]
    extras: Mapping[str, Any]
    result: RunResult
    environment: dict[str, Any]
    class_names: tuple[str, ...]
    test_photos: tuple[str, ...]
    probabilities: Mapping[str, np.ndarray]

    @property
    def command(self) -> str:
        """The shell command that gives this run again, but for the folder that it writes to."""
        return command_of(self.result, script="run")


def read_run(path: str | os.PathLike) -> FinishedRun:
    """Reads the folder of a run, or of a search: then its best run.

    Raises:
        UserError: it is neither, or has not ended.
    """
    path = path_of(path, argument="run")
    if not path.is_dir():
        raise UserError(f"Expected the folder of a run that has ended. Received: {path}, which is no folder")
    folder = path / "best" if (path / "best").is_dir() else path
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing:
        way_on = "Name a folder that a run wrote" if FILES[0] in missing else "Repeat the command that began it"
        lacks = f"Received: {path}, without {', '.join(missing)}"
        raise UserError(f"Expected the folder of a run that has ended. {lacks}. {way_on}")
    kinds = (RunSettings, RunResult, Environment)
    settings, result, environment = (read_record(folder / name, kind) for name, kind in zip(FILES, kinds, strict=False))
    rows = read_csv(folder / "predictions.csv")
    with reading(folder / "predictions.csv"):
        test_photos = tuple(row["photo"] for row in rows)
    class_names = read_lines(folder / "labels.txt")
    probabilities = _read_probabilities(folder / "probabilities.npz", classes=len(class_names), photos=len(test_photos))
    # So that names which were changed by hand are noticed in a folder without checksums too.
    with reading(folder / "predictions.csv"):
        if [class_names[label] for label in probabilities["test_labels"]] != [row["label"] for row in rows]:
            raise ValueError("other labels than labels.txt and probabilities.npz say")
    for split in ("validation", "test"):
        if len(class_names) <= TOP:  # version 0.1 wrote 1
            result[split].pop("top5", None)
    return FinishedRun(
        path=folder,
        extras=settings.pop(EXTRAS, {}),
        settings=settings,
        result=cast(RunResult, result),
        environment=environment,
        class_names=class_names,
        test_photos=test_photos,
        probabilities=probabilities,
    )


def _read_probabilities(path: Path, *, classes: int, photos: int) -> dict[str, np.ndarray]:
    """The arrays of probabilities.npz, of so many classes and test photos."""
    arrays = read_arrays(path)
    with reading(path):
        for split in ("validation", "test"):
            values, labels = arrays[split], arrays[f"{split}_labels"]
            if values.dtype.kind != "f" or values.shape != (len(labels), classes) or not np.isfinite(values).all():
                raise ValueError(f"no probabilities of {classes} classes for each {split} photo")
            if labels.dtype.kind not in "iu" or not np.isin(labels, range(classes)).all() or not labels.size:
                raise ValueError(f"labels of {split} photos that are none of {classes} classes")
        if len(arrays["test"]) != photos:
            raise ValueError(f"{len(arrays['test'])} test photos, of which predictions.csv has {photos}")
    return arrays


_OF_A_RUN = ("model.keras", "labels.txt", "predictions.csv", "probabilities.npz")

LASTING = {
    "run": _OF_A_RUN,
    "search": ("trials.csv", *(f"best/{name}" for name in ("result.json", *_OF_A_RUN))),
    "study": ("runs.csv", "summary.csv"),
}
"""Kind of a folder -> what is in it, besides the result, when the work has ended."""


def has_ended(folder: Path, kind: str) -> bool:
    """Whether a folder of a kind has a result.

    Raises:
        UserError: it has, but not all that goes with it.
    """
    if not (folder / "result.json").exists():
        return False
    missing = [name for name in LASTING[kind] if not (folder / name).is_file()]
    if missing:
        raise damaged(folder, f"the folder of a {kind} that has ended, without {', '.join(missing)}")
    return True


WITHOUT_RESULT = {
    "run": "Remove it: then the same command trains anew",
    "search": "Remove it: then the same command makes it again from the trials",
    "study": "Remove it: then the same command makes it again from the runs",
}
"""Kind of a folder -> what to do about a damaged result.json."""


def reading_result(kind: str) -> contextlib.AbstractContextManager[None]:
    """Says of a damaged result how to go on."""
    return way_on(WITHOUT_RESULT[kind])


def result_of(folder: Path) -> RunResult:
    """What result.json of a finished run holds."""
    with reading_result("run"):
        return cast(RunResult, read_record(folder / "result.json", RunResult))


def command_of(result: Mapping[str, Any], *, script: str, without: Collection[str] = ()) -> str:
    """The shell command that gives a result again.

    Args:
        result: what result.json holds.
        script: the script's name: run, search or study.
        without: settings for which that script has no flag.

    Returns:
        The command that was recorded. Version 0.1 recorded none: then every setting is a flag, since a default of now
        may be another one than of then.
    """
    if "command" in result:
        return result["command"]
    words = ["python", f"experiments/{script}.py"]
    for name, value in result["settings"].items():
        if name not in without and value is not None and value is not False:
            words.append("--" + name.replace("_", "-"))
            words += [] if value is True else [_space(value) if isinstance(value, Mapping) else f"{value}"]
    return shlex.join(words)


def _space(values: Mapping[str, list | None]) -> str:
    """A search's space as its flag has it."""
    return " ".join(name if tried is None else f"{name}={','.join(map(str, tried))}" for name, tried in values.items())
