"""What a report says about a study."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ktl.evaluation.intervals import wilson_interval
from ktl.evaluation.metrics import CONVERGED
from ktl.models.heads import BASELINE, HEADS
from ktl.reporting import figures, provenance
from ktl.reporting.duplicates import shown as duplicates_shown
from ktl.reporting.study_subject import VARIED, WHOLE, Estimate, StudySubject, SummaryRow
from ktl.runs.finished_run import command_of

METHOD = "kept"
"""Head whose difference to `ktl.models.heads.BASELINE` is a study's headline."""


@dataclasses.dataclass(frozen=True)
class DepthRow:
    """A freeze depth: each head's row of the summary, and the mean seconds of a run."""

    depth: str
    heads: Sequence[SummaryRow]
    seconds: float


@dataclasses.dataclass(frozen=True)
class PartRow:
    """A part of the training photos, and each head's row of the summary."""

    name: str
    heads: Sequence[SummaryRow]


@dataclasses.dataclass(frozen=True)
class Convergence:
    """How fast a head's runs at its best freeze depth came near their best, one number a seed.

    Attributes:
        head: its name.
        freeze_depth: the best one.
        converged: epochs until a run was near its best.
        epochs: that a run was trained.
        validation_top1: the mean of the runs' best, 0 to 1.
    """

    head: str
    freeze_depth: str
    converged: Sequence[int]
    epochs: Sequence[int]
    validation_top1: float


# Sections: each gives its template's values, or None where it has nothing to show.


def answer(subject: StudySubject) -> dict[str, Any]:
    best = subject.best
    return {
        "method": best.get(METHOD),
        "baseline": best.get(BASELINE),
        "rows": list(best.values()),
        "chosen": subject.result.get("chosen"),  # a study of an earlier version has none
        "axis": _difference_axis([row.difference for row in best.values() if row.difference]),
        "seeds": subject.settings["seeds"],
        "adjusted": subject.adjusted,
        "counts_choices": subject.counts_choices,
        "notice": subject.result["notice"],
        "warnings": subject.result.get("warnings", ()),
        "random": subject.settings["weights"] == "random",
    }


def _difference_axis(differences: Sequence[Estimate]) -> tuple[float, float]:
    """The whole points between which zero and all intervals lie, and room for a dot."""
    ends = [0.0, *(end for row in differences for end in (row.low, row.high) if end is not None)]
    return (float(np.floor(100 * min(ends))) - 1) / 100, (float(np.ceil(100 * max(ends))) + 1) / 100


def freezing(subject: StudySubject) -> dict[str, Any]:
    depths, best = subject.depths, subject.best_depths
    table = {head: [subject.rows[head, depth, WHOLE] for depth in depths] for head in best}
    by_depth = list(zip(*table.values(), strict=True))
    seconds = [statistics.fmean(row.seconds for row in rows) for rows in by_depth]
    lines = _lines(table, at=range(len(depths)))
    return {
        "figure": figures.depth_lines(lines, depths=depths, seconds=seconds),
        "heads": list(best),
        "rows": list(map(DepthRow, depths, by_depth, seconds)),
        "best": best,
        "seeds": subject.settings["seeds"],
        "adjusted": subject.adjusted,
    }


def _lines(table: Mapping[str, Sequence[SummaryRow]], *, at: Sequence[float]) -> list[figures.Line]:
    """Test top-1 of each head's rows of the summary, in percent."""
    return [
        figures.Line(
            head,
            _look(head),
            list(at),
            values=[100 * row.test.estimate for row in rows],
            low=[_percent(row.test.low) for row in rows],
            high=[_percent(row.test.high) for row in rows],
        )
        for head, rows in table.items()
    ]


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _look(head: str) -> int:
    """How a head's lines are drawn: the same in every study."""
    return list(HEADS).index(head)


