"""A linear probe against scipy, on made-up rows."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from ktl.evaluation.probe import ONE_PHOTO, PENALTIES, fit_probe


def made(rows, *, classes=3, width=5, seed=0):
    """Normal rows about a mean a class; labels go round."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    means = np.random.default_rng(99).normal(size=(classes, width))
    return (means[labels] + generator.normal(0, 0.8, (rows, width))).astype("float32"), labels


def test_it_is_the_minimum_of_its_loss():
    """Minimised again, by scipy: mean over rows of the log loss, C times, and half of the squared weights."""
    rows, labels = made(60)
    probe = fit_probe(rows, labels)
    centred = rows.astype("float64") - rows.astype("float64").mean(axis=0)
    scaled = centred / np.sqrt((centred**2).sum(axis=1).mean())

    def loss(flat):
        kernel, bias = flat[:15].reshape(5, 3), flat[15:]
        logs = scipy.special.log_softmax(scaled @ kernel + bias, axis=1)
        return -probe.penalty * logs[np.arange(60), labels].sum() + (kernel**2).sum() / 2

    found = scipy.optimize.minimize(loss, np.zeros(18), method="BFGS", options={"gtol": 1e-6})
    kernel, bias = found.x[:15].reshape(5, 3), found.x[15:]
    new, _ = made(20, seed=1)
    logits = (new - rows.mean(axis=0)) / np.sqrt((centred**2).sum(axis=1).mean()) @ kernel + bias
    np.testing.assert_allclose(probe.probabilities(new), scipy.special.softmax(logits, axis=1), atol=2e-3)
    assert probe.converged


def test_the_penalty_is_chosen_by_photos_that_the_probe_was_not_fitted_to():
    """Noise in 200 directions: the weakest penalty fits it, and is the worst on other rows."""
    rows, labels = made(90)
    noise = np.random.default_rng(5).normal(0, 1.0, (90, 200)).astype("float32")
    probe = fit_probe(np.concatenate([rows, noise], axis=1), labels)
    assert probe.penalty < PENALTIES[-1]
    assert 0 < probe.log_loss < np.log(3)


def test_the_scale_and_the_place_of_rows_mean_nothing():
    rows, labels = made(60)
    probe, moved = fit_probe(rows, labels), fit_probe(100 * rows + 7, labels)
    assert (probe.penalty, moved.penalty) == (moved.penalty, probe.penalty)
    np.testing.assert_allclose(probe.probabilities(rows), moved.probabilities(100 * rows + 7), atol=1e-3)


@pytest.mark.parametrize("each", [1, 2])
def test_few_photos(each):
    rows, labels = made(3 * each)
    probe = fit_probe(rows, labels)
    assert (probe.log_loss is None) == (each == 1)
    assert probe.penalty == ONE_PHOTO or each == 2
    assert (probe.probabilities(rows).argmax(axis=1) == labels).all()


def test_equal_rows_tell_nothing():
    probe = fit_probe(np.ones((6, 2), "float32"), np.arange(6) % 2)
    np.testing.assert_allclose(probe.probabilities(np.ones((1, 2), "float32")), [[0.5, 0.5]], atol=1e-6)
