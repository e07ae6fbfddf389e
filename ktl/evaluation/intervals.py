"""How sure a measured accuracy is."""

import dataclasses
import math
from typing import TypedDict

import numpy as np
from scipy import special

from ktl.evaluation.random_effects import Noise, spread_of

CONFIDENCE = 0.95

NORMAL = float(special.ndtri(0.5 + CONFIDENCE / 2))
"""The normal distribution's quantile to it, 1.96."""


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
    return _score_interval(accuracy, NORMAL**2 / photos)


def accuracy_interval(hits: np.ndarray, *, noise: Noise | None = None) -> Interval:
    """Mean accuracy over seeds with its 95 % interval, for other seeds and other photos of the same kind.

    Wilson's interval for as many photos as the measured uncertainty is worth, though never for more than there are: it
    is nowhere narrower than Wilson's for these photos, and with one seed it is that one.

    Args:
        hits: bool [seeds, photos], whether the photo was recognised.
        noise: what is known of the means of single seeds; None for what these tell.

    Reference:
        Korn and Graubard, "Confidence Intervals for Proportions with Small Expected Number of Positive Counts Estimated
        from Survey Data", Survey Methodology 1998, on the effective number; `ktl.evaluation.random_effects`.
    """
    hits = np.asarray(hits, float)
    (seeds, photos), mean = hits.shape, float(hits.mean())
    width = NORMAL**2 / photos
    if seeds > 1 and photos > 1 and 0 < mean < 1:
        spread = spread_of(hits, noise)
        width = max(width, (spread.quantile(0.5 + CONFIDENCE / 2) * spread.error) ** 2 / (mean * (1 - mean)))
    return Interval(mean, *_score_interval(mean, width))


def _score_interval(mean: float, width: float) -> tuple[float, float]:
    """Wilson's formula, with the squared quantile over the number of photos."""
    middle = (mean + width / 2) / (1 + width)
    half = math.sqrt(width * mean * (1 - mean) + width**2 / 4) / (1 + width)
    return max(0.0, middle - half), min(1.0, middle + half)