def convergence(subject: StudySubject) -> dict[str, Any] | None:
    lines, rows = [], []
    for head, depth in subject.best_depths.items():
        runs = [run for run in subject.runs_at_best(head) if not run.failed]
        if not runs:
            continue
        # Patience ends runs at different epochs, and a mean over fewer seeds would jump.
        epochs = min(len(run.history) for run in runs)
        scores = 100 * np.array([run.history[:epochs] for run in runs])
        middle, low, high = (f(scores, 0).tolist() for f in (np.mean, np.min, np.max))
        lines.append(figures.Line(head, _look(head), list(range(1, epochs + 1)), middle, low, high))
        rows.append(
            Convergence(
                head,
                depth,
                converged=[run.converged for run in runs],
                epochs=[run.epochs for run in runs],
                validation_top1=statistics.fmean(run.validation_top1 for run in runs),
            )
        )
    if not rows:
        return None
    converged = {row.head: statistics.fmean(row.converged) for row in rows}
    return {"figure": figures.convergence(lines, converged=converged), "rows": rows, "level": CONVERGED}


def shares(subject: StudySubject) -> dict[str, Any] | None:
    photos = {row.part: row.photos for row in sorted(subject.summary, key=lambda row: row.photos)}
    if len(photos) < 2:
        return None
    table = {head: [subject.rows[head, depth, part] for part in photos] for head, depth in subject.best_depths.items()}
    return {
        "figure": figures.share_lines(_lines(table, at=list(photos.values()))),
        "heads": list(table),
        "adjusted": subject.adjusted,
        "rows": [PartRow(rows[0].part_name, rows) for rows in zip(*table.values(), strict=True)],
    }


def probes(subject: StudySubject) -> dict[str, Any] | None:
    rows = subject.result.get("probes")  # a study of version 0.1 has none
    if not rows:
        return None
    names = {row.part: row.part_name for row in subject.summary}
    return {
        "rows": [
            {**row, "part": names[row["share"], row["shots"]], "test": Estimate.from_json(row["test_top1"])}
            for row in rows
        ]
    }


def zero_shot(subject: StudySubject) -> dict[str, Any] | None:
    found = subject.result.get("zero_shot")  # a study of an earlier version has none
    if not found:
        return None
    ids = {synset["id"] for synsets in found["synsets"].values() for synset in synsets}
    return {
        **found,
        "heads": {head: Estimate.from_json(value) for head, value in found["heads"].items()},
        "synset_count": len(ids),
        "top1_interval": wilson_interval(found["top1"], found["photos"]),
        "restricted_interval": wilson_interval(found["restricted_top1"], found["photos"]),
        "depths": subject.best_depths,
        "seeds": subject.settings["seeds"],
        "adjusted": subject.adjusted,
    }


def duplicates(subject: StudySubject) -> dict[str, Any] | None:
    if "duplicates" not in subject.result:  # a study of an earlier version
        return None
    return duplicates_shown(subject.duplicates, subject.result.get("without_duplicates"))


def summary(subject: StudySubject) -> dict[str, Any]:
    return {
        "rows": subject.summary,
        "failed": subject.result.get("failed", {}),  # a study of an earlier version has none
        "depths": subject.depths,
        "best": {(head, depth, WHOLE) for head, depth in subject.best_depths.items()},
        "level": CONVERGED,
        "adjusted": subject.adjusted,
    }


def tuned(subject: StudySubject) -> dict[str, Any]:
    rows = subject.result["tuned"]
    return {
        "rows": rows,
        "scaled": {row["head"] for row in rows if HEADS[row["head"]].normalization == "scaled_unit"},
        "multiplied": any("head_multiplier" in row for row in rows),  # a study of version 0.1 had one for all
        "part_names": {row.part: row.part_name for row in subject.summary},
        "seconds": subject.result["seconds"],
    }


def settings(subject: StudySubject) -> dict[str, Any]:
    command = command_of(subject.result, script="study", without=VARIED)
    by_default = "command" in subject.result
    return provenance.settings(subject.settings, command=command, by_default=by_default, without=VARIED)


def environment(subject: StudySubject) -> dict[str, Any]:
    return provenance.environment(subject.environment, kind="study")
