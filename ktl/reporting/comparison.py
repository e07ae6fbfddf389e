"""What a report says about several runs."""

import dataclasses
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ktl.errors import UserError
from ktl.evaluation.intervals import wilson_interval
from ktl.files import read_csv
from ktl.reporting.formatting import short_names
from ktl.reporting.search import TRIALS, is_search
from ktl.runs.finished_run import FinishedRun, read_run

COLUMNS = {"dataset": "data set", "backbone": "backbone", "head": "head", "freeze_depth": "freeze depth"}
"""Setting -> the title of its column in a comparison."""


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """One of several runs: what it is called, and the number of trials of which it is the best, if any."""

    name: str
    run: FinishedRun
    trials: int | None


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs whose settings are equal but for the seed.

    Attributes:
        runs: by seed.
        settings: of all of them, without the seed and what is not given.
        others: the settings that differ from another group's and that no column shows.
    """

    runs: list[ComparedRun]
    settings: dict[str, Any]
    others: dict[str, Any]

    def scores(self, split: str) -> list[float]:
        return [compared.run.result[split]["top1"] for compared in self.runs]

    def mean(self, split: str) -> float:
        return statistics.fmean(self.scores(split))

    def deviation(self, split: str) -> float | None:
        """Sample standard deviation over the runs; None of a single one."""
        return statistics.stdev(self.scores(split)) if len(self.runs) > 1 else None


def read(folders: Sequence[Path]) -> tuple[str, list[ComparedRun]]:
    """Title of a comparison, and its runs in the order of the folders; of a search its best run."""
    places = [str(folder.resolve()) for folder in folders]
    repeated = next((folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1), None)
    if repeated is not None:
        raise UserError(f"Expected each folder once. Received: {repeated} again")
    common = os.path.commonpath([str(Path(place).parent) for place in places])
    compared = [
        ComparedRun(
            name=os.path.relpath(place, common),
            run=read_run(folder),
            trials=len(read_csv(folder / TRIALS)) if is_search(folder) else None,
        )
        for folder, place in zip(folders, places, strict=True)
    ]
    return f"{len(compared)} runs compared", compared


def comparison(compared: list[ComparedRun]) -> dict[str, Any]:
    groups = _groups(compared)
    intervals = {
        one.name: wilson_interval(one.run.result["test"]["top1"], one.run.result["photos"]["test"]) for one in compared
    }
    return {
        "groups": groups,
        "columns": COLUMNS,
        "short": {name: short_names([group.settings[name] for group in groups]) for name in COLUMNS},
        "intervals": intervals,
        "axis": _axis(groups),
        "has_others": any(group.others for group in groups),
        "has_searches": any(one.trials for one in compared),
    }


def _groups(compared: list[ComparedRun]) -> list[Group]:
    """Runs of equal settings together, in the order in which the first of each was given."""
    found: dict[str, list[ComparedRun]] = {}
    for one in compared:
        found.setdefault(json.dumps(_without_seed(one), sort_keys=True), []).append(one)
    settings = [_without_seed(runs[0]) for runs in found.values()]
    names = dict.fromkeys(name for values in settings for name in values if name not in COLUMNS)
    differing = [name for name in names if len({repr(values.get(name)) for values in settings}) > 1]
    return [
        Group(
            runs=sorted(runs, key=lambda one: one.run.settings["seed"]),
            settings=values,
            others={name: values.get(name) for name in differing},
        )
        for runs, values in zip(found.values(), settings, strict=True)
    ]


def _without_seed(compared: ComparedRun) -> dict[str, Any]:
    """Nor what is not given: an earlier version may not have had that setting."""
    values = {**compared.run.settings, **compared.run.extras}
    return {name: value for name, value in values.items() if name != "seed" and value is not None}


def _axis(groups: Sequence[Group]) -> tuple[float, float]:
    """The twentieths of the range 0 to 1 between which all scores and spreads lie."""
    ends = []
    for group in groups:
        spread = group.deviation("test") or 0
        ends += [*group.scores("test"), group.mean("test") - spread, group.mean("test") + spread]
    low, high = np.floor(20 * min(ends)) / 20, np.ceil(20 * max(ends)) / 20
    return max(0.0, float(low)), min(1.0, float(high if high > low else low + 0.05))
