import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from ktl.errors import shown
from ktl.models.layers import ScaledUnitNormalization


def formula(x, gamma, epsilon=1e-3):
    x = x.astype("float64")
    return gamma * x / np.maximum(np.sqrt((x**2).sum(-1, keepdims=True)), epsilon)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(scale=9, size=(4, 7)).astype("float32")


SHAPES = [(4, 7), (3, 5, 7), (2, 3, 5, 7)]
ARGUMENTS = [
    {},
    {"scale": 0.5, "per_channel": False, "epsilon": 1e-6},
    {"scale": np.float32(20), "trainable": False, "epsilon": np.float64(0.25)},
]
POLICIES = ["float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16", "float64"]
ROUNDING = {"float16": 2e-3, "bfloat16": 1e-2, "float32": 1e-6, "float64": 1e-6}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=["default", "one factor", "fixed"])
@pytest.mark.parametrize("shape", SHAPES, ids=["rank 2", "rank 3", "rank 4"])
class TestWhatKerasAsksOfALayer:
    """After the battery that Keras runs on its own layers: 54 combinations of shape, arguments and dtype policy."""

    @pytest.fixture
    def layer(self, arguments, policy):
        return ScaledUnitNormalization(**arguments, dtype=policy)

    @pytest.fixture
    def inputs(self, shape, layer):
        values = np.random.default_rng(len(shape)).normal(scale=9, size=shape)
        values.reshape(-1, shape[-1])[0] = 0  # shorter than any epsilon
        return keras.ops.cast(values, layer.compute_dtype)

    def test_build(self, layer, shape, arguments):
        layer.build(shape)
        assert layer.built
        assert [weight.path.split("/")[-1] for weight in layer.weights] == ["gamma"]
        assert layer.gamma.shape == ((shape[-1],) if layer.per_channel else ())
        assert keras.backend.standardize_dtype(layer.gamma.dtype) == "float32"
        assert len(layer.trainable_weights) == (1 if arguments.get("trainable", True) else 0)
        np.testing.assert_array_equal(layer.gamma, np.full(layer.gamma.shape, np.float32(layer.scale)))

    def test_formula(self, layer, inputs):
        result = keras.ops.convert_to_numpy(keras.ops.cast(layer(inputs), "float64"))
        expected = formula(keras.ops.convert_to_numpy(keras.ops.cast(inputs, "float64")), layer.scale, layer.epsilon)
        np.testing.assert_allclose(result, expected, rtol=ROUNDING[layer.compute_dtype])

    def test_symbolic_as_eager(self, layer, inputs):
        result = layer(inputs)
        for batch in (inputs.shape[0], None):
            shape = (batch, *inputs.shape[1:])
            symbolic = layer(keras.KerasTensor(shape, layer.compute_dtype))
            assert (symbolic.shape, layer.compute_output_shape(shape)) == (shape, shape)
            assert symbolic.dtype == keras.backend.standardize_dtype(result.dtype) == layer.compute_dtype
        assert tuple(result.shape) == tuple(inputs.shape)

    def test_config_through_json(self, layer, inputs):
        text = json.dumps(keras.saving.serialize_keras_object(layer))
        again = keras.saving.deserialize_keras_object(json.loads(text))
        assert again.get_config() == layer.get_config()
        assert json.loads(json.dumps(layer.get_config())) == layer.get_config()
        assert (again.dtype_policy.name, again.trainable) == (layer.dtype_policy.name, layer.trainable)
        assert vars(again).keys() == vars(layer).keys()
        np.testing.assert_array_equal(*(keras.ops.cast(either(inputs), "float64") for either in (layer, again)))

    def test_saved_in_a_model(self, layer, inputs, tmp_path):
        model = keras.Sequential([keras.Input(inputs.shape[1:], dtype=layer.compute_dtype), layer])
        layer.gamma.assign(layer.gamma * 1.5)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(*(keras.ops.cast(either(inputs), "float64") for either in (model, again)))
        model.save_weights(tmp_path / "model.weights.h5")
        layer.gamma.assign(layer.gamma * 0)
        model.load_weights(tmp_path / "model.weights.h5")
        np.testing.assert_array_equal(layer.gamma, again.layers[0].gamma)

    @pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
    def test_a_step_of_training(self, layer, inputs):
        model = keras.Sequential([keras.Input(inputs.shape[1:], dtype=layer.compute_dtype), layer])
        model.compile("sgd", "mse", run_eagerly=True)
        before = layer.gamma.numpy()
        assert np.isfinite(model.train_on_batch(inputs, keras.ops.zeros_like(inputs)))
        after = layer.gamma.numpy()
        assert np.isfinite(after).all()
        assert (after < before).all() if layer.trainable else (after == before).all()

    def test_masks_pass(self, layer, inputs):
        mask = keras.ops.ones(inputs.shape[:-1], "bool")
        assert layer.supports_masking
        assert layer.compute_mask(inputs, mask) is mask


def test_a_mask_reaches_the_layer_behind():
    x = np.random.default_rng(3).normal(size=(2, 4, 7)).astype("float32")
    x[0, 2:] = x[1, 3:] = 0
    pixels = keras.Input((4, 7))
    pooled = keras.layers.GlobalAveragePooling1D()(ScaledUnitNormalization(2.0)(keras.layers.Masking()(pixels)))
    expected = [formula(x[0, :2], 2.0).mean(0), formula(x[1, :3], 2.0).mean(0)]
    np.testing.assert_allclose(keras.Model(pixels, pooled)(x), expected, rtol=1e-5)


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


def test_a_saved_model_opens_without_custom_objects(x, tmp_path):
    """In a process of its own it does too: tests/test_registration.py."""
    model = keras.Sequential([keras.Input((7,)), ScaledUnitNormalization(7.0, per_channel=False, epsilon=1e-3)])
    model.layers[0].gamma.assign(3.0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(x), formula(x, 3.0), rtol=1e-6)
    layer = again.layers[0]
    assert (layer.scale, layer.per_channel, layer.epsilon) == (7.0, False, 1e-3)


@pytest.mark.parametrize("name", ["scale", "epsilon"])
@pytest.mark.parametrize(
    "value",
    [
        0,
        -1.0,
        float("nan"),
        float("inf"),
        -float("inf"),
        1e39,
        10**400,
        1e-60,
        "a",
        "3",
        [3.0],
        None,
        True,
        1j,
        np.ones(1),
    ],
    ids=repr,
)
def test_refuses_what_is_no_positive_number(name, value):
    received = re.escape(shown(value))
    with pytest.raises(ValueError, match=rf"Expected `{name}` to be a number from .* Received: {received}$"):
        ScaledUnitNormalization(**{name: value})


@pytest.mark.parametrize("scale", [np.float32(2), np.float64(2), np.float16(2), np.int64(2), 2])
def test_any_kind_of_number_gives_the_same_config(scale):
    assert json.dumps(ScaledUnitNormalization(scale, name="a").get_config()) == json.dumps(
        ScaledUnitNormalization(2.0, name="a").get_config()
    )


def test_zero_vectors_stay_zero_at_the_least_epsilon():
    y = ScaledUnitNormalization(np.finfo("float32").max, epsilon=1.1e-19)(np.zeros((1, 4), "float32"))
    np.testing.assert_array_equal(y, np.zeros((1, 4)))


@pytest.mark.parametrize("shape", [(7,), (1, 1, 1, 1, 7)])
def test_refuses_other_ranks(shape):
    with pytest.raises(ValueError, match="rank 2, 3 or 4"):
        ScaledUnitNormalization().build(shape)
