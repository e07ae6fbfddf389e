"""What a run left in its folder, and which of its test photos a page shows."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ktl.data.duplicates import Duplicate, read_duplicates
from ktl.evaluation.metrics import confusion_matrix
from ktl.files import read_csv, reading
from ktl.reporting.formatting import short_name
from ktl.reporting.thumbnails import ShownPhoto, Thumbnail, thumbnails
from ktl.runs.finished_run import FinishedRun, read_run

SHOWN_PHOTOS = 200
"""Photos of a page, whatever the size of the test split."""

CONFIDENT_MISTAKES = 24

MATRIX_CLASSES = 40
"""Of more classes, the confusion matrix is an image, and its most frequent confusions are a list."""

HISTORY = ("epoch", "loss", "top1", "validation_loss", "validation_top1", "seconds")
"""Columns of history.csv that a page shows."""

LISTED = 40
"""Rows of a long list that show without being asked for."""


@dataclasses.dataclass(frozen=True)
class DrivingClass:
    """An ImageNet class that speaks for a class of the data set: a row of kept_layer.csv.

    Attributes:
        synset: its WordNet id.
        name: what it is called.
        contribution: what it adds to the class's logit.
        share: of this in all that speaks for the class, 0 to 1.
        activation: what the new layer read of it, on average over the class's test photos; negative where they are
            unlike it.
    """

    synset: str
    name: str
    contribution: float
    share: float
    activation: float


@dataclasses.dataclass(frozen=True)
class RunSubject:
    """A run, its history, and which test photo was taken for what.

    Attributes:
        run: as it was read.
        history: the rows of history.csv, as numbers.
        predictions: int [photos], predicted classes.
        driving: class -> the ImageNet classes that speak for it, the strongest first; empty where that is not known.
        duplicates: what duplicates.csv holds; None of a run of version 0.1.
    """

    run: FinishedRun
    history: list[dict[str, float]]
    predictions: np.ndarray
    driving: dict[str, list[DrivingClass]]
    duplicates: Sequence[Duplicate] | None = None

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
    return title(subject.run), subject


def read_subject(folder: Path) -> RunSubject:
    """What is left of a run, from its folder; from a search's, its best run."""
    run = read_run(folder)
    history = _read_history(run.path / "history.csv", run)
    numbers = {name: number for number, name in enumerate(run.class_names)}
    path = run.path / "predictions.csv"
    with reading(path):
        predictions = np.array([numbers[row["prediction"]] for row in read_csv(path)])
    path = run.path / "duplicates.csv"
    found = read_duplicates(path) if path.exists() else None
    return RunSubject(run, history, predictions, _read_kept_layer(run.path / "kept_layer.csv"), found)


def _read_history(path: Path, run: FinishedRun) -> list[dict[str, float]]:
    with reading(path):
        history = [{name: float(value) for name, value in row.items()} for row in read_csv(path)]
        if not 1 <= run.result["best_epoch"] <= len(history):
            raise ValueError(f"{len(history)} epochs, of which result.json names {run.result['best_epoch']} the best")
        missing = [name for name in HISTORY if name not in history[0]]
        if missing or not all(math.isfinite(value) for row in history for value in row.values()):
            raise ValueError(f"no finite {missing[0] if missing else 'number'} of an epoch")
    return history


def _read_kept_layer(path: Path) -> dict[str, list[DrivingClass]]:
    driving: dict[str, list[DrivingClass]] = {}
    with contextlib.suppress(FileNotFoundError), reading(path):
        for row in read_csv(path):
            numbers = {name: float(row[name]) for name in ("contribution", "share", "activation")}
            if not all(map(math.isfinite, numbers.values())):
                raise ValueError("no finite number")
            driving.setdefault(row["class"], []).append(DrivingClass(row["synset"], row["imagenet_class"], **numbers))
    return driving


def title(run: FinishedRun) -> str:
    """What runs of this data set, backbone and head are called."""
    return f"{short_name(run.settings['dataset'])}, {short_name(run.settings['backbone'])}, {run.settings['head']}"


def _in_turn(groups: Iterable[Sequence[int]]) -> list[int]:
    """The first of each group, then the second of each, and so on."""
    rounds = itertools.zip_longest(*groups)
    return [photo for together in rounds for photo in together if photo is not None]
