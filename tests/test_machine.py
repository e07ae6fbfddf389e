"""Convolutions of one pixel as matrix products, graphs that are not rewritten: the same numbers, inside alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from ktl.config.settings import RunConfig
from ktl.data.loading import load_dataset
from ktl.machine import graphs_as_traced, pointwise_as_matmul
from ktl.progress import Reporter
from ktl.runs.run import prepare


@pytest.fixture
def pixels():
    return tf.constant(np.random.default_rng(0).normal(size=(3, 5, 4, 6)).astype(np.float32))


def value_and_gradients(layer, pixels):
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        value = layer(pixels)
        loss = tf.reduce_sum(tf.sin(value))
    return [value, *tape.gradient(loss, [pixels, *layer.trainable_variables])]


def operations(layer, pixels) -> set[str]:
    """Types of the operations of the layer and its gradients in a graph."""
    graph = tf.function(lambda x: value_and_gradients(layer, x)).get_concrete_function(pixels).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.parametrize("arguments", [{}, {"padding": "same"}, {"use_bias": False}, {"activation": "relu"}])
def test_values_and_gradients_are_those_of_the_convolution(pixels, arguments):
    layer = keras.layers.Conv2D(7, 1, **arguments)
    expected = value_and_gradients(layer, pixels)
    with pointwise_as_matmul([layer]):
        found = value_and_gradients(layer, pixels)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_it_is_a_matrix_product_inside_and_a_convolution_outside(pixels):
    layer = keras.layers.Conv2D(7, 1)
    layer(pixels)
    with pointwise_as_matmul([layer]):
        assert "Conv2DBackpropInput" not in operations(layer, pixels)
        assert "MatMul" in operations(layer, pixels)
    assert "Conv2DBackpropInput" in operations(layer, pixels)
    assert "convolution_op" not in vars(layer)


def test_the_method_comes_back_after_an_error(pixels):
    layer = keras.layers.Conv2D(7, 1)
    with pytest.raises(KeyboardInterrupt), pointwise_as_matmul([layer]):
        raise KeyboardInterrupt
    assert "convolution_op" not in vars(layer)


class Halved(keras.layers.Conv2D):
    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel) / 2


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv2D(4, 3),
        keras.layers.Conv2D(4, 1, strides=2),
        keras.layers.Conv2D(4, 1, groups=2),
        keras.layers.Conv2D(4, 1, data_format="channels_first"),
        Halved(4, 1),
        keras.layers.Dense(4),
    ],
)
def test_any_other_layer_stays_as_it_is(layer):
    with pointwise_as_matmul([layer]):
        assert "convolution_op" not in vars(layer)


def test_the_batch_and_the_picture_may_have_any_size(pixels):
    inputs = keras.Input((None, None, 6))
    layer = keras.layers.Conv2D(7, 1)
    model = keras.Model(inputs, layer(inputs))
    expected = model(pixels)
    with pointwise_as_matmul(model.layers):
        found = tf.function(model, input_signature=[tf.TensorSpec([None, None, None, 6])])(pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_half_precision_stays_half(pixels):
    layer = keras.layers.Conv2D(7, 1, dtype="mixed_bfloat16")
    expected = layer(pixels)
    with pointwise_as_matmul([layer]):
        found = layer(pixels)
    assert found.dtype == expected.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(found, "float32"), tf.cast(expected, "float32"), rtol=0.02, atol=0.02)


def products_computed(pixels) -> int:
    """How many matrix products TensorFlow computes of two equal ones; rewriting a graph merges them."""
    rows = tf.reshape(pixels, (-1, 6))
    function = tf.function(lambda x: tf.matmul(x, x, transpose_a=True) + tf.sin(tf.matmul(x, x, transpose_a=True)))
    context.enable_run_metadata()
    function(rows)
    found = context.export_run_metadata()
    context.disable_run_metadata()
    graphs = [graph.post_optimization_graph for graph in found.function_graphs]
    return max(sum(node.op in ("MatMul", "_MklMatMul") for node in graph.node) for graph in graphs)


def test_graphs_are_computed_as_traced_inside_and_rewritten_outside(pixels):
    assert products_computed(pixels) == 1
    with graphs_as_traced():
        assert products_computed(pixels) == 2
        with graphs_as_traced():
            assert products_computed(pixels) == 2
        assert products_computed(pixels) == 2
    assert products_computed(pixels) == 1


class Watcher(keras.callbacks.Callback):
    """Whether a layer is a matrix product while it trains, and graphs are left as they are."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.seen = layer, []

    def on_train_batch_end(self, batch, logs=None):
        options = tf.config.optimizer.get_experimental_options()
        self.seen.append("convolution_op" in vars(self.layer) and options["disable_meta_optimizer"])


def test_a_run_trains_with_it(photo_folder, tmp_path):
    inputs = keras.Input((32, 32, 3))
    hidden = keras.layers.Conv2D(8, 3, strides=4, name="wide")(inputs)
    hidden = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 1, name="narrow")(hidden))
    keras.Model(inputs, keras.layers.Dense(5)(hidden)).save(tmp_path / "backbone.keras")
    config = RunConfig(
        dataset=str(photo_folder), backbone=str(tmp_path / "backbone.keras"), freeze_depth="wide", cache="off", epochs=1
    )
    prepared = prepare(config, load_dataset(config.dataset), reporter=Reporter())
    watcher = Watcher(prepared.network.graph.get_layer("narrow"))
    prepared.train(str(tmp_path / "checkpoint"), reporter=Reporter(), callbacks=[watcher])
    assert watcher.seen
    assert all(watcher.seen)
    assert "convolution_op" not in vars(watcher.layer)
