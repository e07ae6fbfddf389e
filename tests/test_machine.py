"""What is in force on a machine; what is faster on a CPU gives the same numbers, and inside alone."""

import gc
import random
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import config as framework_config
from tensorflow.python.framework.ops import gradient_registry
from tiny import CLASSES, SIZE, inputs_of, tiny_classifier

from ktl.backends import tensorflow_machine as tensorflow_machine
from ktl.backends.tensorflow_machine import graphs_as_traced
from ktl.machine import (
    PRIVATE_NAMES,
    Machine,
    Memory,
    pointwise_as_matmul,
    process_state_restored,
    set_up_machine,
    traces_forgotten,
)
from ktl.models.backbones import build_backbone
from ktl.models.classifier import TransferClassifier
from ktl.training.fit import fit


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


@pytest.mark.parametrize("cached", [False, True])
def test_training_has_it(tmp_path, cached):
    pixels = keras.Input((SIZE, SIZE, 3))
    hidden = keras.layers.Conv2D(8, 3, strides=4, name="wide")(pixels)
    hidden = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 1, name="narrow")(hidden))
    keras.Model(pixels, keras.layers.Dense(5)(hidden)).save(tmp_path / "backbone.keras")
    classifier = tiny_classifier(tmp_path / "backbone.keras", freeze_depth="wide")
    inputs = inputs_of(classifier, cache_dir=tmp_path / "cache" if cached else None)
    watcher = Watcher(classifier.get_layer("narrow"))
    fit(classifier, inputs, epochs=1, checkpoint_dir=tmp_path / "checkpoint", callbacks=[watcher])
    assert watcher.seen
    assert all(watcher.seen)
    assert "convolution_op" not in vars(watcher.layer)
    assert not tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)


# What is in force


ASKED = {"seed": 0, "precision": "auto", "xla": "auto", "strategy": "auto", "deterministic": False}


@pytest.fixture
def machine_settings(float32_policy, without_determinism_afterwards):
    """Puts back what `set_up_machine` sets for the whole process."""


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="says what a CPU gets")
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}),
        ({"xla": "on"}, {"xla": True}),
        ({"xla": "off"}, {}),
        ({"precision": "mixed_bfloat16"}, {"precision": "mixed_bfloat16"}),
        ({"precision": "mixed_float16"}, {"precision": "mixed_float16"}),
        ({"strategy": "none"}, {}),
        ({"deterministic": True}, {}),
    ],
)
def test_the_machine_says_what_is_in_force_on_a_cpu(machine_settings, settings, expected):
    machine = set_up_machine(**{**ASKED, **settings})
    plain = {"devices": ("CPU",), "precision": "float32", "xla": False, "strategy": "none"}
    assert machine == Machine(**plain | expected)
    assert keras.config.dtype_policy().name == machine.precision
    assert framework_config.is_op_determinism_enabled() is settings.get("deterministic", False)
    with machine.scope():
        assert not isinstance(tf.distribute.get_strategy(), tf.distribute.MirroredStrategy)


def test_the_seed_decides_the_initial_weights(tiny_backbone, machine_settings):
    heads = []
    for seed in (3, 3, 4):
        set_up_machine(**{**ASKED, "seed": seed})
        classifier = tiny_classifier(tiny_backbone, seed=None)
        heads.append(classifier.get_layer("head_classifier").get_weights()[0])
    np.testing.assert_array_equal(heads[0], heads[1])
    assert (heads[0] != heads[2]).all()


def test_the_seed_is_that_of_every_generator(machine_settings):
    def drawn(seed):
        set_up_machine(**{**ASKED, "seed": seed})
        return [random.random(), np.random.rand(), float(tf.random.uniform(())), float(keras.random.uniform(()))]

    first, again, other = drawn(3), drawn(3), drawn(4)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def kernel_dtypes(model) -> set[str]:
    """What the layers that multiply compute in."""
    return {layer.compute_dtype for layer in model.layers if any(len(weight.shape) > 1 for weight in layer.weights)}


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_reaches_the_layers(machine_settings, precision):
    set_up_machine(**{**ASKED, "precision": precision})
    backbone = build_backbone("mobilenet_0.25", weights="random", image_size=SIZE)
    classifier = TransferClassifier(backbone, class_names=CLASSES)
    assert kernel_dtypes(classifier) == {precision.removeprefix("mixed_"), "float32"}
    assert classifier.suffix.get_layer("head_classifier").compute_dtype == "float32"  # logits, for the loss
    assert classifier.output.dtype == "float32"
    assert {variable.dtype for variable in classifier.trainable_variables} == {"float32"}


