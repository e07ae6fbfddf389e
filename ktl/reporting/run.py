"""What a report says about a run."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ktl.config.settings import RunConfig
from ktl.evaluation.intervals import wilson_interval
from ktl.evaluation.metrics import SCORES, confusion_matrix, reliability_bins
from ktl.files import read_csv
from ktl.reporting import figures as report_figures
from ktl.reporting import settings as report_settings
from ktl.reporting.formatting import short_name
from ktl.reporting.thumbnails import ShownPhoto, Thumbnail, thumbnails
from ktl.runs.finished_run import FinishedRun, read_run

SHOWN_PHOTOS = 200
"""Photos of a page, whatever the size of the test split."""

CONFIDENT_MISTAKES = 24

MATRIX_CLASSES = 40
"""Of more classes, the confusion matrix is an image, and its most frequent confusions are a list."""

HEAT_CLASSES = 20
"""Classes of the heat map of the kept layer, the most accurate ones."""

NAMED = 5
"""ImageNet classes that the kept layer's table names for each class."""

LISTED = 40
"""Rows of a long list that show without being asked for."""

PERCENTAGES = ("top1", "top5", "mean_class_accuracy")
"""Scores that are shown in percent."""


@dataclasses.dataclass(frozen=True)
class RunSubject:
    """A run, its history, and which test photo was taken for what.

    Attributes:
        run: as it was read.
        history: the rows of history.csv, as numbers.
        predictions: int [photos], predicted classes.
        driving: class -> its rows of kept_layer.csv, the strongest first; empty where a run has none.
    """

    run: FinishedRun
    history: list[dict]
    predictions: np.ndarray
    driving: dict[str, list[dict]]

    @property
    def labels(self) -> np.ndarray:
        return self.run.probabilities["test_labels"]

    @cached_property
    def confidence(self) -> np.ndarray:
        """float32 [photos]: probability of the predicted class."""
        return self.run.probabilities["test"][np.arange(len(self.predictions)), self.predictions]

    @cached_property
    def confusion(self) -> np.ndarray:
        """int [classes, classes], true classes in rows."""
        return confusion_matrix(self.run.probabilities["test"], self.labels)

    @cached_property
    def mistakes(self) -> list[int]:
        """Photos that were taken for something else, the most confident mistake first."""
        return [photo for photo in self._by_confidence if self.labels[photo] != self.predictions[photo]]

    @cached_property
    def cells(self) -> dict[tuple[int, int], list[int]]:
        """(true, predicted) -> photos; confusions before what is right, the most frequent first."""
        cells: dict[tuple[int, int], list[int]] = {}
        for photo in self._by_confidence:
            cells.setdefault((int(self.labels[photo]), int(self.predictions[photo])), []).append(photo)
        ordered = sorted(cells, key=lambda cell: (cell[0] == cell[1], -len(cells[cell]), cell))
        if len(self.run.class_names) > MATRIX_CLASSES:
            ordered = [cell for cell in ordered if cell[0] != cell[1]][:LISTED]
        return {cell: cells[cell] for cell in ordered}

    @cached_property
    def photos(self) -> dict[int, ShownPhoto]:
        """Photos by number: the most confident mistakes, then some of each cell in turn, those of mistakes first."""
        wrong = [photos for (label, prediction), photos in self.cells.items() if label != prediction]
        right = [photos for (label, prediction), photos in self.cells.items() if label == prediction]
        wanted = [*self.mistakes[:CONFIDENT_MISTAKES], *_in_turn(wrong), *_in_turn(right)]
        numbers = list(dict.fromkeys(wanted))[:SHOWN_PHOTOS]
        pictures = thumbnails(self.run, numbers)
        return {number: self._photo(number, pictures.get(number)) for number in numbers}

    @property
    def has_thumbnails(self) -> bool:
        return any(photo.thumbnail for photo in self.photos.values())

    @cached_property
    def _by_confidence(self) -> list[int]:
        return np.argsort(-self.confidence, kind="stable").tolist()

    def _photo(self, number: int, thumbnail: Thumbnail | None) -> ShownPhoto:
        names, label = self.run.class_names, self.labels[number]
        return ShownPhoto(
            number=number,
            name=self.run.test_photos[number],
            label=names[label],
            prediction=names[self.predictions[number]],
            probability=float(self.confidence[number]),
            label_probability=float(self.run.probabilities["test"][number, label]),
            thumbnail=thumbnail,
        )


def read(folders: Sequence[Path]) -> tuple[str, RunSubject]:
    """Title and subject of the page of one run."""
    (folder,) = folders
    subject = read_subject(folder)
    return title(subject.run.config), subject


def read_subject(folder: Path) -> RunSubject:
    """Of a run's folder; of a search's, its best run."""
    run = read_run(folder)
    history = [{name: float(value) for name, value in row.items()} for row in read_csv(run.path / "history.csv")]
    numbers = {name: number for number, name in enumerate(run.class_names)}
    predictions = np.array([numbers[row["prediction"]] for row in read_csv(run.path / "predictions.csv")])
    return RunSubject(run, history, predictions, _read_kept_layer(run.path / "kept_layer.csv"))


