import json
import math
import os
import shutil
import zipfile
from pathlib import Path
from urllib.error import HTTPError, URLError

import keras
import numpy as np
import pytest
from keras import applications, layers
from keras.src.applications import imagenet_utils
from keras.src.utils import file_utils
from support import start

from ktl.errors import UserError
from ktl.models.backbones import BACKBONES, build_backbone
from ktl.models.boundaries import find_boundaries
from ktl.models.keras_graph import topological_nodes

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# One member of each family: Keras' own preprocess_input and constructor, and a size well below the default one.
# EfficientNet is not here: Keras builds another graph for its ImageNet weights, see below.
# Here: of each kind of preprocessing one: swapped channels, a range of -1 to 1, and inside the network.
FAMILIES = {
    "resnet50": (applications.resnet.preprocess_input, applications.ResNet50, 64),
    "mobilenet_0.25": (applications.mobilenet.preprocess_input, applications.MobileNet, 64),
    "mobilenetv3small": (applications.mobilenet_v3.preprocess_input, applications.MobileNetV3Small, 64),
}
# And mean and deviation; a fixed size; constants inside the network that its weights hold.
SLOW_FAMILIES = {
    "densenet121": (applications.densenet.preprocess_input, applications.DenseNet121, 64),
    "vgg16": (applications.vgg16.preprocess_input, applications.VGG16, 224),
    "convnexttiny": (applications.convnext.preprocess_input, applications.ConvNeXtTiny, 64),
}
LONG_FAMILIES = {
    "mobilenetv2_0.35": (applications.mobilenet_v2.preprocess_input, applications.MobileNetV2, 64),
    "efficientnetv2b0": (applications.efficientnet_v2.preprocess_input, applications.EfficientNetV2B0, 64),
    "resnet50v2": (applications.resnet_v2.preprocess_input, applications.ResNet50V2, 64),
    "inceptionv3": (applications.inception_v3.preprocess_input, applications.InceptionV3, 96),
    "xception": (applications.xception.preprocess_input, applications.Xception, 80),
    "inceptionresnetv2": (applications.inception_resnet_v2.preprocess_input, applications.InceptionResNetV2, 96),
    "nasnetmobile": (applications.nasnet.preprocess_input, applications.NASNetMobile, 64),
    "efficientnetv2s": (applications.efficientnet_v2.preprocess_input, applications.EfficientNetV2S, 96),
}


@pytest.fixture(autouse=True)
def _free_memory():
    yield
    keras.backend.clear_session()


def photos(size, count=3):
    """Noise around one colour a photo, so that swapped channels, scale and offset all show after pooling."""
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (count, 1, 1, 3))
    return np.clip(colours + generator.integers(-60, 61, (count, size, size, 3)), 0, 255).astype("uint8")


def lively(model):
    """Random weights that no wrong pixel survives: signals of order one, moving statistics away from 0 and 1."""
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if len(variable.shape) > 1:
            fan_in = math.prod(variable.shape[:2] if variable.shape[-1] == 1 else variable.shape[:-1])
            variable.assign((2 / fan_in) ** 0.5 * generator.standard_normal(variable.shape, "float32"))
        elif variable.name.endswith(("gamma", "moving_variance")):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        elif variable.name.endswith(("beta", "bias", "moving_mean")):
            variable.assign(generator.normal(size=variable.shape, scale=0.1))
    return model


def run(model, images):
    """Without `predict`, whose tracing takes longer than these few photos."""
    return keras.ops.convert_to_numpy(model(images, training=False))


