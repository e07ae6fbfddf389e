"""Scores of a classifier, from its probabilities. All accuracies are fractions, 0 to 1."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from sklearn import metrics

CALIBRATION_BINS = 15

CONVERGED = 0.95
"""Share of a training's best validation top-1 that counts as converged."""


class Scores(TypedDict):
    """The scores that a run reports.

    Attributes:
        top1: share of the photos whose most probable class is the true one.
        top5: share of the photos whose true class is among the five most probable; 1 of five classes or fewer.
        mean_class_accuracy: the mean over classes of the accuracy within a class.
        log_loss: mean of -log(probability of the true class), in nats.
        ece: see `expected_calibration_error`.
    """

    top1: float
    top5: float
    mean_class_accuracy: float
    log_loss: float
    ece: float


SCORES = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class_accuracy": "mean class accuracy",
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
    classes = np.arange(probabilities.shape[1])
    predictions = probabilities.argmax(axis=1)
    return {
        "top1": float(metrics.accuracy_score(labels, predictions)),
        "top5": _top_k_accuracy(probabilities, labels, k=5),
        # balanced_accuracy_score is the same number, with a warning where no photo is of a class that was predicted.
        "mean_class_accuracy": float(
            metrics.recall_score(labels, predictions, average="macro", labels=np.unique(labels))
        ),
        "log_loss": float(metrics.log_loss(labels, probabilities, labels=classes)),
        "ece": expected_calibration_error(probabilities, labels),
    }


def _top_k_accuracy(probabilities: np.ndarray, labels: np.ndarray, *, k: int) -> float:
    classes = np.arange(probabilities.shape[1])
    if k >= len(classes):
        return 1.0
    # In reverse order: of equally probable classes, scikit-learn takes the last ones.
    return float(metrics.top_k_accuracy_score(classes[::-1][labels], probabilities[:, ::-1], k=k, labels=classes))


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
