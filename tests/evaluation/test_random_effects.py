"""Variances by their textbook formulas."""

import numpy as np
import pytest
from scipy import stats

from ktl.evaluation.random_effects import LEAST_P, Noise, Spread, pooled_noise, spread_of


def test_the_variance_is_that_of_the_mean_squares():
    """(MS photos + MS seeds - MS rest) / (seeds photos), by sums of squares written out."""
    generator = np.random.default_rng(0)
    seeds, photos = 4, 30
    values = generator.normal(0, 1, (seeds, photos)) + generator.normal(0, 2, photos)
    mean = values.mean()
    of_photos = seeds * sum((column.mean() - mean) ** 2 for column in values.T) / (photos - 1)
    of_seeds = photos * sum((row.mean() - mean) ** 2 for row in values) / (seeds - 1)
    rest = sum(
        (values[s, p] - values[s].mean() - values[:, p].mean() + mean) ** 2 for s in range(seeds) for p in range(photos)
    ) / ((seeds - 1) * (photos - 1))
    found = spread_of(values)
    assert found.error**2 == pytest.approx((of_photos + of_seeds - rest) / (seeds * photos))
    assert found.chance == pytest.approx(rest)
    assert found.noise == pytest.approx(Noise(of_seeds / photos, seeds - 1))


def test_a_variance_between_photos_is_never_negative():
    values = np.array([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]])
    assert spread_of(values).photo == 0


def test_with_one_part_alone_the_quantile_is_students():
    of_photos = Spread(3, 40, 1.0, 0.0, Noise(0.0, 2))
    of_seeds = Spread(3, 40, 0.0, 0.0, Noise(1.0, 2))
    nothing = Spread(3, 40, 0.0, 0.0, Noise(0.0, 2))
    for spread, freedom in ((of_photos, 39), (of_seeds, 2), (nothing, 39)):
        assert spread.quantile(0.975) == pytest.approx(stats.t.ppf(0.975, freedom))
    assert nothing.error == 0


def test_the_quantile_is_weighted_with_the_parts():
    both = Spread(2, 50, 50.0, 0.0, Noise(6.0, 1))  # 1 of the photos, 3 of the seeds
    assert both.error == pytest.approx(2)
    assert both.quantile(0.9) == pytest.approx((stats.t.ppf(0.9, 49) + 3 * stats.t.ppf(0.9, 1)) / 4)


def test_what_was_chosen_is_a_third_part_that_more_photos_leave():
    chosen = Spread(2, 50, 50.0, 0.0, Noise(6.0, 1), Noise(4.0, 36))
    assert chosen.error == pytest.approx(np.sqrt(8))
    quantiles = [stats.t.ppf(0.9, freedom) for freedom in (49, 1, 36)]
    assert chosen.quantile(0.9) == pytest.approx(np.average(quantiles, weights=[1, 3, 4]))
    assert chosen.with_photos(10_000_000).error ** 2 == pytest.approx(3 + 4, rel=1e-4)


@pytest.mark.parametrize("level", [0.9, 0.05, 1e-4])
def test_the_p_value_is_the_level_whose_interval_ends_at_zero(level):
    spread = Spread(3, 60, 0.2, 0.1, Noise(0.001, 2))
    distance = spread.quantile(1 - level / 2) * spread.error
    assert spread.p_value(distance) == spread.p_value(-distance) == pytest.approx(level, rel=1e-6)


def test_the_p_value_stays_between_its_ends():
    spread = Spread(3, 60, 0.2, 0.1, Noise(0.001, 40))
    assert spread.p_value(0.0) == pytest.approx(1)
    assert spread.p_value(1e9) == LEAST_P
    assert Spread(3, 60, 0.0, 0.0, Noise(0.0, 2)).p_value(0.0) == pytest.approx(1)


def test_more_photos_leave_the_noise_of_the_seeds():
    generator = np.random.default_rng(1)
    effects = generator.normal(0, 1, (5, 1))
    few = spread_of(effects + generator.normal(0, 1, (5, 100)) + generator.normal(0, 1, 100))
    many = few.with_photos(10_000)
    assert many.photos == 10_000
    assert many.noise.variance == pytest.approx(few.noise.variance - few.chance / 100 + few.chance / 10_000)
    assert few.with_photos(100) == few
    assert many.error**2 == pytest.approx(effects.var(ddof=1) / 5, rel=0.3)


def test_seed_noises_add_as_satterthwaite_says():
    one, other = Noise(1.0, 2), Noise(3.0, 4)
    assert one + other == (4.0, pytest.approx(4**2 / (1**2 / 2 + 3**2 / 4)))
    assert Noise(1.0, 2) + Noise(1.0, 2) == (2.0, 4.0)
    assert Noise(0.0, 3) + Noise(0.0, 3) == (0.0, 3)


def test_of_few_seeds_the_larger_of_the_pools_counts():
    own, depths, heads = 0.1, [0.1, 0.5], [0.1, 0.2, 0.3]
    assert pooled_noise(own, [depths, heads], seeds=2) == (pytest.approx(0.3), 2)
    assert pooled_noise(own, [[own], heads], seeds=3) == (pytest.approx(0.2), 6)
    assert pooled_noise(own, [[own], [own]], seeds=3) == (own, 2)
    assert pooled_noise(own, [depths, heads], seeds=4) == (own, 3)
