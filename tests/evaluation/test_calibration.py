import numpy as np
import pytest
import scipy.special

from ktl.evaluation.calibration import LIMITS, fit_temperature, with_temperature
from ktl.evaluation.metrics import expected_calibration_error


def drawn(temperature: float, *, photos: int = 20_000, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a network that is right when its logits are divided by `temperature`, and labels drawn so."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (photos, classes))
    true = scipy.special.softmax(logits / temperature, axis=1)
    labels = (generator.random((photos, 1)) > true.cumsum(axis=1)).sum(axis=1)
    return scipy.special.softmax(logits, axis=1).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature):
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.03)


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


def test_a_network_that_is_always_right_gets_the_lowest_temperature():
    probabilities = np.array([[0.6, 0.4], [0.3, 0.7]])
    assert fit_temperature(probabilities, np.array([0, 1])) == pytest.approx(LIMITS[0], rel=0.01)
