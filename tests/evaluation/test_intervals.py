import math

import numpy as np
import pytest
from made_up_answers import answers
from scipy import stats

from ktl.evaluation.intervals import accuracy_interval, wilson_interval
from ktl.evaluation.random_effects import Noise


def test_wilsons_interval_is_its_formula():
    z, n, p = stats.norm.ppf(0.975), 340, 0.9
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert wilson_interval(p, n) == pytest.approx((centre - half, centre + half))


def test_wilsons_interval_stays_between_0_and_1():
    assert wilson_interval(1.0, 20)[1] == 1
    assert 0.8 < wilson_interval(1.0, 20)[0] < 0.9


def test_with_one_seed_it_is_wilsons_interval():
    hits = np.random.default_rng(0).random((1, 40)) < 0.8
    found = accuracy_interval(hits)
    assert (found.low, found.high) == pytest.approx(wilson_interval(hits.mean(), 40))
    assert found.estimate == hits.mean()


@pytest.mark.parametrize("accuracy", [0.0, 0.95, 1.0])
def test_seeds_that_agree_know_no_more_than_their_photos(accuracy):
    """Of 20 photos with 19 right three times over, an interval over the seeds alone said 95.0 to 95.0 %."""
    hits = np.tile(np.arange(20) < 20 * accuracy, (3, 1))
    found = accuracy_interval(hits)
    low, high = wilson_interval(accuracy, 20)
    assert found.low == pytest.approx(low, abs=0.03)
    assert found.low <= low + 1e-12
    assert found.high >= high - 1e-12


def test_it_is_nowhere_narrower_than_wilsons():
    generator = np.random.default_rng(1)
    for _ in range(200):
        hits = generator.random((4, 30)) < generator.random()
        found = accuracy_interval(hits)
        low, high = wilson_interval(hits.mean(), 30)
        assert found.low <= low + 1e-12
        assert high - 1e-12 <= found.high <= 1


@pytest.mark.parametrize(("seeds", "seed_noise"), [(2, 0.0), (3, 0.3), (5, 0.3), (10, 1.0)])
def test_other_seeds_and_photos_are_covered(seeds, seed_noise):
    truth = stats.norm.cdf(2.5 / math.sqrt(4 + 1 + seed_noise**2))
    generator = np.random.default_rng(2)
    draws = [answers(generator, heads=1, seeds=seeds, photos=300, seed_noise=seed_noise)[0] for _ in range(400)]
    found = [accuracy_interval(hits) for hits in draws]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.935


def test_what_others_tell_of_the_seeds_counts():
    hits = answers(np.random.default_rng(3), heads=1, seeds=2, photos=300, seed_noise=1.0)[0]
    alone, known = accuracy_interval(hits), accuracy_interval(hits, noise=Noise(1e-4, 40))
    assert known.high - known.low < alone.high - alone.low
