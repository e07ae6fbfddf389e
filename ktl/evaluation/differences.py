"""How sure the difference of two accuracies is that were measured with the same seeds on the same photos."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ktl.evaluation.intervals import CONFIDENCE, Interval
from ktl.evaluation.random_effects import LEAST_SEEDS, NO_NOISE, Noise, Spread, spread_of

LEAST_PHOTOS = 10
"""Of fewer test photos nothing is said: the formulas ask for many."""

POWER = 0.8
"""How likely a difference is shown that a study could have shown."""

LEVEL = 1 - CONFIDENCE


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of two accuracies, for other seeds and other photos of the same kind.

    Attributes:
        estimate: as measured.
        center: of its interval: of few photos a little nearer to 0.
        spread: the uncertainty.
    """

    estimate: float
    center: float
    spread: Spread

    @property
    def p_value(self) -> float:
        """How likely a difference like this is where there is none."""
        return self.spread.p_value(self.center)

    def interval(self, level: float = LEVEL) -> Interval:
        """The interval that leaves the true difference out with this probability."""
        half = self.spread.quantile(1 - level / 2) * self.spread.error
        return Interval(self.estimate, max(-1.0, self.center - half), min(1.0, self.center + half))

    def smallest(self, level: float = LEVEL) -> float:
        """The smallest true difference that such seeds and photos show with the probability `POWER`, at most 1."""
        return min(1.0, _reach(self.spread, level))

    def photos_for(self, size: float, level: float = LEVEL) -> int | None:
        """How many test photos show a true difference of this size with the probability `POWER`.

        None where no number of photos is enough: the seeds differ too much, or what was chosen is too uncertain.
        """
        few, many = self.spread.photos, MOST_PHOTOS
        if _reach(self.spread.with_photos(many), level) > size:
            return None
        if _reach(self.spread, level) <= size:
            return few
        while many > few + 1:
            middle = (few + many) // 2
            enough = _reach(self.spread.with_photos(middle), level) <= size
            few, many = (few, middle) if enough else (middle, many)
        return many


MOST_PHOTOS = 10_000_000
"""No test set has as many."""


def _reach(spread: Spread, level: float) -> float:
    return (spread.quantile(1 - level / 2) + spread.quantile(POWER)) * spread.error


def paired_difference(
    first: np.ndarray, second: np.ndarray, *, noise: Noise | None = None, choice: Noise = NO_NOISE
) -> Difference:
    """The difference of two mean accuracies that were measured with the same seeds on the same photos.

    Two photos are added, one that the first always recognises and the second never, and the reverse: of few photos on
    which both agree, the plain formula gives too narrow an interval, or none.

    Args:
        first: bool [seeds, photos], whether the photo was recognised; two seeds or more.
        second: the same of the other one; `first - second` is what is estimated.
        noise: what is known of the difference's means of single seeds. If None: from `LEAST_SEEDS` seeds on what the
            differences, paired by seed, tell; of fewer what both tell apart from one another, which is twice as much.
        choice: what another choice of the two would change, see `ktl.evaluation.choice`.

    Reference:
        Bonett and Price, "Adjusted Wald Confidence Interval for a Difference of Binomial Proportions Based on Paired
        Data", Journal of Educational and Behavioral Statistics 2012; and `ktl.evaluation.random_effects`.
    """
    differences = np.asarray(first, float) - np.asarray(second, float)
    seeds = len(differences)
    if noise is None and seeds < LEAST_SEEDS:
        one, other = (Noise(float(np.var(np.mean(each, axis=1), ddof=1)), seeds - 1) for each in (first, second))
        noise = one + other
    sides = np.tile([1.0, -1.0], (seeds, 1))
    extended = np.concatenate([differences, sides], axis=1)
    return Difference(float(differences.mean()), float(extended.mean()), spread_of(extended, noise, choice))


def holm_levels(p_values: Sequence[float], level: float = LEVEL) -> list[float]:
    """The level at which each of several comparisons is tested, so that all of them together err as one would.

    The smallest p value is tested at level / n, the next at level / (n - 1), and so on up to the first that is not
    below its level; the others are tested at that one's level. An interval of a difference at the level of its test
    leaves out zero if and only if the test shows a difference.

    Reference:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 1979.
    """
    levels, current, going = [0.0] * len(p_values), level, True
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        if going:
            current = level / (len(p_values) - rank)
            going = p_values[index] < current
        levels[index] = current
    return levels


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """The p values as they compare with the level of all comparisons together: see `holm_levels`."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, float)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted.tolist()
