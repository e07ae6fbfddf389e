import math

import numpy as np
import pytest
from scipy import stats

from ktl.evaluation.intervals import mean_interval, paired_difference, wilson_interval


def test_wilsons_interval_is_its_formula():
    z, n, p = stats.norm.ppf(0.975), 340, 0.9
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert wilson_interval(p, n) == pytest.approx((centre - half, centre + half))


def test_wilsons_interval_stays_between_0_and_1():
    assert wilson_interval(1.0, 20)[1] == 1
    assert 0.8 < wilson_interval(1.0, 20)[0] < 0.9


def test_a_mean_has_students_interval():
    values = [0.91, 0.93, 0.95]
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(0.95), abs=1e-12)
    assert found.estimate == pytest.approx(0.93)


def test_of_one_seed_the_interval_is_unknown():
    assert mean_interval([0.9]).estimate == 0.9
    assert math.isnan(mean_interval([0.9]).low)


def study(generator, *, seeds: int, gain: float, seed_sd: float) -> tuple[np.ndarray, np.ndarray]:
    """Two networks on 340 photos: a photo has a difficulty, a run an effect of its own, and each answer some chance."""
    difficulty = 2.5 + generator.normal(0, 2, 340)
    runs = generator.normal(0, seed_sd, (2, seeds, 1)) if seed_sd else np.zeros((2, seeds, 1))
    noise = generator.normal(0, 1, (2, seeds, 340))
    return difficulty + gain + runs[0] + noise[0] > 0, difficulty + runs[1] + noise[1] > 0


@pytest.mark.parametrize("gain", [0.0, 0.5])
@pytest.mark.parametrize(
    ("seeds", "seed_sd", "widest"),
    [(2, 0.3, 0.7), (3, 0.3, 0.25), (3, 1.0, 0.7), (5, 0.0, 0.08), (5, 1.0, 0.35), (10, 0.3, 0.1)],
)
def test_the_difference_is_covered(seeds, seed_sd, widest, gain):
    """The true difference is P(difficulty + gain + ... > 0) - P(difficulty + ... > 0) of normal variables."""
    sd = math.sqrt(4 + 1 + seed_sd**2)
    truth = stats.norm.cdf((2.5 + gain) / sd) - stats.norm.cdf(2.5 / sd)
    generator = np.random.default_rng(0)
    found = [paired_difference(*study(generator, seeds=seeds, gain=gain, seed_sd=seed_sd)) for _ in range(150)]
    assert np.mean([i.low <= truth <= i.high for i in found]) >= 0.93
    assert np.mean([i.estimate for i in found]) == pytest.approx(truth, abs=0.01)
    assert np.mean([i.high - i.low for i in found]) < widest  # wide enough is easy


def test_no_difference_is_none():
    same = np.random.default_rng(0).random((3, 50)) > 0.5
    found = paired_difference(same, same)
    assert (found.estimate, found.low, found.high) == (0, 0, 0)
    assert not found.excludes_zero


def test_a_bound_of_zero_excludes_nothing():
    """In whole numbers, of the same draws of photos, the bounds of few photos are often exactly zero."""
    generator, zeros = np.random.default_rng(0), 0
    draws = np.random.default_rng([0, 1]).multinomial(12, np.full(12, 1 / 12), 2000)
    for row in generator.integers(-1, 2, (200, 12)):
        found = paired_difference(*(np.tile(right, (3, 1)) for right in (row > 0, row < 0)))
        low, high = np.quantile(draws @ row, [0.025, 0.975])
        assert found.excludes_zero == (low > 0 or high < 0)
        zeros += 0 in (low, high)
    assert zeros > 5


def test_a_clear_difference_excludes_zero():
    worse = np.zeros((4, 200), bool)
    better = worse.copy()
    better[:, :40] = True
    found = paired_difference(better, worse)
    assert found.estimate == pytest.approx(0.2)
    assert found.excludes_zero
    assert paired_difference(worse, better).high == pytest.approx(-found.low, abs=0.01)
