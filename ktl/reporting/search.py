"""What a report says about a search."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from ktl.errors import UserError
from ktl.evaluation.metrics import Scores
from ktl.evaluation.objectives import objective_of
from ktl.files import read_csv, reading
from ktl.reporting import figures
from ktl.reporting.run_subject import RunSubject, read_subject, title
from ktl.runs.finished_run import command_of
from ktl.stored import read_record

TRIALS = "trials.csv"
"""The table of a search's trials, the best first."""

BEST_TRIALS = 10


@dataclasses.dataclass(frozen=True)
class Trial:
    """A row of trials.csv. Of a trial that failed, the numbers are None.

    Attributes:
        name: of the trial.
        values: setting that was varied -> its value, as trials.csv has it.
        status: completed, or what else became of it.
        reason: why it failed; else empty.
        validation_top1: mean over the trial's seeds, 0 to 1.
        deviation: standard deviation of this over the seeds; None of a single one.
        validation_loss: mean over the seeds.
        epochs: mean over the seeds.
        seconds: that the trial took.
    """

    name: str
    values: Mapping[str, str]
    status: str
    reason: str
    validation_top1: float | None
    deviation: float | None
    validation_loss: float | None
    epochs: float | None
    seconds: float | None


class BestTrialJson(TypedDict):
    """Of the best trial: its name and its values."""

    trial: str
    settings: dict[str, Any]


class SearchJson(TypedDict):
    """What a search's result.json holds, as far as a page shows it."""

    best: BestTrialJson
    validation: Scores
    test: Scores
    trials: dict[str, int]
    oracle: str
    space: dict[str, list]
    settings: dict[str, Any]
    command: NotRequired[str]
    seeds: NotRequired[int]
    seconds: float


@dataclasses.dataclass(frozen=True)
class DepthRow:
    """A freeze depth: the best validation top-1 of its trials in percent, and their median seconds."""

    depth: str
    accuracy: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class SearchSubject:
    """A search and its best run.

    Attributes:
        result: what result.json holds.
        trials: the best first.
        best: the best trial's run.
    """

    result: dict[str, Any]
    trials: list[Trial]
    best: RunSubject

    @property
    def completed(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.status == "completed"]

    def best_by(self, *names: str) -> dict[tuple[str, ...], float]:
        """Values of these settings -> the highest validation top-1 of the trials that had them."""
        scores: dict[tuple[str, ...], float] = {}
        for trial in self.completed:
            key = tuple(trial.values[name] for name in names)
            scores[key] = max(scores.get(key, 0.0), trial.validation_top1 or 0.0)
        return scores

    def values(self, name: str) -> list[str]:
        """The values of a setting that were searched, as trials.csv has them."""
        return [str(value) for value in self.result["space"].get(name, ())]


def is_search(folder: Path) -> bool:
    """Whether it is a search's folder, also of a search that has not ended."""
    return (folder / TRIALS).exists()


def read(folders: Sequence[Path]) -> tuple[str, SearchSubject]:
    """Title and subject of the page of one search."""
    (folder,) = folders
    best = read_subject(folder)
    try:
        result = read_record(folder / "result.json", SearchJson)
    except FileNotFoundError as error:
        raise UserError(f"Expected a search that has ended. Received: {folder}, without result.json") from error
    with reading(folder / TRIALS):
        trials = [_trial(row, names=result["space"]) for row in read_csv(folder / TRIALS)]
    return f"Search: {title(best.run)}", SearchSubject(result, trials, best)


def _trial(row: Mapping[str, str], *, names: Sequence[str]) -> Trial:
    def number(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    return Trial(
        name=row["trial"],
        values={name: row[name] for name in names},
        status=row["status"],
        reason=row["reason"],
        validation_top1=number("validation_top1"),
        deviation=number("validation_top1_sd"),
        validation_loss=number("validation_loss"),
        epochs=number("epochs"),
        seconds=number("seconds"),
    )


# Sections: each gives its template's values, or None where it has nothing to show.


def search(subject: SearchSubject) -> dict[str, Any]:
    return {
        "result": subject.result,
        "command": command_of(subject.result, script="search"),
        "seeds": subject.result.get("seeds") or subject.result["settings"]["seeds"],
        "photos": subject.best.run.result["photos"],
        "objective": objective_of(subject.result["settings"]),
    }


def trials(subject: SearchSubject) -> dict[str, Any]:
    completed = subject.completed
    return {
        "names": list(subject.result["space"]),
        "groups": (completed[:BEST_TRIALS], completed[BEST_TRIALS:]),
    }


def heat_map(subject: SearchSubject) -> dict[str, Any] | None:
    scales, depths = subject.values("scale"), subject.values("freeze_depth")
    if not scales or not depths:
        return None
    scores = subject.best_by("scale", "freeze_depth")
    return {"scales": scales, "depths": depths, "scores": scores, "ends": (min(scores.values()), max(scores.values()))}


def depths(subject: SearchSubject) -> dict[str, Any] | None:
    searched = subject.values("freeze_depth")
    scores = subject.best_by("freeze_depth") if searched else {}
    rows = [
        DepthRow(depth, 100 * scores[depth,], _median_seconds(subject, depth))
        for depth in searched
        if (depth,) in scores
    ]
    if len(rows) < 2:
        return None
    names, accuracies, seconds = zip(*map(dataclasses.astuple, rows), strict=True)
    return {"figure": figures.depth_curve(names, accuracies, seconds), "rows": rows}


def _median_seconds(subject: SearchSubject, depth: str) -> float:
    return statistics.median(
        trial.seconds or 0.0 for trial in subject.completed if trial.values["freeze_depth"] == depth
    )


def failures(subject: SearchSubject) -> dict[str, Any] | None:
    rows = [trial for trial in subject.trials if trial.status != "completed"]
    return {"names": list(subject.result["space"]), "rows": rows} if rows else None
