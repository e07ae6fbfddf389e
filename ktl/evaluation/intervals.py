"""How sure a measured accuracy, or the difference of two, is."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from scipy import stats

CONFIDENCE = 0.95

RESAMPLES = 2000


class IntervalJson(TypedDict):
    """An `Interval` in a JSON file; a number that is not known is null."""

    estimate: float | None
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate and the bounds of its 95 % interval; a number that is not known is not a number (nan)."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def as_json(self) -> IntervalJson:
        """As a JSON file has it."""
        estimate, low, high = (None if math.isnan(value) else value for value in dataclasses.astuple(self))
        return {"estimate": estimate, "low": low, "high": high}


def wilson_interval(accuracy: float, photos: int) -> tuple[float, float]:
    """95 % interval of an accuracy that was measured once on so many photos.

    Reference:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    found = stats.binomtest(round(accuracy * photos), photos).proportion_ci(CONFIDENCE, method="wilson")
    return found.low, found.high


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean accuracy over seeds with Student's t interval, cut off at 0 and 1: for other seeds on the same photos, not
    for other photos.

    Args:
        values: one a seed, 0 to 1. Of a single one the interval is unknown: not a number.
    """
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return Interval(mean, float("nan"), float("nan"))
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1) * np.std(values, ddof=1) / np.sqrt(count)
    return Interval(mean, max(0.0, float(mean - half)), min(1.0, float(mean + half)))


def paired_difference(first: np.ndarray, second: np.ndarray) -> Interval:
    """Difference of two mean accuracies that were measured with the same seeds on the same photos.

    The interval is for other seeds and other photos of the same kind: a bootstrap that draws seeds and photos
    independently of one another, both with replacement, and takes the percentiles of the means. Of n seeds it draws the
    means spread out by

        sqrt(n / (n - 1)) * t(n - 1) / z

    about their mean, with the quantiles of Student's and the normal distribution: of few seeds a bootstrap gives too
    narrow an interval.

    Args:
        first: bool [seeds, photos], whether the photo was recognised; two seeds or more.
        second: the same of the other one; `first - second` is what is estimated.

    Reference:
        Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007;
        Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 2015, on the
        narrowness of a bootstrap and its correction.
    """
    differences = np.asarray(first, float) - np.asarray(second, float)
    (seeds, photos), estimate = differences.shape, float(differences.mean())
    differences += (_widening(seeds) - 1) * (differences.mean(axis=1, keepdims=True) - estimate)
    means = np.einsum("rp,rp->r", _drawn(seeds, 0) @ differences.astype(np.float32), _drawn(photos, 1))
    low, high = np.quantile(means, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    # Rounded: the sums are float32, and a bound of zero must not come out as a little more.
    return Interval(estimate, round(float(low), 6), round(float(high), 6))


def _widening(seeds: int) -> float:
    upper = 0.5 + CONFIDENCE / 2
    return float(np.sqrt(seeds / (seeds - 1)) * stats.t.ppf(upper, seeds - 1) / stats.norm.ppf(upper))


@functools.lru_cache(4)
def _drawn(count: int, stream: int) -> np.ndarray:
    """float32 [RESAMPLES, count]: shares of so many things drawn with replacement; always the same ones."""
    generator = np.random.default_rng([0, stream])
    return (generator.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count).astype(np.float32)
