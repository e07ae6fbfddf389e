"""What a report says about a search."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from ktl.config.settings import SearchConfig
from ktl.errors import UserError
from ktl.reporting import figures as report_figures
from ktl.reporting import run as report_run
from ktl.reporting.run import RunSubject
from ktl.tuning.search_folder import read_trials

BEST_TRIALS = 10


@dataclasses.dataclass(frozen=True)
class SearchSubject:
    """A search and its best run.

    Attributes:
        result: what result.json holds.
        trials: the rows of trials.csv, the best first.
        best: the best trial's run.
    """

    result: dict
    trials: list[dict]
    best: RunSubject

    @property
    def completed(self) -> list[dict]:
        return [row for row in self.trials if row["status"] == "completed"]

    def best_by(self, *names: str) -> dict[tuple, float]:
        """Values of these settings -> the highest validation top-1 of the trials that had them."""
        scores: dict[tuple, float] = {}
        for row in self.completed:
            key = tuple(row[name] for name in names)
            scores[key] = max(scores.get(key, 0), float(row["validation_top1"]))
        return scores

    def values(self, name: str) -> list[str]:
        """The values of a setting that were searched, as trials.csv has them."""
        return [str(value) for value in self.result["space"].get(name, ())]


def is_search(folder: Path) -> bool:
    """Also of one that has not ended."""
    return (folder / "trials.csv").exists()


def read(folders: Sequence[Path]) -> tuple[str, SearchSubject]:
    """Title and subject of the page of one search."""
    (folder,) = folders
    best = report_run.read_subject(folder)
    try:
        result = json.loads((folder / "result.json").read_text())
    except FileNotFoundError as error:
        raise UserError(f"Expected a search that has ended. Received: {folder}, without result.json") from error
    return f"Search: {report_run.title(best.run.config)}", SearchSubject(result, read_trials(folder), best)


# Sections: each gives its template's values, or None where it has nothing to show.


def search(subject: SearchSubject) -> dict:
    config = SearchConfig.from_dict(subject.result["settings"])
    return {
        "result": subject.result,
        "command": config.command(),
        "seeds": config.seeds,
        "photos": subject.best.run.result["photos"],
    }


def trials(subject: SearchSubject) -> dict:
    completed = subject.completed
    return {
        "names": list(subject.result["space"]),
        "groups": (completed[:BEST_TRIALS], completed[BEST_TRIALS:]),
    }


def heat_map(subject: SearchSubject) -> dict | None:
    scales, depths = subject.values("scale"), subject.values("freeze_depth")
    if not scales or not depths:
        return None
    scores = subject.best_by("scale", "freeze_depth")
    return {"scales": scales, "depths": depths, "scores": scores, "ends": (min(scores.values()), max(scores.values()))}


def depths(subject: SearchSubject) -> dict | None:
    searched = subject.values("freeze_depth")
    scores = subject.best_by("freeze_depth") if searched else {}
    depths = [depth for depth in searched if (depth,) in scores]
    if len(depths) < 2:
        return None
    accuracies = [100 * scores[depth,] for depth in depths]
    seconds = [
        statistics.median(float(row["seconds"]) for row in subject.completed if row["freeze_depth"] == depth)
        for depth in depths
    ]
    return {
        "figure": report_figures.depth_curve(depths, accuracies, seconds),
        "rows": list(zip(depths, accuracies, seconds, strict=True)),
    }


def failures(subject: SearchSubject) -> dict | None:
    rows = [row for row in subject.trials if row["status"] != "completed"]
    return {"names": list(subject.result["space"]), "rows": rows} if rows else None