def softmax(logits):
    exponentials = np.exp(logits.astype("float64") - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def assert_same_logits(actual, expected, tolerance=1e-5):
    """Relative to the largest; the photos' logits must lie a thousand times as far apart, or equality shows nothing."""
    largest = np.abs(expected).max()
    assert np.abs(expected - expected.mean(0)).max() > 1000 * tolerance * largest
    assert np.abs(actual - expected).max() < tolerance * largest


def one_line_error(*arguments, **keywords) -> str:
    with pytest.raises(UserError) as caught:
        build_backbone(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The table


def test_every_classification_architecture_of_keras_has_a_row():
    constructors = {name for name in dir(applications) if name[0].isupper() and callable(getattr(applications, name))}
    assert len(constructors) >= 38
    assert {row.constructor for row in BACKBONES.values()} == {*constructors, "EfficientNetLite0"}


@pytest.mark.parametrize(
    ("constructor", "alphas"),
    [("MobileNet", (0.25, 0.5, 0.75, 1.0)), ("MobileNetV2", (0.35, 0.5, 0.75, 1.0, 1.3, 1.4))],
)
def test_every_width_that_keras_has_imagenet_weights_for_has_a_row(constructor, alphas, monkeypatch):
    rows = [row for row in BACKBONES.values() if row.constructor == constructor]
    assert tuple(row.arguments["alpha"] for row in rows) == alphas
    # Keras knows them: with any other width it refuses its ImageNet weights, before it starts to build.
    monkeypatch.setattr(keras.src.layers, "Input", start_to_build)
    for alpha in alphas:
        with pytest.raises(Started):
            getattr(applications, constructor)(alpha=alpha, weights="imagenet")
    with pytest.raises(ValueError, match="alpha"):
        getattr(applications, constructor)(alpha=0.6, weights="imagenet")


class Started(Exception):
    pass


def start_to_build(**_):
    raise Started


class DefaultSize(Exception):
    pass


@pytest.mark.parametrize(
    "name",
    [name for name, row in BACKBONES.items() if row.module not in ("mobilenet_v3", "ktl.models.efficientnet_lite")],
)
def test_the_image_size_is_keras_default(name, monkeypatch):
    def obtain_input_shape(_, default_size, **__):
        raise DefaultSize(default_size)

    monkeypatch.setattr(imagenet_utils, "obtain_input_shape", obtain_input_shape)
    row = BACKBONES[name]
    with pytest.raises(DefaultSize) as caught:
        getattr(applications, row.constructor)(weights=None, **row.arguments)
    assert caught.value.args == (row.image_size,)


SMALLEST = {
    min(
        (name for name, other in BACKBONES.items() if other.module == row.module),
        key=lambda name: BACKBONES[name].parameters,
    )
    for row in BACKBONES.values()
}
"""Of each of Keras' modules the row with the fewest parameters; the others differ in widths and repeats."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SMALLEST else pytest.mark.long) for name in BACKBONES]
)
def test_every_row_builds_at_its_own_size_and_its_numbers_are_the_graphs(name):
    row = BACKBONES[name]
    backbone = build_backbone(name, weights="random")
    assert backbone.pixels.shape == (None, row.image_size, row.image_size, 3)
    assert backbone.logits.shape == (None, 1000)
    assert len(backbone.features.shape) == 2
    assert backbone.model.count_params() == row.parameters
    boundaries = find_boundaries(backbone.logits)
    assert len(boundaries) == row.boundaries + 1
    assert len({boundary.name for boundary in boundaries}) == len(boundaries)
    names = [node.operation.name for node in topological_nodes(backbone.logits)]
    assert len(set(names)) == len(names)


# Pixels arrive once, as the training had them


@pytest.mark.parametrize(
    "name",
    [
        *FAMILIES,
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_FAMILIES),
        *(pytest.param(name, marks=pytest.mark.long) for name in LONG_FAMILIES),
    ],
)
def test_pixels_and_weights_give_the_logits_of_keras_own_preprocessing_and_model(name, tmp_path):
    preprocess_input, constructor, size = {**FAMILIES, **SLOW_FAMILIES, **LONG_FAMILIES}[name]
    arguments = BACKBONES[name].arguments
    expected = lively(
        constructor(
            include_top=True, weights=None, input_shape=(size, size, 3), classifier_activation=None, **arguments
        )
    )
    path = tmp_path / "random.weights.h5"
    expected.save_weights(path)
    images = photos(size)
    expected_logits = run(expected, preprocess_input(images.astype("float32")))

    backbone = build_backbone(name, weights=str(path), image_size=None if BACKBONES[name].fixed_size else size)
    assert_same_logits(run(backbone.model, images), expected_logits)
    assert_same_logits(run(backbone.model, images.astype("float32")), expected_logits)
    assert backbone.model.count_params() == expected.count_params()


def test_features_are_what_the_classification_layer_reads():
    backbone = build_backbone("mobilenetv3small", weights="random", image_size=32)
    lively(backbone.model)
    images = photos(32)
    kernel, bias = (weight.squeeze() for weight in backbone.model.get_layer("logits").get_weights())
    features = run(keras.Model(backbone.pixels, backbone.features), images)
    assert_same_logits(features @ kernel + bias, run(backbone.model, images))


# EfficientNet: Keras divides by sqrt(std) once more, for weights="imagenet" alone


@pytest.fixture(scope="module")
def efficientnet(tmp_path_factory):
    """A random EfficientNetB0 at 64 px, and its weights in the old format, as Keras' own file has them.

    The Normalization layer of that file has the standard deviations where the variances are due.
    """
    model = lively(applications.EfficientNetB0(weights=None, input_shape=(64, 64, 3), classifier_activation=None))
    set_normalization(model, MEAN, STD)
    path = tmp_path_factory.mktemp("efficientnet") / "efficientnetb0.h5"
    model.save(path)
    return model, path


def set_normalization(model, mean, variance):
    (layer,) = (layer for layer in model.layers if isinstance(layer, layers.Normalization))
    for variable, values in zip(layer.weights, (mean, variance), strict=False):
        variable.assign(values)
    layer.finalize_state()


@pytest.fixture
def fake_download(monkeypatch, tmp_path):
    """Makes Keras take `downloaded.h5` for what it asked to download; returns the names that it asked for."""
    asked = []

    def get_file(name, origin, **_):
        asked.append(name)
        return str(tmp_path / "downloaded.h5")

    monkeypatch.setattr(file_utils, "get_file", get_file)
    return asked


def test_efficientnet_equals_keras_own_model_with_imagenet_weights(efficientnet, fake_download, tmp_path):
    _, path = efficientnet
    (tmp_path / "downloaded.h5").symlink_to(path)
    images = photos(224, count=2)
    expected = run(applications.EfficientNetB0(weights="imagenet", classifier_activation=None), images)
    backbone = build_backbone("efficientnetb0")
    assert fake_download == ["efficientnetb0.h5"] * 2
    assert_same_logits(run(backbone.model, images), expected)


def test_efficientnet_at_another_size_equals_the_formula_of_its_training(efficientnet):
    model, path = efficientnet
    images = photos(64)
    set_normalization(model, np.zeros(3), np.ones(3))  # leaves x / 255
    expected = run(model, (255 * (images / 255 - MEAN) / STD).astype("float32"))
    backbone = build_backbone("efficientnetb0", weights=str(path), image_size=64)
    assert_same_logits(run(backbone.model, images), expected)


# weights="imagenet"


def test_imagenet_weights_fit_sizes_that_keras_itself_refuses(fake_download, tmp_path):
    donor = lively(applications.MobileNet(alpha=0.25, weights=None))
    donor.save(tmp_path / "downloaded.h5")
    with pytest.raises(ValueError, match="input_shape"):
        applications.MobileNet(alpha=0.25, weights="imagenet", input_shape=(96, 96, 3), include_top=True)

    expected = applications.MobileNet(alpha=0.25, weights=None, input_shape=(96, 96, 3), classifier_activation=None)
    expected.set_weights(donor.get_weights())
    images = photos(96)
    backbone = build_backbone("mobilenet_0.25", image_size=96)
    assert fake_download == ["mobilenet_2_5_224_tf.h5"]
    preprocessed = applications.mobilenet.preprocess_input(images.astype("float32"))
    assert_same_logits(run(backbone.model, images), run(expected, preprocessed))


@pytest.fixture
def keras_models():
    """Where Keras keeps weights: a folder that is not there."""
    folder = Path(os.environ["KERAS_HOME"]) / "models"
    shutil.rmtree(folder, ignore_errors=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def no_network(monkeypatch, keras_models):
    """No weights in Keras' home on a machine without network; a call sets what the network answers."""

    def answer(error):
        def urlretrieve(*_):
            raise error

        monkeypatch.setattr(file_utils, "urlretrieve", urlretrieve)

    answer(URLError(OSError(-3, "Temporary failure in name resolution")))
    return answer


def test_without_network_the_error_names_the_file_its_place_and_the_ways_on(no_network, keras_models):
    message = one_line_error("mobilenet_0.25", image_size=64)
    assert f"or mobilenet_2_5_224_tf.h5 in {keras_models}." in message
    assert "https://storage.googleapis.com/" in message
    assert "/mobilenet_2_5_224_tf.h5: " in message  # the URL, whole
    assert "Temporary failure in name resolution" in message  # what was seen, not what it may mean
    assert "as `weights`" in message
    assert "efficientnet_lite0" in message
    # The message is right: a file put there is found.
    donor = lively(applications.MobileNet(alpha=0.25, weights=None))
    donor.save(keras_models / "mobilenet_2_5_224_tf.h5")
    found = build_backbone("mobilenet_0.25", image_size=64)
    for actual, expected in zip(found.model.get_weights(), donor.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_the_error_names_the_folder_where_keras_looks_if_its_home_is_not_writable(no_network, keras_models):
    home = keras_models.parent
    away = home.rename(f"{home}-away")  # whoever runs this may be root, who can write to every folder
    try:
        message = one_line_error("mobilenet_0.25")
    finally:
        away.rename(home)
    assert "or mobilenet_2_5_224_tf.h5 in /tmp/.keras/models." in message


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (HTTPError("https://x/y.h5", 404, "Not Found", None, None), "404 -- Not Found"),
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"),
        (TimeoutError("The read operation timed out"), "timed out"),
    ],
)
def test_a_broken_download_gets_one_line(no_network, error, words):
    no_network(error)
    message = one_line_error("mobilenet_0.25")
    assert words in message
    assert "ImageNet weights of mobilenet_0.25" in message


def test_a_damaged_download_gets_one_line(no_network, keras_models):
    keras_models.mkdir()
    (keras_models / "mobilenet_2_5_224_tf.h5").write_bytes(b"not HDF5")
    assert str(keras_models) in one_line_error("mobilenet_0.25")


# Real weights and photos


def test_real_weights_give_keras_own_predictions_on_real_photos(assets):
    path = assets / "weights" / "mobilenet_0_75_224.weights.h5"
    files = [
        *(sorted(folder.glob("*.jpg"))[0] for folder in sorted((assets / "data/flowers17/test").iterdir())),
        *(sorted(folder.glob("*.jpg"))[0] for folder in sorted((assets / "data/oxford_pets37/test").iterdir())),
    ]
    assert len(files) == 17 + 37
    images = np.stack([keras.utils.img_to_array(keras.utils.load_img(f, target_size=(224, 224))) for f in files])
    expected = applications.MobileNet(alpha=0.75, weights=str(path), classifier_activation="softmax")
    expected = keras.Model(expected.input, [expected.layers[-1].input, expected.output])
    preprocessed = applications.mobilenet.preprocess_input(images.copy())
    expected_logits, probabilities = map(keras.ops.convert_to_numpy, expected(preprocessed, training=False))

    backbone = build_backbone("mobilenet_0.75", weights=str(path))
    logits = run(backbone.model, images)
    np.testing.assert_allclose(logits, expected_logits, atol=1e-4)
    np.testing.assert_allclose(softmax(logits), probabilities, atol=1e-4)
    # And they name what is on the photos, where ImageNet has a class of that name.
    index = json.loads((assets / "weights" / "imagenet_class_index.json").read_text())
    top = [index[str(i)][1].lower() for i in logits.argmax(1)]
    known = {name.lower() for _, name in index.values()}
    hits = [f.parent.name.lower() == t for f, t in zip(files, top, strict=True) if f.parent.name.lower() in known]
    assert len(hits) >= 8
    assert np.mean(hits) > 0.6


# A user's own classifier


def image(size: int | None = 32):
    return keras.Input((size, size, 3))


def body(x):
    x = layers.Rescaling(1 / 127.5, -1)(x)
    x = layers.Conv2D(8, 3, strides=2)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(12, 3)(x)
    return layers.GlobalAveragePooling2D()(layers.ReLU()(x))


def flat():
    x = image()
    return keras.Model(x, layers.Dense(7, activation="softmax")(body(x)))


def around(base):
    """As Keras' guide to transfer learning builds them: a frozen backbone called in inference mode."""
    base.trainable = False
    y = base(layers.Rescaling(1 / 127.5, -1)(x := image()), training=False)
    return keras.Model(x, layers.Dense(7, activation="softmax")(layers.Dropout(0.2)(y)))


def nested():
    return around(keras.Model(x := image(), body(x)))


def nested_twice():
    inner = keras.Model(x := image(), body(x))
    middle = keras.Sequential([image(), layers.RandomFlip(), inner])
    return keras.Sequential([image(), middle, layers.Dense(7, activation="softmax")])


def nested_with_several_tensors():
    a, b = (keras.Input((32, 32, 3), name=name) for name in "ab")
    inner = keras.Model({"a": a, "b": b}, [layers.Subtract()([a, b]), layers.Add()([a, b])])
    x = image()
    difference, total = inner({"b": layers.Rescaling(3.0)(x), "a": x})
    return keras.Model(x, layers.Dense(7, activation="softmax")(body(layers.Concatenate()([difference, total]))))


def sequential():
    return keras.Sequential(
        [
            image(),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(7, activation="softmax"),
        ]
    )


def final_activation():
    x = image()
    return keras.Model(x, layers.Activation("softmax", dtype="float32")(layers.Dense(7)(body(x))))


def final_softmax_layer():
    x = image()
    return keras.Model(x, layers.Softmax()(layers.Dense(7)(body(x))))


def final_softmax_operation():
    x = image()
    return keras.Model(x, keras.ops.softmax(layers.Dense(7)(body(x))))


def final_convolution_and_reshape():
    x = image()
    y = layers.Reshape((1, 1, 12))(body(x))
    return keras.Model(x, layers.Reshape((7,))(layers.Conv2D(7, 1, activation="softmax")(y)))


def nested_head():
    x, features = image(), keras.Input((12,))
    return keras.Model(x, keras.Model(features, layers.Dense(7, activation="softmax")(features))(body(x)))


def any_size():
    x = image(None)
    return keras.Model(x, layers.Dense(7, activation="softmax")(body(x)))


def frozen_layers():
    model = flat()
    for layer in model.layers[:-1]:
        layer.trainable = False
    return model


def names_used_twice():
    inner_x, x = keras.Input((32, 32, 3), name="pixels"), keras.Input((32, 32, 3), name="pixels")
    y = layers.Conv2D(4, 3, name="classify")(layers.Rescaling(2.0, name="rescaling")(inner_x))
    inner = keras.Model(inner_x, y, name="classify")
    y = layers.GlobalAveragePooling2D()(inner(layers.Rescaling(1 / 255, name="rescaling")(x)))
    return keras.Model(x, layers.Dense(7, activation="softmax", name="classify_2")(y), name="outer")


CLASSIFIERS = (
    flat,
    nested,
    nested_twice,
    nested_with_several_tensors,
    nested_head,
    sequential,
    final_activation,
    final_softmax_layer,
    final_softmax_operation,
    final_convolution_and_reshape,
    any_size,
    frozen_layers,
    names_used_twice,
)


@pytest.mark.parametrize("make", CLASSIFIERS)
def test_a_users_classifier_gives_the_logits_behind_its_probabilities(make, tmp_path):
    model, images = lively(make()), photos(32)
    model.save(tmp_path / "mine.keras")
    probabilities = run(model, images)
    assert np.abs(probabilities - probabilities.mean(0)).max() > 1e-3
    parameters = model.count_params()
    keras.backend.clear_session()

    backbone = build_backbone(str(tmp_path / "mine.keras"), image_size=32 if make is any_size else None)
    logits = run(backbone.model, images)
    np.testing.assert_allclose(softmax(logits), probabilities, atol=1e-6)
    constant = logits - np.log(probabilities)
    np.testing.assert_allclose(constant, constant.mean(1, keepdims=True).repeat(7, 1), atol=2e-4)
    assert backbone.model.count_params() == parameters
    assert backbone.pixels.shape == (None, 32, 32, 3)
    assert not any(isinstance(layer, keras.Model) for layer in backbone.model.layers)


def test_a_classifier_that_ends_in_logits_keeps_them(tmp_path):
    x = image()
    model = lively(keras.Model(x, layers.Dense(7)(body(x))))
    model.save(tmp_path / "mine.keras")
    images = photos(32)
    np.testing.assert_allclose(
        run(build_backbone(str(tmp_path / "mine.keras")).model, images), run(model, images), rtol=1e-6
    )


def test_boundaries_reach_inside_a_nested_mobilenet(tmp_path):
    base = applications.MobileNet(
        include_top=False, alpha=0.25, weights=None, input_shape=(32, 32, 3), pooling="avg", name="base"
    )
    model, images = lively(around(base)), photos(32)
    model.save(tmp_path / "mine.keras")
    backbone = build_backbone(str(tmp_path / "mine.keras"))
    np.testing.assert_allclose(softmax(run(backbone.model, images)), run(model, images), atol=1e-6)
    boundaries = find_boundaries(backbone.logits)
    own = find_boundaries(build_backbone("mobilenet_0.25", weights="random", image_size=32).logits)
    assert len(own) == 29
    assert [b.name for b in boundaries[:-1]] == [b.name for b in own[:-1]]
    assert boundaries[-1].parameters_before == own[-2].parameters_before + 257 * 7
    assert backbone.features.shape == (None, 256)


def test_boundaries_reach_inside_models_nested_twice(tmp_path):
    nested_twice().save(tmp_path / "mine.keras")
    boundaries = find_boundaries(build_backbone(str(tmp_path / "mine.keras")).logits)
    assert [b.name for b in boundaries] == ["none", "re_lu_1", "re_lu_2", "dense_1"]


def test_layers_that_the_user_froze_are_boundaries_like_the_others(tmp_path):
    frozen_layers().save(tmp_path / "frozen.keras")
    flat().save(tmp_path / "free.keras")
    frozen, free = (build_backbone(str(tmp_path / f"{name}.keras")) for name in ("frozen", "free"))
    assert [b.name for b in find_boundaries(frozen.logits)] == [b.name for b in find_boundaries(free.logits)]
    assert len(find_boundaries(frozen.logits)) == 4
    assert len(frozen.model.trainable_variables) == len(free.model.trainable_variables) == 8


def test_names_used_twice_are_told_apart(tmp_path):
    names_used_twice().save(tmp_path / "mine.keras")
    backbone = build_backbone(str(tmp_path / "mine.keras"))
    names = [layer.name for layer in backbone.model.layers]
    assert len(set(names)) == len(names)
    assert {"pixels", "classify", "classify_2"} <= set(names)
    backbone.model.save(tmp_path / "flat.keras")
    images = photos(32)
    again = keras.models.load_model(tmp_path / "flat.keras")
    np.testing.assert_array_equal(run(again, images), run(backbone.model, images))


def test_any_size_takes_the_size_asked_for(tmp_path):
    any_size().save(tmp_path / "mine.keras")
    path = str(tmp_path / "mine.keras")
    assert build_backbone(path).image_size == 224
    assert build_backbone(path, image_size=48).image_size == 48


class Subclassed(keras.Model):
    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.flatten, self.dense = layers.Flatten(), layers.Dense(7)

    def call(self, x):
        return self.dense(self.flatten(x))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 32, 32, 3)))
    return model


