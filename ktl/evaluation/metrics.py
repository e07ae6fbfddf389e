"""Scores of a classifier, from its probabilities. All accuracies are fractions, 0 to 1."""

import keras
import numpy as np
import scipy.special
import tensorflow as tf
from sklearn import metrics

CALIBRATION_BINS = 15

SCORES = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class_accuracy": "mean of the classes' accuracies",
    "log_loss": "log loss, nats",
    "ece": "expected calibration error (ECE)",
}
"""What `score` gives -> what it is called."""


def predict_probabilities(model: keras.Model, batches: tf.data.Dataset) -> np.ndarray:
    """Class probabilities of every photo.

    Args:
        model: whose output is logits [batch, classes].
        batches: of (inputs, labels), in the order wanted.

    Returns:
        float64 [photos, classes]; rows sum to 1.
    """
    return _softmax(model.predict(batches, verbose=0))


def predict_with_activations(model: keras.Model, batches: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """In one pass, class probabilities of every photo, and what its logits were computed from.

    Args:
        model: from `ktl.runs.attribution.with_activations`.
        batches: of (inputs, labels), in the order wanted.

    Returns:
        float64 [photos, classes], whose rows sum to 1; and [photos, inputs] in the network's precision.
    """
    activations, logits = model.predict(batches, verbose=0)
    return _softmax(logits), activations


def _softmax(logits: np.ndarray) -> np.ndarray:
    return scipy.special.softmax(logits.astype("float64"), axis=1)


def score(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The scores that a run reports.

    Args:
        probabilities: float [photos, classes].
        labels: int [photos], the true classes.

    Returns:
        top1, top5 (1.0 where there are no more than five classes), mean_class_accuracy (the mean over classes of the
        accuracy within a class), log_loss (nats) and ece.
    """
    classes = probabilities.shape[1]
    predictions = probabilities.argmax(axis=1)
    ranks = (-probabilities).argsort(axis=1, kind="stable")[:, : min(5, classes)]
    return {
        "top1": float(np.mean(predictions == labels)),
        "top5": float(np.mean((ranks == labels[:, None]).any(axis=1))),
        "mean_class_accuracy": float(
            metrics.recall_score(labels, predictions, average="macro", labels=np.unique(labels))
        ),
        "log_loss": float(metrics.log_loss(labels, probabilities, labels=np.arange(classes))),
        "ece": expected_calibration_error(probabilities, labels),
    }


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
    gaps = (row["photos"] * abs(row["accuracy"] - row["confidence"]) for row in rows if row["photos"])
    return sum(gaps) / len(labels)


def reliability_bins(confidence: np.ndarray, right: np.ndarray, *, bins: int = CALIBRATION_BINS) -> list[dict]:
    """What a reliability diagram shows, over bins of equal width.

    Args:
        confidence: float [photos], 0 to 1.
        right: bool [photos].
        bins: number of bins.

    Returns:
        low, high, photos, confidence and accuracy of each bin; the last two are means, None where there are no photos.

    Reference:
        Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 2.
    """
    bin_of = np.minimum((confidence.astype(np.float64) * bins).astype(int), bins - 1)
    rows = []
    for number in range(bins):
        inside = bin_of == number
        means = {
            "confidence": float(np.mean(confidence[inside], dtype=np.float64)) if inside.any() else None,
            "accuracy": float(np.mean(right[inside])) if inside.any() else None,
        }
        rows.append({"low": number / bins, "high": (number + 1) / bins, "photos": int(inside.sum()), **means})
    return rows


def confusion_matrix(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int [classes, classes]: photos of class i that were taken for class j."""
    return metrics.confusion_matrix(labels, probabilities.argmax(axis=1), labels=np.arange(probabilities.shape[1]))
