"""A search's folder."""

import os
from pathlib import Path

from ktl.files import read_csv
from ktl.runs.run_folder import RunFolder


class SearchFolder(RunFolder):
    """The files of one search: config.json, dataset.json, environment.json and result.json as a run has them, and

    trials.csv   one row a trial
    heatmap.png  validation top-1 over scale and freeze depth, where both are varied
    trials/      KerasTuner's project: oracle.json, and a folder a trial
    best/        a run's folder: of the best trial
    """

    KIND = "search"
    WAYS_ON = "Name another `output`, or `overwrite` this one"


def read_trials(path: str | os.PathLike) -> list[dict[str, str]]:
    """The rows of trials.csv of a search's folder, the best first."""
    return read_csv(Path(path) / "trials.csv")
