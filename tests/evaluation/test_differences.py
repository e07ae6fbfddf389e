"""Differences of two heads, in simulations where the truth is known, and by formulas."""

import numpy as np
import pytest
from made_up_answers import answers
from scipy import stats

from ktl.evaluation.differences import POWER, Difference, holm_adjusted, holm_levels, paired_difference
from ktl.evaluation.random_effects import NO_NOISE, Noise, Spread

NOISES = [(seed, head) for seed in (0.0, 0.1, 0.3) for head in (0.0, 1.0)]
"""Of seeds 0, 1 and 3 points of accuracy; of heads none, and as much as two trainings differ by chance."""


@pytest.mark.parametrize(
    ("seeds", "photos"),
    [
        pytest.param(seeds, photos, marks=pytest.mark.slow if photos == 3000 and seeds != 3 else ())
        for seeds in (2, 3, 5, 10)
        for photos in (30, 300, 3000)
    ],
)
def test_two_equal_heads_are_said_to_be_equal(seeds, photos):
    generator = np.random.default_rng(0)
    shown = [
        np.mean(
            [
                paired_difference(*answers(generator, seeds=seeds, photos=photos, seed_noise=seed, head_noise=head))
                .interval()
                .excludes_zero
                for _ in range(500)
            ]
        )
        for seed, head in NOISES
    ]
    assert np.mean(shown) <= 0.05
    assert max(shown) <= 0.08  # of 500 draws each, whose chance error is 0.01


@pytest.mark.parametrize(("seeds", "seed_noise"), [(2, 0.0), (3, 0.1), (5, 0.1), (5, 0.2), (10, 0.2)])
def test_a_head_that_is_ahead_by_5_points_is_said_to_be(seeds, seed_noise):
    """Of two heads and two seeds nobody knows how far seeds are apart, unless more heads or depths tell."""
    generator = np.random.default_rng(1)
    noise = {"seed_noise": seed_noise, "head_noise": 1.0, "gain": 0.63}
    found = [paired_difference(*answers(generator, seeds=seeds, photos=3000, **noise)) for _ in range(100)]
    assert np.mean([one.estimate for one in found]) == pytest.approx(0.05, abs=0.005)
    assert np.sum([one.interval().low > 0 for one in found]) >= 80


@pytest.mark.parametrize("gain", [0.0, 0.5])
@pytest.mark.parametrize(("seeds", "seed_noise"), [(2, 0.3), (3, 0.0), (5, 0.0), (5, 1.0), (10, 0.3)])
def test_the_difference_is_covered_and_not_by_width(seeds, seed_noise, gain):
    """The true difference is P(difficulty + gain + ... > 0) - P(difficulty + ... > 0) of normal variables."""
    sd = np.sqrt(4 + 1 + 1 + seed_noise**2)
    truth = stats.norm.cdf((2.5 + gain) / sd) - stats.norm.cdf(2.5 / sd)
    generator = np.random.default_rng(2)
    noise = {"seed_noise": seed_noise, "head_noise": 1.0, "gain": gain}
    found = [paired_difference(*answers(generator, seeds=seeds, photos=1000, **noise)) for _ in range(400)]
    intervals = [one.interval() for one in found]
    assert np.mean([one.estimate for one in found]) == pytest.approx(truth, abs=0.01)
    assert 0.935 <= np.mean([one.low <= truth <= one.high for one in intervals]) <= 0.985


def test_heads_that_agree_on_few_photos_have_an_interval():
    same = np.tile(np.random.default_rng(0).random(20) > 0.1, (3, 1))
    found = paired_difference(same, same)
    assert found.estimate == 0
    assert found.interval().low == pytest.approx(-found.interval().high)
    assert found.interval().high > 0.1, "on 20 photos 10 points are not ruled out"


def test_with_nothing_left_to_chance_it_is_the_formula_for_one_pair():
    """Bonett and Price: one photo more on either side of disagreement, and Wald's interval (here with Student's t)."""
    first, second = (np.tile(np.array(row, bool), (5, 1)) for row in ([1] * 12 + [0] * 8, [1] * 9 + [0] * 9 + [1] * 2))
    only_first, only_second, count = (3 + 1) / 22, (2 + 1) / 22, 22
    center = only_first - only_second
    error = np.sqrt((only_first + only_second - center**2) / (count - 1))
    half = stats.t.ppf(0.975, count - 1) * error
    found = paired_difference(first, second)
    assert found.estimate == pytest.approx(1 / 20)
    interval = found.interval()
    assert (interval.low, interval.high) == pytest.approx((center - half, center + half))
    assert found.p_value == pytest.approx(2 * stats.t.sf(center / error, count - 1), rel=1e-6)