def test_mixed_precision_reaches_the_layers_of_a_file(machine_settings, tiny_backbone):
    set_up_machine(**{**ASKED, "precision": "mixed_bfloat16"})
    assert "bfloat16" in kernel_dtypes(build_backbone(str(tiny_backbone)).model)


# Private state of TensorFlow and Keras


ALL_PRIVATE_NAMES = (*PRIVATE_NAMES, *tensorflow_machine.PRIVATE_NAMES)


@pytest.mark.parametrize(("owner", "name"), ALL_PRIVATE_NAMES, ids=[name for _, name in ALL_PRIVATE_NAMES])
def test_the_private_names_exist(owner, name):
    place = getattr(owner, "__name__", type(owner).__name__)
    assert hasattr(owner, name), (
        f"{place}.{name} is gone in TensorFlow {tf.__version__} and Keras {keras.__version__}: see ktl.machine"
    )


def use_pipeline_and_gradient() -> weakref.ref:
    """Something that a pipeline's function holds; a custom gradient is traced, too."""
    held = np.zeros(1)
    numbers = tf.data.Dataset.range(2).map(
        lambda number: tf.numpy_function(lambda n: n + len(held), [number], tf.int64)
    )
    assert list(numbers.as_numpy_iterator()) == [1, 2]

    @tf.function
    def loss(x):
        return tf.custom_gradient(lambda y: (y, lambda upstream: upstream))(x)

    loss(tf.constant(1.0))
    return weakref.ref(held)


def test_what_tensorflow_would_keep_for_ever_is_forgotten(monkeypatch):
    gradients, cleared = set(gradient_registry.list()), []
    clear = context.Context.clear_kernel_cache
    monkeypatch.setattr(context.Context, "clear_kernel_cache", lambda self: cleared.append(clear(self)))
    with traces_forgotten():
        held = use_pipeline_and_gradient()
        assert set(gradient_registry.list()) > gradients
        assert cleared == []
    gc.collect()
    assert len(cleared) == 1, "how many kernels it keeps TensorFlow does not tell"
    assert set(gradient_registry.list()) == gradients
    assert held() is None


# The process's state


def changeable() -> dict:
    return {
        "policy": keras.config.dtype_policy().name,
        "interactive": keras.config.is_interactive_logging_enabled(),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "seed": context.global_seed(),
        "deterministic": framework_config.is_op_determinism_enabled(),
    }


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
@pytest.mark.parametrize("seeded", [True, False])
def test_the_process_s_state_is_put_back(machine_settings, error, seeded):
    context.set_global_seed(None)
    if seeded:
        keras.utils.set_random_seed(8)
    keras.config.set_dtype_policy("mixed_bfloat16")
    counted, before = keras.layers.Dense(1).name, changeable()
    try:
        with process_state_restored():
            assert keras.layers.Dense(1).name == "dense"
            assert keras.config.dtype_policy().name == "float32"
            set_up_machine(**{**ASKED, "precision": "mixed_float16", "deterministic": True, "seed": 9})
            keras.config.disable_interactive_logging()
            random.random()
            np.random.rand()
            if error:
                raise error
    except KeyboardInterrupt:
        assert error
    assert changeable() == before
    assert number_of(keras.layers.Dense(1).name) == number_of(counted) + 1


def number_of(name: str) -> int:
    """5 of `dense_5`, 0 of `dense`."""
    return int(name.removeprefix("dense").removeprefix("_") or 0)


def test_determinism_that_was_asked_for_before_stays(machine_settings):
    keras.utils.set_random_seed(1)
    tf.config.experimental.enable_op_determinism()
    with process_state_restored():
        set_up_machine(**{**ASKED, "deterministic": True})
    assert framework_config.is_op_determinism_enabled()


def test_what_a_training_leaves_behind_is_freed(float32_policy):
    """Keras' optimizers leave a custom gradient with their graph; it is not there after the next `free`."""
    memory = Memory()
    memory.free()
    held = []
    for _ in range(2):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        model.compile(keras.optimizers.SGD(), "mse")
        model.fit(np.zeros((4, 4)), np.zeros((4, 2)), verbose=0)
        held.append(weakref.ref(model))
        del model
        memory.free()
        gc.collect()
    assert [reference() for reference in held] == [None, None]
    assert keras.layers.Dense(1).name == "dense"