def _read_kept_layer(path: Path) -> dict[str, list[dict]]:
    if not path.exists():
        return {}
    driving: dict[str, list[dict]] = {}
    for row in read_csv(path):
        numbers = {name: float(row[name]) for name in ("contribution", "share", "activation")}
        driving.setdefault(row["class"], []).append(row | numbers)
    return driving


def title(config: RunConfig) -> str:
    """What runs of this data set, backbone and head are called."""
    return f"{short_name(config.dataset)}, {short_name(config.backbone)}, {config.head}"


def _in_turn(groups: Iterable[Sequence[int]]) -> list[int]:
    """The first of each group, then the second of each, and so on."""
    rounds = itertools.zip_longest(*groups)
    return [photo for together in rounds for photo in together if photo is not None]


# Sections: each gives its template's values, or None where it has nothing to show.


def result(subject: RunSubject) -> dict:
    run = subject.run
    result, photos = run.result, run.result["photos"]
    low, high = wilson_interval(result["test"]["top1"], photos["test"])
    return {
        "run": run,
        "top1": result["test"]["top1"],
        "interval": (low, high),
        "rows": [
            (title, key in PERCENTAGES, result["test"][key], result["validation"][key]) for key, title in SCORES.items()
        ],
        "photos": photos,
        "random": run.config.weights == "random",
    }


def curves(subject: RunSubject) -> dict:
    history, best = subject.history, subject.run.result["best_epoch"]
    draw = report_figures.learning_curves
    return {
        "figures": (
            draw(history, measure="top1", label="top-1, %", best_epoch=best, factor=100),
            draw(history, measure="loss", label="loss", best_epoch=best),
        ),
        "history": history,
        "best_epoch": best,
    }


def confusion(subject: RunSubject) -> dict:
    matrix, names = subject.confusion, subject.run.class_names
    shown = {cell: [subject.photos[n] for n in photos if n in subject.photos] for cell, photos in subject.cells.items()}
    many = len(names) > MATRIX_CLASSES
    return {
        "names": names,
        "matrix": matrix,
        "totals": matrix.sum(axis=1),
        "cells": {cell: photos for cell, photos in shown.items() if photos},
        "image": report_figures.confusion_image(matrix) if many else None,
        "shown": len(subject.photos),
        "all": len(subject.labels),
        "has_thumbnails": subject.has_thumbnails,
        "dataset": subject.run.config.dataset,
    }


def mistakes(subject: RunSubject) -> dict:
    numbers = subject.mistakes[:CONFIDENT_MISTAKES]
    return {
        "photos": [subject.photos[number] for number in numbers],
        "mistakes": len(subject.mistakes),
        "all": len(subject.labels),
    }


def classes(subject: RunSubject) -> dict:
    rows = []
    for name, total, right in zip(
        subject.run.class_names, subject.confusion.sum(axis=1), subject.confusion.diagonal(), strict=True
    ):
        if total:
            rows.append((right / total, name, int(right), int(total), wilson_interval(right / total, int(total))))
    rows.sort(key=lambda row: row[:2])
    tested = {row[1] for row in rows}
    return {
        "groups": (rows[:LISTED], rows[LISTED:]),
        "untested": [name for name in subject.run.class_names if name not in tested],
    }


def kept_layer(subject: RunSubject) -> dict | None:
    if not subject.driving:
        return None
    rows = [
        (name, found[:NAMED], sum(row["share"] for row in found[:NAMED])) for name, found in subject.driving.items()
    ]
    shown = _most_accurate(subject, HEAT_CLASSES)
    cells = {(name, row["synset"]): row for name in shown for row in subject.driving[name]}
    highest = max(row["contribution"] for row in cells.values())
    # Of each class the first that its photos are like.
    alike = [next((row for row in subject.driving[name] if row["activation"] > 0), None) for name in shown]
    return {
        "groups": (rows[:LISTED], rows[LISTED:]),
        "shown": shown,
        "columns": {row["synset"]: row["imagenet_class"] for row in alike if row},
        "cells": cells,
        "highest": highest,
        "number": f"%.{max(0, 1 - math.floor(math.log10(highest)))}f",
        "named": NAMED,
    }


def _most_accurate(subject: RunSubject, count: int) -> list[str]:
    """So many classes of those whose driving classes are known, in the order of the classes."""
    known = [number for number, name in enumerate(subject.run.class_names) if name in subject.driving]
    accuracy = subject.confusion.diagonal() / np.maximum(subject.confusion.sum(axis=1), 1)
    best = sorted(known, key=lambda number: (-accuracy[number], number))[:count]
    return [subject.run.class_names[number] for number in sorted(best)]


def calibration(subject: RunSubject) -> dict:
    bins = reliability_bins(subject.confidence, subject.predictions == subject.labels)
    ece = subject.run.result["test"]["ece"]
    return {"bins": bins, "ece": ece, "figure": report_figures.reliability(bins, ece=ece)}


def settings(subject: RunSubject) -> dict:
    return report_settings.settings(subject.run.config)


def environment(subject: RunSubject) -> dict:
    return report_settings.environment(subject.run.environment, kind="run")
