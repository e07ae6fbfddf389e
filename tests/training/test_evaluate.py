import dataclasses

import keras
import numpy as np
import pytest

from ktl.data.batches import ArraySpec, Batches
from ktl.training.evaluate import predict_probabilities, predict_with_activations


def batches_of(rows):
    """In fours."""
    specs = ArraySpec((None, *rows.shape[1:]), str(rows.dtype)), ArraySpec((None,), "int32")
    parts = [rows[start : start + 4] for start in range(0, len(rows), 4)]
    return Batches(len(parts), lambda number: (parts[number], np.zeros(len(parts[number]), "int32")), specs)


@pytest.mark.parametrize("size", [1.0, 1e4, 3e38])
def test_probabilities_are_the_softmax_of_the_logits_in_order(size):
    logits = np.random.default_rng(0).uniform(-1, 1, (10, 7)).astype("float32") * np.float32(size)
    identity = keras.Sequential([keras.Input((7,)), keras.layers.Identity()])
    batches = batches_of(logits)
    probabilities = predict_probabilities(identity, batches)
    assert probabilities.dtype == np.float64
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(1), 1)
    exact = logits.astype(np.float64)
    exponentials = np.exp(exact - exact.max(1, keepdims=True))
    np.testing.assert_allclose(probabilities, exponentials / exponentials.sum(1, keepdims=True), rtol=1e-12)


def test_activations_come_with_the_probabilities_from_one_pass():
    read = keras.Input((3,))
    model = keras.Model(read, [keras.layers.Rescaling(2.0)(read), keras.layers.Rescaling(3.0)(read)])
    photos, seen = np.random.default_rng(0).normal(size=(10, 3)).astype("float32"), []
    batches = batches_of(photos)
    counted = dataclasses.replace(batches, make=lambda number: seen.append(number) or batches[number])
    probabilities, activations = predict_with_activations(model, counted)
    assert sorted(seen) == [0, 1, 2]
    np.testing.assert_array_equal(activations, 2 * photos)
    exponentials = np.exp((3 * photos).astype(np.float64))
    np.testing.assert_allclose(probabilities, exponentials / exponentials.sum(1, keepdims=True), rtol=1e-12)


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="others compile for each size")
def test_one_graph_is_traced_for_batches_of_every_size():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    photos = np.random.default_rng(0).normal(size=(10, 3)).astype("float32")
    batches = batches_of(photos)
    for _ in range(2):
        assert predict_probabilities(model, batches).shape == (10, 2)
        assert model.predict_function.experimental_get_tracing_count() == 1
