import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from ktl.models.backbones import build_backbone
from ktl.models.batchnorm_folding import fold_batch_normalization
from ktl.models.boundaries import find_boundaries


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def randomize(model: keras.Model) -> keras.Model:
    """Other biases and statistics than the initial zeros and ones, with which a wrong formula could be right."""
    generator = np.random.default_rng(0)
    for variable in model.weights:
        low, high = {"moving_variance": (0.2, 3), "gamma": (0.5, 1.5)}.get(variable.name, (-0.5, 0.5))
        if len(variable.shape) == 1:
            variable.assign(generator.uniform(low, high, variable.shape))
    return model


def graph(*stack, shape=(6, 6, 3)) -> keras.Model:
    """The layers one after another."""
    x = inputs = keras.Input(shape)
    for layer in stack:
        x = layer(x)
    return randomize(keras.Model(inputs, x))


def folded(model: keras.Model) -> keras.Model:
    return fold_batch_normalization(model.inputs[0], model.outputs)


def normalizations(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


def assert_equal_outputs(model: keras.Model, new: keras.Model, tolerance=1e-5) -> None:
    """Equal to a fraction of each output's largest value; shapes and dtypes too, the symbolic ones included."""
    old = keras.Model(model.inputs[0], model.outputs)
    largest = 255 if new.inputs[0].name == "pixels" else 1
    x = np.random.default_rng(1).uniform(0, largest, (3, *old.input_shape[1:])).astype("float32")
    found, expected = (keras.tree.flatten(model(x, training=False)) for model in (new, old))
    for values, references in zip(found, expected, strict=True):
        assert (values.dtype, values.shape) == (references.dtype, references.shape)
        values, references = (keras.ops.convert_to_numpy(v).astype("float64") for v in (values, references))
        assert np.ptp(references) > 0
        np.testing.assert_allclose(values, references, rtol=0, atol=tolerance * np.abs(references).max())
    assert [(t.dtype, t.shape) for t in new.outputs] == [(t.dtype, t.shape) for t in model.outputs]
    assert new.inputs[0] is model.inputs[0]


LINEAR = {
    "convolution": (layers.Conv2D, {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"}),
    "grouped convolution": (layers.Conv2D, {"filters": 6, "kernel_size": 3, "groups": 3}),
    "depthwise convolution": (layers.DepthwiseConv2D, {"kernel_size": 3, "dilation_rate": 2}),
    "depthwise convolution with a multiplier": (layers.DepthwiseConv2D, {"kernel_size": 3, "depth_multiplier": 2}),
    "dense": (layers.Dense, {"units": 5}),
}


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("linear", LINEAR)
def test_every_linear_layer_takes_in_the_normalization_after_it(linear, use_bias):
    layer, arguments = LINEAR[linear]
    model = graph(layer(**arguments, use_bias=use_bias, name="linear"), layers.BatchNormalization())
    new = folded(model)
    assert normalizations(new) == []
    assert len(new.layers) == len(model.layers) - 1
    assert new.get_layer("linear").get_config() == {
        **model.get_layer("linear").get_config(),
        **{key: value for key, value in new.get_layer("linear").get_config().items() if "initializer" in key},
        "use_bias": True,
    }
    assert_equal_outputs(model, new)


@pytest.mark.parametrize(
    "arguments", [{"scale": False}, {"center": False}, {"scale": False, "center": False}, {"epsilon": 0.5}, {"axis": 3}]
)
def test_every_normalization_over_channels_is_taken_in(arguments):
    model = graph(layers.Conv2D(4, 3), layers.BatchNormalization(**arguments))
    new = folded(model)
    assert normalizations(new) == []
    assert_equal_outputs(model, new)


def test_after_a_dense_layer_of_vectors():
    model = graph(layers.Flatten(), layers.Dense(5, use_bias=False), layers.BatchNormalization(axis=1))
    new = folded(model)
    assert normalizations(new) == []
    assert_equal_outputs(model, new)


class OtherConvolution(layers.Conv2D):
    def call(self, inputs):
        return super().call(inputs) ** 2


class OtherNormalization(layers.BatchNormalization):
    def call(self, inputs, **arguments):
        return super().call(inputs, **arguments) ** 2


def with_lora() -> layers.Layer:
    layer = layers.Conv2D(4, 3, lora_rank=2)
    layer.build((None, 6, 6, 3))
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    return layer


@pytest.mark.parametrize(
    "stack",
    [
        lambda: [layers.BatchNormalization(), layers.Conv2D(4, 3)],
        lambda: [layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization()],
        lambda: [layers.Conv2D(4, 3), layers.ReLU(), layers.BatchNormalization()],
        lambda: [layers.Conv2D(4, 3), layers.BatchNormalization(axis=1)],
        lambda: [layers.Conv2DTranspose(4, 3), layers.BatchNormalization()],
        lambda: [layers.SeparableConv2D(4, 3), layers.BatchNormalization()],
        lambda: [OtherConvolution(4, 3), layers.BatchNormalization()],
        lambda: [layers.Conv2D(4, 3), OtherNormalization()],
        lambda: [layers.Conv2D(4, 3), layers.BatchNormalization(dtype="float16")],
        lambda: [with_lora(), layers.BatchNormalization()],
    ],
)
def test_what_is_no_such_pair_is_left_alone(stack):
    model = graph(*stack())
    new = folded(model)
    assert set(map(id, new.layers)) == set(map(id, model.layers))
    assert_equal_outputs(model, new)


def test_channels_first_are_left_alone():
    model = graph(layers.Conv2D(4, 3, data_format="channels_first"), layers.BatchNormalization())
    assert set(map(id, folded(model).layers)) == set(map(id, model.layers))


def test_a_convolution_that_something_else_reads_is_left_alone():
    pixels = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3)(pixels)
    model = randomize(keras.Model(pixels, layers.Add()([x, layers.BatchNormalization()(x)])))
    new = folded(model)
    assert len(normalizations(new)) == 1
    assert_equal_outputs(model, new)
    normalized = layers.BatchNormalization()(x := layers.Conv2D(4, 3)(pixels))
    model = randomize(keras.Model(pixels, [x, normalized]))
    new = folded(model)
    assert len(normalizations(new)) == 1
    assert_equal_outputs(model, new)


@pytest.mark.parametrize("shared", ["convolution", "normalization", "both"])
def test_a_layer_that_is_used_twice_is_left_alone(shared):
    pixels = keras.Input((6, 6, 3))
    convolutions, norms = ([make() for _ in range(2)] for make in (lambda: layers.Dense(3), layers.BatchNormalization))
    first, second = {"convolution": ([0, 0], [0, 1]), "normalization": ([0, 1], [0, 0]), "both": ([0, 0], [0, 0])}[
        shared
    ]
    x = pixels
    for convolution, norm in zip(first, second, strict=True):
        x = norms[norm](convolutions[convolution](x))
    model = randomize(keras.Model(pixels, x))
    new = folded(model)
    assert set(map(id, new.layers)) == set(map(id, model.layers))
    assert_equal_outputs(model, new)


def block_graph() -> keras.Model:
    """Operations with arguments that are no tensors, a side branch, a normalization after its end, several outputs."""
    pixels = keras.Input((6, 6, 3))
    x = first = layers.BatchNormalization(name="kept_first")(pixels / 2.0 - 0.5)
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(x)
    x = stem = layers.BatchNormalization()(x)
    branch = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    branch = keras.ops.clip(layers.BatchNormalization()(branch), -1, x_max=1)
    x = layers.BatchNormalization(name="kept_added")(layers.Add()([branch, x]))
    x = keras.ops.concatenate([x, branch], axis=-1)
    x = layers.Dropout(0.5)(keras.ops.mean(x, axis=(1, 2)))
    x = layers.BatchNormalization()(layers.Dense(5, name="dense")(x))
    return randomize(keras.Model(pixels, [x, branch, stem, first, pixels]))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_several_outputs_at_once(jit_compile):
    model = block_graph()
    new = folded(model)
    assert normalizations(new) == ["kept_first", "kept_added"]
    assert_equal_outputs(model, new)
    x = np.random.default_rng(2).uniform(size=(2, 6, 6, 3)).astype("float32")
    compiled = tf.function(lambda x: new(x, training=False), jit_compile=jit_compile)
    for found, expected in zip(compiled(x), model(x, training=False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_original_stays_as_it_is():
    model = block_graph()
    weights, description, state = model.get_weights(), model.to_json(), random.getstate()
    new = folded(model)
    assert model.to_json() == description
    assert random.getstate() == state  # where Keras' initializers take their seeds from
    for layer in new.layers:  # nor does the new model share variables where it has other values
        if layer.name in ("stem", "depthwise", "dense"):
            layer.set_weights([np.zeros(w.shape) for w in layer.weights])
    for found, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert_equal_outputs(model, folded(model))  # again, although the layers now have more nodes


def test_weights_are_computed_in_float64():
    model = graph(layers.Dense(1, use_bias=False, name="linear"), layers.BatchNormalization(epsilon=1e-9), shape=(1,))
    kernel, mean, variance, gamma, beta = 0.3, 7.1, 1 / 3, 1.7, 11.9
    model.layers[1].set_weights([np.array([[kernel]])])
    model.layers[2].set_weights([np.array([value]) for value in (gamma, beta, mean, variance)])
    kernel, gamma, beta, mean, variance = (float(np.float32(v)) for v in (kernel, gamma, beta, mean, variance))
    scale = gamma / np.sqrt(variance + 1e-9)
    found = [w.item() for w in folded(model).get_layer("linear").get_weights()]
    assert found == [np.float32(kernel * scale), np.float32(beta - mean * scale)]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_the_dtype_policy_is_kept(float32_policy, policy):
    keras.config.set_dtype_policy(policy)
    model = block_graph()
    new = folded(model)
    assert normalizations(new) == ["kept_first", "kept_added"]
    for name in ("stem", "depthwise", "dense"):
        assert new.get_layer(name).dtype_policy == model.get_layer(name).dtype_policy
        assert [w.dtype for w in new.get_layer(name).weights] == [model.get_layer(name).kernel.dtype] * 2
    assert_equal_outputs(model, new, tolerance=0.05 if "bfloat16" in policy else 0.005)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("mobilenetv3small", 0),
        ("mobilenet_0.75", 0),
        pytest.param("mobilenetv2_0.35", 0, marks=pytest.mark.long),
        pytest.param("efficientnet_lite0", 0, marks=pytest.mark.long),
        pytest.param("resnet50v2", 17, marks=pytest.mark.slow),  # before each of 16 blocks, and the last
        pytest.param("densenet121", 62, marks=pytest.mark.long),
    ],
)
def test_real_architectures(name, left):
    size = 32
    backbone = build_backbone(name, weights="random", image_size=size)
    boundaries = find_boundaries(backbone.logits)
    tensors = [boundaries[i].tensor for i in (0, 1, len(boundaries) // 2, -1)]
    model = randomize(keras.Model(backbone.pixels, tensors))
    new = folded(model)
    assert len(normalizations(new)) == left
    assert_equal_outputs(model, new, tolerance=1e-4)
