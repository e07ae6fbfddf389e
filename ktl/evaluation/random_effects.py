"""Where the uncertainty of a mean over seeds and photos comes from, when both are a sample of many.

A value of seed s and photo p is taken as

    mean + photo[p] + seed[s] + chance[s, p]

with independent effects of variance 0 or more. The mean of S seeds and P photos then has the variance

    photo variance / P  +  v / S,    v = seed variance + chance variance / P

where v is what the means of single seeds vary by. It is estimated by just that, on S - 1 degrees of freedom, without a
difference of mean squares that may be negative; where other networks tell more of it, that comes in its place
(`pooled_noise`).

Where the mean is of what other photos, those for validation, have chosen, what another choice would change is a third
part (`ktl.evaluation.choice`).

Reference:
    Cornfield and Tukey, "Average Values of Mean Squares in Factorials", Annals of Mathematical Statistics 1956;
    Hillis, "A comparison of denominator degrees of freedom methods for multiple observer ROC analysis", Statistics in
    Medicine 2007: the same design, with readers for seeds and cases for photos.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

LEAST_P = 1e-12
"""Smaller probabilities than this are not told apart."""

LEAST_SEEDS = 4
"""So many seeds tell by themselves how far seeds are apart; of fewer, other networks are asked too."""


class Noise(NamedTuple):
    """A variance, as of the means of single seeds, and on how many degrees of freedom it is known."""

    variance: float
    freedom: float

    def __add__(self, other: "Noise") -> "Noise":  # type: ignore[override]
        """Of a difference of two networks whose seeds have nothing in common.

        Reference:
            Satterthwaite, "An Approximate Distribution of Estimates of Variance Components", Biometrics Bulletin 1946.
        """
        total = self.variance + other.variance
        if not total:
            return Noise(0.0, self.freedom)
        shares = (self.variance / total) ** 2 / self.freedom + (other.variance / total) ** 2 / other.freedom
        return Noise(total, 1 / shares)


NO_NOISE = Noise(0.0, 1.0)
"""Of what nothing is left to chance in."""


def pooled_noise(own: float, pools: Sequence[Sequence[float]], *, seeds: int) -> Noise:
    """What is known of the seed noise of a network, from it and from networks like it.

    Of few seeds its own variance is nearly unknown. The training noise of a head at other freeze depths, and that of
    other heads at this depth, are alike: the larger of the two means is taken, so that neither a head nor a depth with
    more noise than others goes unseen.

    Args:
        own: the variance of the network's means of single seeds.
        pools: each the variances of several networks, its own among them; what has a single one tells nothing.
        seeds: on how many each variance was measured.
    """
    known = [Noise(float(np.mean(pool)), len(pool) * (seeds - 1)) for pool in pools if len(pool) > 1]
    return max(known) if known and seeds < LEAST_SEEDS else Noise(own, seeds - 1)


@dataclasses.dataclass(frozen=True)
class Spread:
    """The uncertainty of a mean over seeds and photos, and of what was chosen.

    Attributes:
        seeds: how many.
        photos: how many.
        photo: the variance from photo to photo.
        chance: the variance of what is neither the photo's nor the seed's.
        noise: v of the formula above.
        choice: what another choice of what is compared would change.
    """

    seeds: int
    photos: int
    photo: float
    chance: float
    noise: Noise
    choice: Noise = NO_NOISE

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return math.sqrt(sum(self._parts))

    def quantile(self, probability: float) -> float:
        """How many standard errors the mean is off at most, to one side, with this probability.

        The quantiles of Student's t for the parts of the variance, weighted with these parts: what is measured on
        few degrees of freedom counts as such, as far as it counts.

        Reference:
            Cochran and Cox, "Experimental Designs", 1950, on the comparison of means with unequal variances.
        """
        quantiles = [float(special.stdtrit(freedom, probability)) for freedom in self._freedoms]
        return float(np.average(quantiles, weights=self._parts)) if any(self._parts) else quantiles[0]

    def p_value(self, distance: float) -> float:
        """How likely the mean is by chance as far off as this, to either side."""
        errors = abs(distance) / self.error if self.error else 0.0
        if errors >= self.quantile(1 - LEAST_P / 2):
            return LEAST_P
        ends = (math.log(LEAST_P), 0.0)
        found = optimize.root_scalar(lambda log: self.quantile(1 - math.exp(log) / 2) - errors, bracket=ends)
        return math.exp(found.root)

    def with_photos(self, photos: int) -> "Spread":
        """The same of another number of photos."""
        seed = max(0.0, self.noise.variance - self.chance / self.photos)
        noise = self.noise._replace(variance=seed + self.chance / photos)
        return dataclasses.replace(self, photos=photos, noise=noise)

    @property
    def _parts(self) -> tuple[float, ...]:
        return self.photo / self.photos, self.noise.variance / self.seeds, self.choice.variance

    @property
    def _freedoms(self) -> tuple[float, ...]:
        return self.photos - 1, self.noise.freedom, self.choice.freedom


def spread_of(values: np.ndarray, noise: Noise | None = None, choice: Noise = NO_NOISE) -> Spread:
    """The uncertainty of a mean.

    Args:
        values: [seeds, photos], two or more of each.
        noise: what is known of the means of single seeds; None for what these values tell.
        choice: what another choice of what is compared would change.
    """
    seeds, photos = values.shape
    by_seed, by_photo = values.mean(axis=1), values.mean(axis=0)
    rest = values - by_seed[:, np.newaxis] - by_photo + values.mean()
    chance = float(np.square(rest).sum() / ((seeds - 1) * (photos - 1)))
    photo = max(0.0, float(by_photo.var(ddof=1)) - chance / seeds)
    return Spread(seeds, photos, photo, chance, noise or Noise(float(by_seed.var(ddof=1)), seeds - 1), choice)