def test_the_other_way_round_is_the_mirror_image():
    first, second = answers(np.random.default_rng(3), seeds=3, photos=100, gain=1.0)
    there, back = paired_difference(first, second).interval(), paired_difference(second, first).interval()
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert there.low > 0


def test_bounds_are_those_of_a_difference_of_accuracies():
    """Two seeds that differ by a half: Student's t of one degree of freedom says 6 either way."""
    first = np.array([[True] * 40, [False] * 40])
    interval = paired_difference(first, ~first).interval()
    assert (interval.low, interval.high) == (-1, 1)


def test_what_others_tell_of_the_seeds_narrows_the_interval():
    first, second = answers(np.random.default_rng(4), seeds=2, photos=1000, seed_noise=0.1)
    alone = paired_difference(first, second)
    known = paired_difference(first, second, noise=Noise(alone.spread.noise.variance, 30))
    assert known.interval().high - known.interval().low < 0.5 * (alone.interval().high - alone.interval().low)


@pytest.mark.parametrize("level", [0.05, 0.05 / 6])
def test_the_smallest_difference_is_shown_as_often_as_it_says(level):
    """A normal mean around that difference, with this error, is beyond the bound with the probability that is meant."""
    spread = Spread(5, 3000, 0.1, 0.05, Noise(0.05 / 3000, 1e6))
    smallest = Difference(0.0, 0.0, spread).smallest(level)
    bound = spread.quantile(1 - level / 2) * spread.error
    assert stats.norm.sf((bound - smallest) / spread.error) == pytest.approx(POWER, abs=0.001)


def test_the_photos_that_are_needed_are_enough_and_no_more():
    found = Difference(0.0, 0.0, Spread(5, 300, 0.1, 0.05, Noise(0.05 / 300, 4)))
    needed = found.photos_for(0.01)
    assert needed > 300
    enough, less = (Difference(0.0, 0.0, found.spread.with_photos(count)) for count in (needed, needed - 1))
    assert enough.smallest() <= 0.01 < less.smallest()
    assert found.photos_for(0.5) == 300, "so many are there"


def test_where_seeds_differ_no_number_of_photos_is_enough():
    found = Difference(0.0, 0.0, Spread(3, 300, 0.1, 0.05, Noise(0.02**2, 2)))
    assert found.photos_for(0.01) is None
    assert Difference(0.0, 0.0, Spread(2, 30, 0.5, 0.5, Noise(0.5, 1))).smallest() == 1


def test_what_was_chosen_widens_the_interval():
    first, second = answers(np.random.default_rng(4), seeds=5, photos=3000)
    fixed, chosen = (paired_difference(first, second, choice=choice) for choice in (NO_NOISE, Noise(0.02**2, 36)))
    assert (chosen.estimate, chosen.center) == (fixed.estimate, fixed.center)
    assert chosen.spread.error**2 == pytest.approx(fixed.spread.error**2 + 0.02**2)
    assert chosen.interval().high - chosen.center > 2 * 0.02
    assert chosen.p_value > fixed.p_value
    assert chosen.smallest() > fixed.smallest()
    assert fixed.photos_for(0.01) is not None
    assert chosen.photos_for(0.01) is None, "no number of test photos makes the choice surer"


def test_holm_is_his_procedure():
    values = [0.04, 0.001, 0.2, 0.013]
    levels = holm_levels(values)
    assert levels == pytest.approx([0.05 / 2, 0.05 / 4, 0.05 / 2, 0.05 / 3])
    assert [value < level for value, level in zip(values, levels, strict=True)] == [False, True, False, True]
    assert holm_adjusted(values) == pytest.approx([0.08, 0.004, 0.2, 0.039])
    assert holm_levels([]) == holm_adjusted([]) == []


def test_an_interval_at_holms_level_says_what_the_adjusted_value_says():
    generator = np.random.default_rng(5)
    for _ in range(100):
        heads = answers(generator, heads=7, seeds=3, photos=300, seed_noise=generator.random(7) * 0.5, gain=0.5)
        found = [paired_difference(head, heads[-1]) for head in heads[:-1]]
        values = [one.p_value for one in found]
        shown = [one.interval(level).excludes_zero for one, level in zip(found, holm_levels(values), strict=True)]
        assert shown == [value < 0.05 for value in holm_adjusted(values)]
