"""A search's folder, and what its result and its trials' folders hold."""

import os
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from ktl.evaluation.metrics import Scores
from ktl.files import read_csv
from ktl.runs.finished_run import RefitResult, reading_result
from ktl.runs.run_folder import RunFolder
from ktl.stored import read_record

ANEW = "Repeat the search with `overwrite`: it begins anew"
"""What to do about a damaged file of a search that has not ended."""

REASON = "reason.txt"
"""File in a failed trial's folder that says why it failed."""


class BestTrial(TypedDict):
    """The trial that is the best by the objective, and among equals has the lowest validation loss.

    Attributes:
        trial: its id.
        settings: its values of the settings that the search varied.
        validation_top1: mean over its seeds, 0 to 1.
        validation_score: the objective's, mean over its seeds. Version 0.1 wrote none.
    """

    trial: str
    settings: dict[str, Any]
    validation_top1: float
    validation_score: NotRequired[float]


class SearchResult(TypedDict):
    """What a search found: result.json.

    Attributes:
        best: the chosen trial.
        validation: its model's scores on the validation photos, which chose it.
        test: its model's scores on the test photos, which nothing was chosen by.
        refit: its second training, whose model is kept; None without one. Version 0.1 wrote none.
        trials: status, completed or failed, -> number of trials.
        oracle: how values were chosen: grid, random, bayesian or hyperband.
        space: setting -> the values that were to be tried.
        settings: the settings that decide numbers.
        command: what a shell takes to do the search again. Version 0.1 wrote none.
        seeds: trainings a trial. Version 0.1 wrote none, as of the next: the settings have it.
        warnings: what a reader must know of the choices, in lines.
        seconds: that the last call took.
    """

    best: BestTrial
    validation: Scores
    test: Scores
    refit: NotRequired[RefitResult | None]
    trials: dict[str, int]
    oracle: str
    space: dict[str, list]
    settings: dict[str, Any]
    command: NotRequired[str]
    seeds: NotRequired[int]
    warnings: NotRequired[list[str]]
    seconds: float


class SearchFolder(RunFolder):
    """The files of one search: config.json, dataset.json, environment.json and result.json as a run has them, and

    trials.csv   one row a trial
    heatmap.png  validation top-1 over scale and freeze depth, where both are varied
    trials/      KerasTuner's project: oracle.json, and a folder a trial
    best/        a run's folder: of the best trial
    """

    KIND = "search"
    WAYS_ON = "Name another `output`, or `overwrite` this one"

    @property
    def best(self) -> Path:
        """The folder of the best trial's run."""
        return self.path / "best"

    def search_result(self) -> SearchResult:
        """What result.json of a finished search holds."""
        with reading_result(self.KIND):
            return cast(SearchResult, read_record(self.path / "result.json", SearchResult))


def checkpoint_folder(trial_folder: Path, seed: int) -> Path:
    """Where the training of a trial with a seed keeps its state, see `ktl.training.checkpoint.Checkpoint`."""
    return trial_folder / f"seed-{seed}"


def checkpoint_folders(trial_folder: Path) -> list[Path]:
    """Those of all seeds that have begun."""
    return sorted(trial_folder.glob("seed-*"))


def read_trials(path: str | os.PathLike) -> list[dict[str, str]]:
    """The rows of trials.csv of a search's folder, the best first."""
    return read_csv(Path(path) / "trials.csv")