def two_inputs():
    a, b = image(), image()
    return keras.Model([a, b], layers.Dense(7)(body(layers.Add()([a, b]))))


def two_outputs():
    x = image()
    y = body(x)
    return keras.Model(x, [layers.Dense(7)(y), layers.Dense(7)(y)])


def segmentation():
    x = image()
    return keras.Model(x, layers.Conv2D(7, 1, activation="softmax")(x))


def grayscale():
    x = keras.Input((28, 28, 1))
    return keras.Model(x, layers.Dense(10)(layers.Flatten()(x)))


def with_a_lambda():
    x = image()
    return keras.Model(x, layers.Dense(7)(body(layers.Lambda(lambda y: y * 2)(x))))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (subclassed, "Could not locate class 'Subclassed'"),
        (two_inputs, r"\[\(None, 32, 32, 3\), \(None, 32, 32, 3\)\] to \[\(None, 7\)\]"),
        (two_outputs, r"\[\(None, 32, 32, 3\)\] to \[\(None, 7\), \(None, 7\)\]"),
        (segmentation, r"to \[\(None, 32, 32, 7\)\]"),
        (grayscale, r"\(None, 28, 28, 1\)"),
        (with_a_lambda, "`Lambda` layer .* potential risk of arbitrary code"),
    ],
)
def test_a_file_that_holds_no_image_classifier_is_refused(make, words, tmp_path):
    path = tmp_path / "mine.keras"
    make().save(path)
    message = one_line_error(str(path))
    assert str(path) in message
    with pytest.raises(UserError, match=words):
        build_backbone(str(path))


