"""What is left of a run that has ended, as exports and reports read it."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from ktl.config.settings import RunConfig
from ktl.errors import UserError
from ktl.evaluation.metrics import Scores
from ktl.files import read_csv, read_json, read_lines

EXTRAS = "extras"
"""In config.json: what a training took that no setting can say; see `ktl.runs.session.Extras`."""


class RunResult(TypedDict):
    """What a run found: result.json.

    Attributes:
        validation: scores on the validation photos, which chose the epoch.
        test: scores on the test photos, which nothing was chosen by.
        settings: the settings that decide numbers.
        frozen_up_to: name of the freeze boundary.
        parameters: elements of all weights, of the frozen ones, of those that were trained: total, frozen, trained.
        photos: of each split: train, validation, test.
        bad_photos: photo and reason of each that was left out.
        notice: what a reader must know of the data set, or None.
        epochs: how many were trained.
        best_epoch: whose weights the model has, counted from 1.
        seconds: of the epochs, and of computing the frozen layers.
        machine: what it ran on, see `ktl.machine.Machine`.
    """

    validation: Scores
    test: Scores
    settings: dict[str, Any]
    frozen_up_to: str
    parameters: dict[str, int]
    photos: dict[str, int]
    bad_photos: list[dict[str, str]]
    notice: str | None
    epochs: int
    best_epoch: int
    seconds: float
    machine: dict[str, Any]


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
    result: RunResult
    environment: dict[str, Any]
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
    config, result, environment = (read_json(folder / name) for name in names[:3])
    test_photos = tuple(row["photo"] for row in read_csv(folder / "predictions.csv"))
    with np.load(folder / "probabilities.npz", allow_pickle=False) as file:
        probabilities = dict(file)
    class_names = read_lines(folder / "labels.txt")
    settings = RunConfig.from_dict(config)
    return FinishedRun(folder, settings, cast(RunResult, result), environment, class_names, test_photos, probabilities)
