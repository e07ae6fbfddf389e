"""Temperature scaling: one number that makes a classifier's confidence as high as its accuracy."""

import numpy as np
import scipy.optimize
import scipy.special
from sklearn import metrics

LIMITS = (0.05, 20.0)
"""Temperatures that are tried."""


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the smallest log loss.

    Args:
        probabilities: float [photos, classes], of photos that the network was not fitted to.
        labels: int [photos], the true classes.

    Returns:
        Below 1 for a network that doubts too much, above 1 for one that is too sure.

    Reference:
        Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.
    """

    def log_loss(log_temperature: float) -> float:
        scaled = with_temperature(probabilities, np.exp(log_temperature))
        return metrics.log_loss(labels, scaled, labels=np.arange(probabilities.shape[1]))

    found = scipy.optimize.minimize_scalar(log_loss, bounds=np.log(LIMITS), method="bounded")
    return float(np.exp(found.x))


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """What the network would give if its logits were divided by the temperature:

        softmax(log(p) / T)

    since log(p) and the logits differ by a constant a photo.

    Args:
        probabilities: float [photos, classes].
        temperature: above 0.

    Returns:
        float64 [photos, classes]; rows sum to 1.
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))
    return scipy.special.softmax(logits / temperature, axis=1)
