import functools

import numpy as np
import pytest
import scipy.special
from scipy import stats

from ktl.evaluation.calibration import LIMITS, PRIOR_SD, Temperature, fit_temperature, with_temperature
from ktl.evaluation.metrics import expected_calibration_error


def drawn(temperature: float, *, photos: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a network that is right when its logits are divided by `temperature`, and labels drawn so."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 3, (photos, 5))
    true = scipy.special.softmax(logits / temperature, axis=1)
    labels = (generator.random((photos, 1)) > true.cumsum(axis=1)).sum(axis=1)
    return scipy.special.softmax(logits, axis=1).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature):
    found = fit_temperature(*drawn(temperature))
    assert found.value == pytest.approx(temperature, rel=0.03)
    assert found.low < temperature < found.high < 1.1 * found.low
    assert found.is_supported


def log_losses(probabilities, labels, temperature):
    return -np.log(with_temperature(probabilities, temperature)[np.arange(len(labels)), labels])


@functools.cache
def draws(temperature: float, photos: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Many, more of few photos."""
    return [drawn(temperature, photos=photos, seed=seed) for seed in range({10: 150, 100: 80, 1000: 30}[photos])]


@functools.cache
def simulated(temperature: float, photos: int) -> list[Temperature]:
    """Of many draws the temperatures that are fitted."""
    return [fit_temperature(*draw) for draw in draws(temperature, photos)]


def plain_and_fitted(temperature: float, photos: int) -> tuple[np.ndarray, np.ndarray]:
    """Of many draws the temperatures with the smallest loss, and those that are fitted."""
    grid = np.exp(np.linspace(*np.log(LIMITS), 100))
    plain = [grid[np.argmin([log_losses(*draw, t).mean() for t in grid])] for draw in draws(temperature, photos)]
    return np.array(plain), np.array([one.value for one in simulated(temperature, photos)])


@pytest.mark.parametrize("photos", [10, 100, 1000])
def test_a_calibrated_network_is_hardly_ever_made_surer(photos):
    """The temperature with the smallest loss is below 1 every other time."""
    plain, fitted = plain_and_fitted(1.0, photos)
    assert np.mean(plain < 0.99) > 0.3
    assert np.mean(fitted < 1) <= 0.07
    assert np.mean(np.log(fitted) ** 2) < np.mean(np.log(plain) ** 2)


@pytest.mark.parametrize(("photos", "most"), [(10, 0.7), (100, 0.2), (1000, 0.06)])
def test_a_network_that_is_too_sure_is_drawn_towards_its_temperature(photos, most):
    """The root mean squared error of the logarithm; with few photos less than without the prior."""
    plain, fitted = plain_and_fitted(2.5, photos)
    errors = [np.sqrt(np.mean(np.log(values / 2.5) ** 2)) for values in (plain, fitted)]
    assert errors[1] < most
    assert photos > 10 or errors[1] < errors[0]
    assert np.mean(fitted > 1) > 0.9


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("photos", [10, 100, 1000])
def test_the_interval_covers_the_temperature(temperature, photos):
    found = simulated(temperature, photos)
    assert np.mean([one.low <= temperature <= one.high for one in found]) >= 0.9
    assert all(one.photos == photos for one in found)


def test_ten_photos_do_not_support_a_temperature_and_a_hundred_do():
    for temperature in (0.5, 1.0, 2.5):
        assert np.mean([one.is_supported for one in simulated(temperature, 10)]) < 0.2
        assert np.mean([one.is_supported for one in simulated(temperature, 100)]) > 0.9


def test_the_fit_is_the_most_probable_temperature():
    """On a grid, with the prior as a normal density, of networks that are too sure."""
    probabilities, labels = drawn(2.5, photos=40)
    grid = np.linspace(0.5, 6, 3001)
    density = [-log_losses(probabilities, labels, t).sum() + stats.norm.logpdf(np.log(t), 0, PRIOR_SD) for t in grid]
    found = fit_temperature(probabilities, labels)
    assert found.value == pytest.approx(grid[np.argmax(density)], abs=0.003)
    likelihood = np.array([-log_losses(probabilities, labels, t).sum() for t in grid])
    inside = grid[2 * (likelihood.max() - likelihood) <= stats.chi2.ppf(0.95, 1)]
    assert (found.low, found.high) == pytest.approx((inside[0], inside[-1]), abs=0.003)


def test_it_calibrates():
    probabilities, labels = drawn(3.0)
    assert expected_calibration_error(probabilities, labels) > 0.2
    assert expected_calibration_error(with_temperature(probabilities, 3.0), labels) < 0.02


def test_scaling_divides_the_logits():
    logits = np.array([[3.0, -1.0, 0.5], [0.0, 0.0, 9.0]])
    scaled = with_temperature(scipy.special.softmax(logits, axis=1), 2.0)
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum(axis=1, keepdims=True)
    assert scaled == pytest.approx(expected, abs=1e-12)


def test_a_probability_of_zero_stays_finite():
    scaled = with_temperature(np.array([[1.0, 0.0]], np.float32), 2.0)
    assert np.isfinite(scaled).all()
    assert scaled[0, 0] == pytest.approx(1)


@pytest.mark.parametrize("photos", [10, 400])
def test_a_network_that_is_always_right_is_left_as_it_is(photos):
    """Ten photos were given a temperature of 0.2, and every answer more than 0.99."""
    found = fit_temperature(np.array([[0.9, 0.1], [0.2, 0.8]] * (photos // 2)), np.array([0, 1] * (photos // 2)))
    assert found.value == 1
    assert found.low == pytest.approx(LIMITS[0])
    assert not found.is_supported
