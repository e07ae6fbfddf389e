"""Scores of a classifier, from its probabilities. All accuracies are fractions, 0 to 1."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

import numpy as np
from sklearn import metrics

CALIBRATION_BINS = 15

TOP = 5
"""Of so many classes or fewer there is no top-5: it would be 1 whatever the classifier gives."""

CONVERGED = 0.95
"""Share of a training's best validation top-1 that counts as converged."""


class Scores(TypedDict):
    """The scores that a run reports.

    Attributes:
        top1: share of the photos whose most probable class is the true one.
        top5: share of the photos whose true class is among the five most probable; of more than `TOP` classes alone.
        mean_class_accuracy: the mean over the classes that have photos of the accuracy within a class, its recall.
        macro_f1: the mean over these classes of F1, see `ClassScores`. Version 0.1 wrote none.
        log_loss: mean of -log(probability of the true class), in nats.
        ece: see `expected_calibration_error`.
    """

    top1: float
    top5: NotRequired[float]
    mean_class_accuracy: float
    macro_f1: NotRequired[float]
    log_loss: float
    ece: float


SCORES = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class_accuracy": "mean class accuracy",
    "macro_f1": "macro F1",
    "log_loss": "log loss, nats",
    "ece": "expected calibration error (ECE)",
}
"""Score -> what people call it."""


def score(probabilities: np.ndarray, labels: np.ndarray) -> Scores:
    """Scores probabilities against the true classes. Among equally probable classes the first one counts as predicted.

    Args:
        probabilities: float [photos, classes].
        labels: int [photos], the true classes.
    """
    classes, predictions = np.arange(probabilities.shape[1]), probabilities.argmax(axis=1)
    over_classes: Any = {"average": "macro", "labels": np.unique(labels)}
    found: Scores = {
        "top1": float(metrics.accuracy_score(labels, predictions)),
        # balanced_accuracy_score is the same number, with a warning where no photo is of a class that was predicted.
        "mean_class_accuracy": float(metrics.recall_score(labels, predictions, **over_classes)),
        "macro_f1": float(metrics.f1_score(labels, predictions, **over_classes)),
        "log_loss": float(metrics.log_loss(labels, probabilities, labels=classes)),
        "ece": expected_calibration_error(probabilities, labels),
    }
    if len(classes) > TOP:
        found["top5"] = _top5_accuracy(probabilities, labels)
    return found


def _top5_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    classes = np.arange(probabilities.shape[1])
    # In reverse order: of equally probable classes, scikit-learn takes the last ones.
    return float(metrics.top_k_accuracy_score(classes[::-1][labels], probabilities[:, ::-1], k=TOP, labels=classes))


def shown_scores(*scores: Mapping) -> dict[str, str]:
    """Score -> what people call it, of those that all of these have: earlier versions and few classes have fewer."""
    return {name: title for name, title in SCORES.items() if all(name in found for found in scores)}


class ClassScores(NamedTuple):
    """How well one class was recognised; None where there is nothing to divide by.

    Attributes:
        photos: how many photos are of the class.
        precision: of the photos that were taken for the class, the share that is of it.
        recall: of the photos of the class, the share that was taken for it.
        f1: 2 * precision * recall / (precision + recall): right ones / (right ones + half of the mistakes).
    """

    photos: int
    precision: float | None
    recall: float | None
    f1: float | None


def class_scores(probabilities: np.ndarray, labels: np.ndarray) -> list[ClassScores]:
    """Precision, recall and F1 of every class.

    Args:
        probabilities: float [photos, classes].
        labels: int [photos], the true classes.
    """
    predictions, classes = probabilities.argmax(axis=1), np.arange(probabilities.shape[1])
    found: Any = metrics.precision_recall_fscore_support(
        labels, predictions, labels=classes, zero_division=cast(Any, np.nan)
    )
    return [
        ClassScores(int(photos), *(None if math.isnan(value) else float(value) for value in values))
        for *values, photos in zip(*found, strict=True)
    ]


def converged(validation_top1: Sequence[float]) -> int:
    """The first epoch, from 1, that reaches `CONVERGED` of the best validation top-1.

    Args:
        validation_top1: one value an epoch, 0 to 1.
    """
    return int(np.argmax(np.array(validation_top1) >= CONVERGED * max(validation_top1))) + 1


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = CALIBRATION_BINS) -> float:
    """How far confidence is from accuracy:

        ECE = sum_b |B_b| / n * |accuracy(B_b) - confidence(B_b)|

    over `bins` bins of equal width of the highest probability.

    Args:
        probabilities: float [photos, classes].
        labels: int [photos], the true classes.
        bins: number of bins.

    Reference:
        Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    rows = reliability_bins(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins=bins)
    gaps = (
        row["photos"] * abs(row["accuracy"] - row["confidence"])
        for row in rows
        if row["accuracy"] is not None and row["confidence"] is not None
    )
    return sum(gaps) / len(labels)


class ReliabilityBin(TypedDict):
    """A bin of a reliability diagram.

    Attributes:
        low: the lower bound of its confidences; it belongs to the bin.
        high: the upper bound; it belongs to the next bin, and 1 to the last.
        photos: how many are in it.
        confidence: their mean confidence; None where there are none.
        accuracy: the share of them that was recognised; None where there are none.
    """

    low: float
    high: float
    photos: int
    confidence: float | None
    accuracy: float | None


def reliability_bins(
    confidence: np.ndarray, correct: np.ndarray, *, bins: int = CALIBRATION_BINS
) -> list[ReliabilityBin]:
    """What a reliability diagram shows, over bins of equal width.

    Args:
        confidence: float [photos], 0 to 1.
        correct: bool [photos].
        bins: number of bins.

    Reference:
        Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 2.
    """
    bin_of = np.minimum((confidence.astype(np.float64) * bins).astype(int), bins - 1)
    return [
        _reliability_bin(number, bins, confidence[bin_of == number], correct[bin_of == number])
        for number in range(bins)
    ]


def _reliability_bin(number: int, bins: int, confidence: np.ndarray, correct: np.ndarray) -> ReliabilityBin:
    photos = len(confidence)
    return {
        "low": number / bins,
        "high": (number + 1) / bins,
        "photos": photos,
        "confidence": float(np.mean(confidence, dtype=np.float64)) if photos else None,
        "accuracy": float(np.mean(correct)) if photos else None,
    }


def confusion_matrix(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int [classes, classes]: in row i and column j, the number of photos of class i that were taken for class j.

    Args:
        probabilities: float [photos, classes].
        labels: int [photos], the true classes.
    """
    return metrics.confusion_matrix(labels, probabilities.argmax(axis=1), labels=np.arange(probabilities.shape[1]))