def test_a_subclassed_model_is_refused_even_where_its_class_is_known(tmp_path):
    subclassed().save(tmp_path / "mine.keras")
    with keras.saving.custom_object_scope({"Subclassed": Subclassed}):
        assert "functional classifier" in one_line_error(str(tmp_path / "mine.keras"))


@pytest.mark.parametrize("damage", ["bytes", "empty", "truncated", "no config", "broken config", "broken weights"])
def test_a_damaged_keras_file_is_refused(damage, tmp_path):
    flat().save(tmp_path / "whole.keras")
    path = tmp_path / "mine.keras"
    if damage in ("bytes", "empty", "truncated"):
        whole = (tmp_path / "whole.keras").read_bytes()
        path.write_bytes({"bytes": b"\x93ktl" * 99, "empty": b"", "truncated": whole[: len(whole) // 2]}[damage])
    else:
        with zipfile.ZipFile(tmp_path / "whole.keras") as whole, zipfile.ZipFile(path, "w") as broken:
            for name in whole.namelist():
                if name == "config.json" and damage == "no config":
                    continue
                is_broken = damage == {"config.json": "broken config", "model.weights.h5": "broken weights"}.get(name)
                broken.writestr(name, b"{" if is_broken else whole.read(name))
    assert str(path) in one_line_error(str(path))


def test_a_classifier_file_has_its_own_weights_and_size(tmp_path):
    flat().save(tmp_path / "mine.keras")
    path = str(tmp_path / "mine.keras")
    assert "32 x 32. Received: 64" in one_line_error(path, image_size=64)
    assert "it holds its own. Received: other.h5" in one_line_error(path, weights="other.h5")
    assert "no such file" in one_line_error(str(tmp_path / "missing.keras"))
    (tmp_path / "folder.keras").mkdir()
    assert "folder.keras (which is no regular file)" in one_line_error(str(tmp_path / "folder.keras"))
    os.mkfifo(tmp_path / "pipe.keras")
    assert "pipe.keras (which is no regular file)" in one_line_error(str(tmp_path / "pipe.keras"))
    pipe = {"weights": str(tmp_path / "pipe.keras"), "image_size": 32}
    assert "pipe.keras (which is no regular file)" in one_line_error("mobilenet_0.25", **pipe)
    x = keras.Input((32, 48, 3))
    keras.Model(x, layers.Dense(7)(body(x))).save(tmp_path / "wide.keras")
    assert "32 x 48. Received: 32" in one_line_error(str(tmp_path / "wide.keras"))


# Names


def names(backbone) -> list[list[str]]:
    """Of all operations, and of all boundaries."""
    return [
        [node.operation.name for node in topological_nodes(backbone.logits)],
        [boundary.name for boundary in find_boundaries(backbone.logits)],
    ]


def _write_names(calls, path):
    path.write_text(json.dumps([names(build_backbone(**call)) for call in calls]))


def test_names_are_the_same_whatever_was_built_before_and_in_every_process(tmp_path):
    nested_twice().save(tmp_path / "mine.keras")
    # Keras numbers activations and sums in MobileNetV3, preprocessing operations in MobileNet.
    calls = [
        {"name": "mobilenet_0.25", "weights": "random", "image_size": 32},
        {"name": "mobilenetv3small", "weights": "random", "image_size": 32},
        {"name": str(tmp_path / "mine.keras")},
    ]
    process = start(_write_names, calls, tmp_path / "names.json")

    def build_all(order):
        return {i: names(build_backbone(**calls[i])) for i in order}

    first = build_all([0, 1, 2])
    assert build_all([2, 0, 1]) == first
    process.join()
    assert json.loads((tmp_path / "names.json").read_text()) == list(first.values())
    assert {"true_divide_1", "subtract_1", "conv1_relu"} <= set(first[0][0])
    assert {"re_lu_1", "re_lu_2", "activation_1"} <= set(first[1][0])


# Errors


def test_an_unknown_name_lists_the_names():
    message = one_line_error("resnet5000")
    assert message.endswith("Received: resnet5000")
    assert all(f" {name}," in message for name in BACKBONES)


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_an_architecture_that_flattens_takes_no_other_size(name):
    message = one_line_error(name, weights="random", image_size=128)
    assert "Expected `image_size` 224" in message
    assert "flattens" in message


@pytest.mark.parametrize(
    ("name", "image_size", "least"),
    [
        ("inceptionv3", 32, 75),
        ("inceptionresnetv2", 64, 75),
        ("xception", 64, 71),
        ("resnet50", 16, 32),
        ("densenet121", 16, 32),
        ("mobilenet_0.25", 31, 32),
    ],
)
def test_too_small_a_size_is_refused_with_the_smallest(name, image_size, least):
    assert f"{least}x{least}" in one_line_error(name, weights="random", image_size=image_size)


@pytest.mark.parametrize("image_size", [0, -32])
@pytest.mark.parametrize("name", ["mobilenet_0.25", "mine.keras"])
def test_sizes_below_one_are_refused(name, image_size):
    assert f"`image_size` to be at least 1. Received: {image_size}" in one_line_error(name, image_size=image_size)


@pytest.fixture(scope="module")
def wrong_weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    other = applications.MobileNet(alpha=0.5, weights=None, input_shape=(32, 32, 3))
    other.save_weights(folder / "other.weights.h5")
    other.save(folder / "other.h5")
    other.save(folder / "other.keras")
    for suffix in ("weights.h5", "h5", "keras", "ckpt"):
        (folder / f"bytes.{suffix}").write_bytes(b"\x93ktl" * 99)
    (folder / "folder.weights.h5").mkdir()
    return folder


@pytest.mark.parametrize(
    "file",
    [
        "other.weights.h5",
        "other.h5",
        "other.keras",
        "bytes.weights.h5",
        "bytes.h5",
        "bytes.keras",
        "bytes.ckpt",
        "folder.weights.h5",
        "missing.weights.h5",
    ],
)
def test_wrong_weights_are_refused(file, wrong_weights):
    """In one line: no warning of Keras', and no values of a layer."""
    path = str(wrong_weights / file)
    line = one_line_error("mobilenet_0.25", weights=path, image_size=32)
    assert path in line
    assert "value=" not in line


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    model = build_backbone("mobilenet_0.25", weights="random", image_size=32).model
    model.weights[3].assign(np.full(model.weights[3].shape, np.nan, "float32"))
    model.save_weights(tmp_path / "nan.weights.h5")
    message = one_line_error("mobilenet_0.25", weights=f"{tmp_path}/nan.weights.h5", image_size=32)
    assert "nan.weights.h5 to hold finite numbers. Received: nan in " in message


# Files at URLs


def test_weights_at_a_url_are_those_of_the_file(tmp_path):
    pytest.importorskip("fsspec", reason="needs fsspec")
    network = applications.MobileNet(alpha=0.25, weights=None, input_shape=(32, 32, 3), classifier_activation=None)
    network.save_weights(tmp_path / "net.weights.h5")
    url = f"file://{tmp_path}"
    places = (f"{tmp_path}/net.weights.h5", f"{url}/net.weights.h5")
    here, there = (build_backbone("mobilenet_0.25", weights=place, image_size=32) for place in places)
    for one, other in zip(here.model.weights, there.model.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    (tmp_path / "damaged.h5").write_bytes(b"damaged")
    with pytest.raises(UserError, match=rf"^Expected {url}/damaged\.h5 to hold the weights of mobilenet_0\.25\."):
        build_backbone("mobilenet_0.25", weights=f"{url}/damaged.h5", image_size=32)
    with pytest.raises(UserError, match=rf"^Expected `weights` to be a file\. Received: {url}/none\.h5 \(No such file"):
        build_backbone("mobilenet_0.25", weights=f"{url}/none.h5", image_size=32)
    with pytest.raises(UserError, match=rf"^Expected {url}/net\.weights\.h5 to be a model that Keras can load\."):
        build_backbone(f"{url}/net.weights.h5")
