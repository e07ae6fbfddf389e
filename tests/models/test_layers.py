import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from ktl.models.layers import ScaledUnitNormalization


def formula(x, gamma, epsilon=1e-3):
    x = x.astype("float64")
    return gamma * x / np.maximum(np.sqrt((x**2).sum(-1, keepdims=True)), epsilon)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(scale=9, size=(4, 7)).astype("float32")


@pytest.mark.parametrize("shape", [(4, 7), (2, 3, 7), (2, 3, 5, 7)])
def test_matches_the_formula_at_every_rank(shape):
    x = np.random.default_rng(1).normal(scale=30, size=shape).astype("float32")
    y = ScaledUnitNormalization(20.0)(x)
    np.testing.assert_allclose(y, formula(x, 20.0), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(y, axis=-1), 20.0, rtol=1e-6)


@pytest.mark.parametrize(("per_channel", "shape"), [(True, (7,)), (False, ())])
def test_gamma_scales_channels_or_the_whole_vector(x, per_channel, shape):
    layer = ScaledUnitNormalization(5.0, per_channel=per_channel)
    layer.build(x.shape)
    assert layer.gamma.shape == shape
    gamma = np.linspace(1, 2, 7).astype("float32") if per_channel else np.float32(3)
    layer.gamma.assign(gamma)
    np.testing.assert_allclose(layer(x), formula(x, gamma), rtol=1e-6)


def test_gradients_equal_finite_differences(x):
    layer = ScaledUnitNormalization(10.0)
    layer.build(x.shape)
    weights = np.random.default_rng(2).normal(size=x.shape)
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(layer(inputs) * weights.astype("float32"))
    by_x, by_gamma = tape.gradient(loss, [inputs, layer.gamma.value])

    def loss_at(values, gamma):
        return (formula(values, gamma) * weights).sum()

    step = 1e-5
    for index in np.ndindex(x.shape):
        shift = np.zeros(x.shape)
        shift[index] = step
        expected = (loss_at(x + shift, 10.0) - loss_at(x - shift, 10.0)) / (2 * step)
        assert by_x.numpy()[index] == pytest.approx(expected, rel=1e-3, abs=1e-4)
    np.testing.assert_allclose(by_gamma, (formula(x, 1.0) * weights).sum(0), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("float32_policy")
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16", "float16"])
def test_zero_and_huge_vectors_stay_finite_under_every_policy(policy):
    keras.config.set_dtype_policy(policy)
    layer = ScaledUnitNormalization(10.0)
    # 4 * 300 ** 2 is more than float16 holds.
    x = tf.constant([[0.0] * 4, [300.0] * 4])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    assert y.dtype.name == layer.compute_dtype
    np.testing.assert_allclose(tf.cast(y, "float32"), [[0.0] * 4, [5.0] * 4], rtol=4e-3)
    assert np.isfinite(tape.gradient(y, x).numpy()).all()
    assert layer.gamma.dtype == "float32"


def test_frozen_gamma_is_not_trained(x):
    layer = ScaledUnitNormalization(10.0, trainable=False)
    layer.build(x.shape)
    assert layer.trainable_variables == []
    assert len(layer.variables) == 1


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_equals_eager(x, jit_compile):
    layer = ScaledUnitNormalization(10.0)
    compiled = tf.function(layer, jit_compile=jit_compile)
    np.testing.assert_allclose(compiled(x), formula(x, 10.0), rtol=1e-6)


def test_saved_model_opens_in_a_fresh_process_without_custom_objects(x, tmp_path):
    model = keras.Sequential([keras.Input((7,)), ScaledUnitNormalization(7.0, per_channel=False, epsilon=1e-3)])
    model.layers[0].gamma.assign(3.0)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, keras, ktl.layers, numpy as np; model = keras.models.load_model(sys.argv[1] + '/model.keras');"
        "np.save(sys.argv[1] + '/y.npy', model(np.load(sys.argv[1] + '/x.npy'))); layer = model.layers[0];"
        "assert (layer.scale, layer.per_channel, layer.epsilon) == (7.0, False, 1e-3), layer.get_config()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), formula(x, 3.0), rtol=1e-6)


@pytest.mark.parametrize("arguments", [{"scale": 0}, {"scale": -1.0}, {"epsilon": 0}, {"scale": float("nan")}])
def test_refuses_what_is_not_positive(arguments):
    with pytest.raises(ValueError, match="Received"):
        ScaledUnitNormalization(**arguments)


@pytest.mark.parametrize("shape", [(7,), (1, 1, 1, 1, 7)])
def test_refuses_other_ranks(shape):
    with pytest.raises(ValueError, match="rank 2, 3 or 4"):
        ScaledUnitNormalization().build(shape)
