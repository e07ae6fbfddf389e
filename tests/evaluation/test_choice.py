"""Choices that are made again on new draws of the photos that chose, against chances worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from ktl.evaluation import choice
from ktl.evaluation.choice import RESAMPLES, choice_noise, choose, drawn_again
from ktl.evaluation.random_effects import Noise


def test_draws_have_the_mean_and_the_spread_of_the_bootstrap():
    hits = np.array([[1.0] * 30 + [0.0] * 10, [0.5] * 40, [0.0] * 10 + [1.0] * 30])
    scores = drawn_again(hits)
    assert scores.shape == (RESAMPLES, 3)
    assert scores.mean(axis=0) == pytest.approx([0.75, 0.5, 0.75], abs=0.01)
    assert scores.var(axis=0) == pytest.approx([0.75 * 0.25 / 40, 0, 0.75 * 0.25 / 40], rel=0.15, abs=1e-12)
    # The two differ by opposite photos: a draw that has more of the ones has fewer of the others.
    assert np.corrcoef(scores[:, 0], scores[:, 2])[0, 1] == pytest.approx(-1 / 3, abs=0.1)


def test_all_networks_and_calls_have_the_same_draws(monkeypatch):
    hits = np.random.default_rng(0).random((4, 25)) > 0.3
    scores = drawn_again(hits)
    assert np.array_equal(drawn_again(hits[2:]), scores[:, 2:])
    monkeypatch.setattr(choice, "AT_ONCE", 70)
    assert np.array_equal(drawn_again(hits), scores), "few at a time are other draws"


def test_equals_are_chosen_by_their_loss():
    scores = np.array([[0.5, 0.5, 0.4], [0.5, 0.6, 0.6], [0.7, 0.1, 0.2]])
    assert choose(scores, np.array([0.3, 0.2, 0.1])).tolist() == [1, 2, 0]
    assert choose(scores, np.array([0.2, 0.2, 0.2])).tolist() == [0, 1, 0], "of equals in all, the first"
    assert choose(scores, np.array([np.inf, 0.2, 0.1])).tolist() == [1, 2, 0]


def test_as_many_draws_choose_the_other_one_as_the_binomial_distribution_has_it():
    """The second recognises 5 photos of 40 that the first does not, and lacks 3: it is better where a draw has more of
    the five than of the three."""
    hits = np.ones((2, 40))
    hits[0, :5], hits[1, 5:8] = 0, 0
    chosen = choose(drawn_again(hits), np.array([0.1, 0.2]))
    of_eight = stats.binom(40, 8 / 40)
    expected = sum(of_eight.pmf(count) * stats.binom(count, 5 / 8).sf(count // 2) for count in range(41))
    assert np.mean(chosen == 1) == pytest.approx(expected, abs=0.05)


def test_the_noise_is_the_mean_squared_distance_from_what_was_chosen():
    assert choice_noise(np.array([0.03, 0.03, -0.01, 0.03]), measured=0.03, photos=37) == pytest.approx(
        Noise(0.04**2 / 4, 36)
    )
    assert choice_noise(np.full(5, 0.03), measured=0.03, photos=1) == Noise(0, 1)
