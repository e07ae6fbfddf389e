"""What a report says about a run."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ktl.evaluation.intervals import wilson_interval
from ktl.evaluation.metrics import class_scores, reliability_bins, shown_scores
from ktl.evaluation.objectives import objective_of
from ktl.reporting import figures, provenance
from ktl.reporting.duplicates import shown as duplicates_shown
from ktl.reporting.run_subject import CONFIDENT_MISTAKES, LISTED, MATRIX_CLASSES, DrivingClass, RunSubject

HEAT_CLASSES = 20
"""Classes of the heat map of the kept layer, the most accurate ones."""

NAMED = 5
"""ImageNet classes that the kept layer's table names for each class."""

PERCENTAGES = ("top1", "top5", "mean_class_accuracy", "macro_f1")
"""Scores that are shown in percent."""


@dataclasses.dataclass(frozen=True)
class ScoreRow:
    """A score on both splits; `percentage` says whether it is shown in percent."""

    title: str
    percentage: bool
    test: float
    validation: float


@dataclasses.dataclass(frozen=True, order=True)
class ClassAccuracy:
    """How many of a class's test photos were recognised; the lowest accuracy sorts first. Precision is None of a class
    that no photo was taken for."""

    accuracy: float
    name: str
    right: int
    total: int
    precision: float | None = dataclasses.field(compare=False)
    f1: float = dataclasses.field(compare=False)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the accuracy."""
        return wilson_interval(self.accuracy, self.total)


@dataclasses.dataclass(frozen=True)
class Explained:
    """A class of the data set, the ImageNet classes that speak most for it, and their share in all that does."""

    name: str
    driving: Sequence[DrivingClass]

    @property
    def share(self) -> float:
        return sum(row.share for row in self.driving)


# Sections: each gives its template's values, or None where it has nothing to show.


def result(subject: RunSubject) -> dict[str, Any]:
    result = subject.run.result
    test, validation, photos = result["test"], result["validation"], result["photos"]
    rows = [
        ScoreRow(title, name in PERCENTAGES, test[name], validation[name])
        for name, title in shown_scores(test, validation).items()
    ]
    return {
        "run": subject.run,
        "top1": test["top1"],
        "interval": wilson_interval(test["top1"], photos["test"]),
        "rows": rows,
        "photos": photos,
        "without_duplicates": subject.run.result.get("without_duplicates"),
        "random": subject.run.settings["weights"] == "random",
        "objective": objective_of(subject.run.settings),
    }


def curves(subject: RunSubject) -> dict[str, Any]:
    history, best = subject.history, subject.run.result["best_epoch"]
    draw = figures.learning_curves
    return {
        "figures": (
            draw(history, measure="top1", label="top-1, %", best_epoch=best, factor=100),
            draw(history, measure="loss", label="loss", best_epoch=best),
        ),
        "history": history,
        "best_epoch": best,
        "refit": subject.run.result.get("refit"),
        "objective": objective_of(subject.run.settings),
    }


def confusion(subject: RunSubject) -> dict[str, Any]:
    matrix, names = subject.confusion, subject.run.class_names
    shown = {cell: [subject.photos[n] for n in photos if n in subject.photos] for cell, photos in subject.cells.items()}
    many = len(names) > MATRIX_CLASSES
    return {
        "names": names,
        "matrix": matrix,
        "totals": matrix.sum(axis=1),
        "cells": {cell: photos for cell, photos in shown.items() if photos},
        "image": figures.confusion_image(matrix) if many else None,
        "shown": len(subject.photos),
        "all": len(subject.labels),
        "has_thumbnails": subject.has_thumbnails,
        "dataset": subject.run.settings["dataset"],
    }


def mistakes(subject: RunSubject) -> dict[str, Any]:
    numbers = subject.mistakes[:CONFIDENT_MISTAKES]
    return {
        "photos": [subject.photos[number] for number in numbers],
        "mistakes": len(subject.mistakes),
        "all": len(subject.labels),
    }


def classes(subject: RunSubject) -> dict[str, Any]:
    scores = class_scores(subject.run.probabilities["test"], subject.labels)
    named = list(zip(subject.run.class_names, scores, subject.confusion.diagonal().tolist(), strict=True))
    rows = sorted(
        ClassAccuracy(found.recall, name, right, found.photos, found.precision, found.f1)
        for name, found, right in named
        if found.recall is not None and found.f1 is not None
    )
    return {
        "groups": (rows[:LISTED], rows[LISTED:]),
        "untested": [name for name, found, _ in named if not found.photos],
    }


def kept_layer(subject: RunSubject) -> dict[str, Any] | None:
    if not subject.driving:
        return None
    shown = _most_accurate(subject, HEAT_CLASSES)
    highest = max(row.contribution for name in shown for row in subject.driving[name])
    number = f"%.{max(0, 1 - math.floor(math.log10(highest)))}f"
    # Probabilities are mostly zero: what would be told as 0.00 is left out.
    told = {name: [row for row in found if float(number % row.contribution)] for name, found in subject.driving.items()}
    rows = [Explained(name, found[:NAMED]) for name, found in told.items()]
    cells = {(name, row.synset): row for name in shown for row in told[name]}
    # Of each class the first that its photos are like.
    alike = [next((row for row in told[name] if row.activation > 0), None) for name in shown]
    return {
        "groups": (rows[:LISTED], rows[LISTED:]),
        "shown": shown,
        "columns": {row.synset: row.name for row in alike if row},
        "cells": cells,
        "highest": highest,
        "number": number,
        "named": NAMED,
    }


def _most_accurate(subject: RunSubject, count: int) -> list[str]:
    """So many classes of those whose driving classes are known, in the order of the classes."""
    known = [number for number, name in enumerate(subject.run.class_names) if name in subject.driving]
    accuracy = subject.confusion.diagonal() / np.maximum(subject.confusion.sum(axis=1), 1)
    best = sorted(known, key=lambda number: (-accuracy[number], number))[:count]
    return [subject.run.class_names[number] for number in sorted(best)]


def calibration(subject: RunSubject) -> dict[str, Any]:
    bins = reliability_bins(subject.confidence, subject.predictions == subject.labels)
    ece = subject.run.result["test"]["ece"]
    return {"bins": bins, "ece": ece, "figure": figures.reliability(bins, ece=ece)}


def duplicates(subject: RunSubject) -> dict[str, Any] | None:
    return duplicates_shown(subject.duplicates) if subject.duplicates is not None else None


def settings(subject: RunSubject) -> dict[str, Any]:
    run = subject.run
    return provenance.settings(run.settings, command=run.command, by_default="command" in run.result, extras=run.extras)


def environment(subject: RunSubject) -> dict[str, Any]:
    return provenance.environment(subject.run.environment, kind="run")
