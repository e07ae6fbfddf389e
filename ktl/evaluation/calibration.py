"""Temperature scaling: one number that makes a classifier's confidence as high as its accuracy."""

import dataclasses
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special
from scipy import stats

from ktl.evaluation.intervals import CONFIDENCE

LIMITS = (0.05, 20.0)
"""Temperatures that are tried."""

PRIOR_SD = 0.5
"""Standard deviation of the logarithm of a temperature, before any photo is seen.

That is, 19 of 20 networks have a temperature between 0.38 and 2.7. In photos: a photo tells of log T as much as the
variance of log p(class) under its probabilities p, 0.43 where one of two classes has 90 %, 0.21 where it has 99 %. The
prior tells 1 / 0.5^2 = 4, as much as about 10 to 20 photos.
"""

WIDE = 3.0
"""The widest interval, as upper / lower bound, that supports a temperature. Where it is wider, an answer of 90 %, of
one of two classes, may as well be one of 78 % or of 98 %."""


@dataclasses.dataclass(frozen=True)
class Temperature:
    """What the logits are divided by.

    Attributes:
        value: above 1 for a network that is too sure; below 1 for one that doubts too much.
        low: the lower bound of the temperature's 95 % interval, `LIMITS[0]` at least.
        high: the upper bound, `LIMITS[1]` at most.
        photos: how many it was fitted to.
    """

    value: float
    low: float
    high: float
    photos: int

    @property
    def is_supported(self) -> bool:
        """Whether the photos say what it is, within a factor of `WIDE`."""
        return self.high <= WIDE * self.low


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> Temperature:
    """The temperature that fits the photos, drawn towards 1 as far as these are few:

        argmin over T of  - sum over photos of log p_T(label) + (log T)^2 / (2 s^2),   s = PRIOR_SD

    which is the most probable T where log T has a normal distribution about 0 beforehand. A temperature below 1 makes
    every answer surer, also those for photos that show something else; it is taken only where the interval of T, which
    knows nothing of the prior, excludes 1 and is not wider than `WIDE`; else T is 1. Photos that are all recognised say
    nothing against any temperature below 1, and get 1.

    Args:
        probabilities: float [photos, classes], of photos that the network was not fitted to.
        labels: int [photos], the true classes.

    Returns:
        The temperature, with the likelihood interval: all T whose likelihood is not less than the largest one by more
        than a chi-square test allows.

    Reference:
        Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2;
        Wilks, "The large-sample distribution of the likelihood ratio", Annals of Mathematical Statistics 1938.
    """
    logits = _logits(probabilities)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        right = scaled[np.arange(len(labels)), labels]
        return float(np.sum(scipy.special.logsumexp(scaled, axis=1) - right))

    fitted = _minimum(loss)
    low, high = _likelihood_interval(loss, fitted)
    shrunk = _minimum(lambda log_temperature: loss(log_temperature) + log_temperature**2 / (2 * PRIOR_SD**2))
    found = Temperature(*(float(np.exp(log)) for log in (shrunk, low, high)), photos=len(labels))
    below = found.high < 1 and found.is_supported
    return found if below else dataclasses.replace(found, value=max(1.0, found.value))


def _minimum(loss) -> float:
    found: Any = scipy.optimize.minimize_scalar(loss, bounds=np.log(LIMITS), method="bounded")
    return float(found.x)


def _likelihood_interval(loss, fitted: float) -> tuple[float, float]:
    """Where twice the loss is above its minimum by less than the quantile of the chi-square distribution."""
    allowed = loss(fitted) + stats.chi2.ppf(CONFIDENCE, 1) / 2

    def end(limit: float) -> float:
        if loss(limit) <= allowed:
            return float(limit)
        crossed: Any = scipy.optimize.brentq(lambda log_temperature: loss(log_temperature) - allowed, fitted, limit)
        return crossed

    low, high = np.log(LIMITS)
    return end(low), end(high)


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
    return scipy.special.softmax(_logits(probabilities) / temperature, axis=1)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """But for a constant a photo; finite also where a probability is 0."""
    return np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))
