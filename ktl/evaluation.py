"""Scores of a classifier, from its probabilities. All accuracies are fractions, 0 to 1."""

import keras
import numpy as np
import scipy.special
import tensorflow as tf
from sklearn import metrics

CALIBRATION_BINS = 15


def predict_probabilities(model: keras.Model, batches: tf.data.Dataset, **arguments) -> np.ndarray:
    """Class probabilities of every photo.

    Args:
        model: whose output is logits [batch, classes].
        batches: of (inputs, labels), in the order wanted.
        **arguments: of `keras.Model.predict`.

    Returns:
        float64 [photos, classes]; rows sum to 1.
    """
    return _softmax(model.predict(batches, verbose=0, **arguments))


def predict_with_activations(model: keras.Model, batches: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """In one pass, class probabilities of every photo, and what its logits were computed from.

    Args:
        model: from `ktl.knowledge.with_activations`.
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
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == labels) - confidence
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(bin_of, weights=gap, minlength=bins)).sum() / len(labels))


def confusion_matrix(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int [classes, classes]: photos of class i that were taken for class j."""
    return metrics.confusion_matrix(labels, probabilities.argmax(axis=1), labels=np.arange(probabilities.shape[1]))
