import json

import keras
import numpy as np
import pytest

from ktl.errors import UserError
from ktl.models.backbones import build_backbone
from ktl.models.classifier import TransferClassifier
from ktl.models.flat_graph import RESERVED_NAMES
from ktl.models.heads import HEADS
from ktl.models.recipe import Recipe

SIZE = 32
NAMES = ("a", "b", "c", "d", "e")


def classify(backbone, **arguments) -> TransferClassifier:
    return TransferClassifier(backbone, **{"class_names": NAMES, "freeze_depth": "none", **arguments})


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), "uint8")


def make_backbone():
    return lively(build_backbone("mobilenet_0.25", weights="random", image_size=SIZE))


@pytest.fixture(scope="module")
def backbone():
    """Not to be trained."""
    return make_backbone()


def lively(backbone):
    """Random weights whose logits are of order one: Keras' start for depthwise kernels lets the signal die out."""
    generator = np.random.default_rng(0)
    for variable in backbone.model.trainable_variables:
        if len(variable.shape) > 1:
            depthwise = variable.shape[-1] == 1
            fan_in = np.prod(variable.shape[:2] if depthwise else variable.shape[:-1])
            variable.assign(generator.normal(size=variable.shape, scale=(2 / fan_in) ** 0.5))
    return backbone


def softened(backbone) -> np.ndarray:
    """The classification layer's kernel with singular values s_1 (s / s_1)^(1/4), by eigenvectors of its square."""
    kernel = keras.ops.convert_to_numpy(backbone.classification_layer.kernel).reshape(256, 1000).astype("float64")
    squares, vectors = np.linalg.eigh(kernel @ kernel.T)
    values = np.sqrt(squares)
    return vectors @ np.diag((values / values.max()) ** (0.25 - 1)) @ vectors.T @ kernel


def train(model, pixels, steps=3):
    """Step by step, without the graph, which takes longer to trace."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False, run_eagerly=True)
    model.fit(pixels, np.arange(len(pixels)) % 5, epochs=steps, verbose=0)


def run(model, images):
    """Without `predict`, which traces a graph first."""
    return keras.ops.convert_to_numpy(model(images, training=False))


def values(model):
    return {v.path: keras.ops.convert_to_numpy(v) for v in model.variables if "seed" not in v.path}


@pytest.mark.parametrize("head", HEADS)
def test_every_head_equals_its_formula(backbone, pixels, head):
    classifier = classify(backbone, head=head, scale=7.0)
    logits = run(backbone.model, pixels).astype("float64")
    features = run(keras.Model(backbone.pixels, backbone.features), pixels).astype("float64")
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)

    def scaled_unit(x):
        return 7.0 * x / np.linalg.norm(x, axis=1, keepdims=True)

    def side_by_side(*parts):
        return np.concatenate([x / np.linalg.norm(x, axis=1, keepdims=True) for x in parts], axis=1)

    expected = {
        "kept": scaled_unit(logits),
        "kept_raw": logits,
        "kept_softmax": probabilities,
        "kept_batchnorm": logits / np.sqrt(1 + 1e-3),  # moving statistics start at 0 and 1
        "kept_beside": scaled_unit(side_by_side(features, logits)),
        "kept_softmax_beside": scaled_unit(side_by_side(features, probabilities)),
        "kept_softened": scaled_unit(features @ softened(backbone)),
        "replaced": features,
        "replaced_normalized": scaled_unit(features),
    }[head]
    kernel, bias = classifier.suffix.get_layer("head_classifier").get_weights()
    np.testing.assert_allclose(run(classifier, pixels), expected @ kernel + bias, rtol=1e-4, atol=1e-5)


def test_layers_that_give_what_a_head_reads_have_names_of_their_own(backbone):
    """Of no backbone's layer, and of one source alone: a pass over the photos has those of several in one model."""
    below = {layer.name for layer in backbone.model.layers} | {"features"}
    names = {
        row.source: {layer.name for layer in classify(backbone, head=head).layers if not layer.name.startswith("head_")}
        - below
        for head, row in HEADS.items()
    }
    together = [name for some in names.values() for name in some]
    assert len(together) == len(set(together))
    assert set(together) <= RESERVED_NAMES
    assert len(together) == 9, "Softmax for two sources, two times two units side by side, and softened logits"


@pytest.mark.parametrize("head", HEADS)
def test_auto_freezes_nine_tenths_and_all_below_probabilities_beside_features(head):
    classifier = classify(make_backbone(), head=head, freeze_depth="auto")
    shares = [boundary.cost_share for boundary in classifier.boundaries]
    expected = len(shares) - 1 if head == "kept_softmax_beside" else max(i for i, x in enumerate(shares) if x <= 0.9)
    assert classifier.boundary.depth == expected
    classifier.freeze("none")
    assert classifier.boundary_at("auto").depth == expected
    classifier.freeze("auto")
    assert classifier.boundary.depth == expected
    assert classifier.boundary_at(1).depth == 1


def test_replaced_has_no_classification_layer(backbone):
    assert backbone.features.shape == (None, 256)
    parameters = {head: classify(backbone, head=head).count_params() for head in HEADS}
    assert parameters["kept_raw"] - parameters["replaced"] == 257 * 1000 + 1001 * 5 - 257 * 5


def test_a_classifier_that_was_frozen_leaves_the_next_one_of_its_backbone_its_boundaries():
    fresh = build_backbone("mobilenet_0.25", weights="random", image_size=SIZE)
    names = [boundary.name for boundary in classify(fresh, head="replaced").boundaries]
    classify(fresh, head="kept").freeze("all")
    again = classify(fresh, head="replaced")
    assert [boundary.name for boundary in again.boundaries] == names


def test_numbers_of_numpy_are_numbers(backbone):
    numbers = {"hidden_units": np.int64(11), "scale": np.float32(2), "seed": np.uint8(3), "image_size": np.int32(SIZE)}
    classifier = classify(backbone, freeze_depth=np.int64(2), **numbers)
    classifier.compile(recipe=Recipe(learning_rate=np.float32(0.5)))
    json.dumps(classifier.get_config())
    json.dumps(classifier.optimizer.get_config())
    assert classifier.boundary.depth == 2


def test_hidden_layer(backbone, pixels):
    classifier = classify(backbone, hidden_units=11)
    assert [v.shape for v in classifier.new_variables] == [(1000,), (1000, 11), (11,), (11, 5), (5,)]
    assert run(classifier, pixels).shape == (6, 5)


@pytest.mark.parametrize(
    ("head", "freeze_depth"),
    [
        ("kept", "none"),
        ("kept", "conv_pw_5_relu"),
        ("kept", "all"),
        ("kept_batchnorm", "conv_pw_13_relu"),
        ("kept_beside", "conv_pw_13_relu"),
        ("kept_softened", "conv_pw_13_relu"),
        ("kept_softmax_beside", "conv_pw_13_relu"),
        ("replaced", "all"),
    ],
)
def test_training_moves_what_is_not_frozen_and_no_bit_of_the_rest(pixels, head, freeze_depth):
    classifier = classify(make_backbone(), head=head, freeze_depth=freeze_depth)
    frozen, trained = values(classifier.prefix), values(classifier.suffix)
    train(classifier, pixels)
    for path, value in values(classifier.prefix).items():
        np.testing.assert_array_equal(value, frozen[path], err_msg=path)
    for path, value in values(classifier.suffix).items():
        assert (value != trained[path]).any(), path
    assert any("moving_mean" in path for path in frozen) == (freeze_depth != "none")
    assert sum(v.size for v in frozen.values()) == classifier.boundary.parameters_before
    if freeze_depth == "none":
        assert any("moving_mean" in path for path in trained)


def test_the_frozen_part_is_a_pure_function_even_in_training(pixels):
    backbone = lively(
        build_backbone("efficientnet_lite0", weights="random", image_size=SIZE)
    )  # drops out in every block
    classifier = classify(backbone, freeze_depth="all")
    np.testing.assert_array_equal(classifier(pixels, training=True), classifier(pixels, training=False))
    classifier.freeze("none")
    assert (classifier(pixels, training=True) != classifier(pixels, training=True)).numpy().any()


def test_freezing_elsewhere_keeps_the_layers_and_what_they_compute(backbone, pixels):
    classifier = classify(backbone, freeze_depth="all")
    expected = run(classifier, pixels)
    for depth in (0, "conv_pw_11_relu", 28):
        classifier.freeze(depth)
        np.testing.assert_array_equal(run(classifier, pixels), expected)
    assert len(classifier.suffix.trainable_variables) == 3
    classifier.freeze(0)
    assert len(classifier.suffix.trainable_variables) > 80


def test_prefix_and_suffix_have_the_very_same_layers(backbone):
    classifier = classify(backbone, freeze_depth="conv_pw_6_relu")
    parts = {id(v) for part in (classifier.prefix, classifier.suffix) for v in part.variables}
    assert parts == {id(v) for v in classifier.variables}


def test_saved_graph_computes_the_same(backbone, pixels, tmp_path):
    classifier = classify(backbone, freeze_depth="conv_pw_6_relu")
    classifier.as_functional().save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(run(loaded, pixels), run(classifier, pixels))


@pytest.mark.usefixtures("float32_policy")
def test_logits_are_float32_under_mixed_precision(pixels):
    keras.config.set_dtype_policy("mixed_bfloat16")
    backbone = lively(build_backbone("mobilenet_0.25", weights="random", image_size=SIZE))
    classifier = classify(backbone)
    assert classifier.output.dtype == "float32"
    assert classifier.suffix.get_layer("head_normalization").gamma.dtype == "float32"
    assert np.isfinite(run(classifier, pixels)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": ["a"]}, "class_names.* two or more strings"),
        ({"class_names": "ab"}, "class_names.* several, each a text"),
        ({"class_names": None}, "class_names.* several, each a text"),
        ({"class_names": [1, 2]}, "class_names.* two or more strings"),
        ({"class_names": {"a": 0, "b": 1}}, "class_names.* two or more strings, in an order"),
        ({"class_names": {"a", "b"}}, "class_names.* two or more strings, in an order"),
        ({"class_names": ["a", " "]}, "class_names.* two or more strings"),
        ({"class_names": ["a", "b\nc"]}, r"of one line each\. Received: 'b\\nc' in `class_names`"),
        ({"class_names": ["\u00e9", "e\u0301"]}, "class_names.* once"),
        ({"class_names": ["a", "b", "a"]}, "class_names.* once.*'a' twice"),
        ({"head": "keep"}, "kept, kept_raw"),
        ({"scale": 0.0}, "scale.* to be a positive number"),
        ({"scale": float("inf")}, "scale.* to be a positive number"),
        ({"scale": True}, "scale.* to be a number"),
        ({"hidden_units": -1}, "hidden_units.* to be at least 0. Received: -1"),
        ({"hidden_units": True}, "hidden_units.* to be a whole number"),
        ({"seed": -1}, "seed.* to be at least 0. Received: -1"),
        ({"seed": 1.5}, "seed.* to be a whole number"),
        ({"seed": True}, "seed.* to be a whole number"),
        ({"image_size": 32.5}, "image_size.* to be a whole number"),
        ({"image_size": (32, 32)}, "image_size.* to be a whole number"),
        ({"weights": None}, "weights.* to be a text or a path"),
        ({"freeze_depth": "conv_pw_99"}, "conv_pw_9_relu"),
    ],
)
def test_bad_arguments_get_one_line(backbone, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        classify(backbone, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("outputs", [lambda x: [x, x], lambda x: {"a": x, "b": x}])
def test_a_model_of_several_outputs_gets_one_line(outputs):
    pixels = keras.Input((SIZE, SIZE, 3))
    logits = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(pixels))
    with pytest.raises(UserError, match=r"^Expected [^\n]* to be a functional classifier[^\n]*$"):
        classify(keras.Model(pixels, outputs(logits)))


def test_no_boundary_is_where_a_shape_is_not_known():
    pixels = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3, name="stem")(pixels)
    x = keras.layers.EinsumDense("abcd,de->abce", (None, SIZE - 2, 4), name="unknown")(x)
    model = keras.Model(pixels, keras.layers.Dense(5, name="classes")(keras.layers.GlobalAveragePooling2D()(x)))
    classifier = classify(model, freeze_depth="all")
    assert [boundary.name for boundary in classifier.boundaries[1:]] == ["stem", "unknown", "classes"]
    assert not any(None in boundary.tensor.shape[1:] for boundary in classifier.boundaries)
    assert classifier.boundary.parameters_before == classifier.prefix.count_params()


@pytest.mark.parametrize("shared", ["rectifier", "convolution"])
def test_a_layer_that_is_used_twice_is_frozen_as_one(shared):
    pixels = x = keras.Input((SIZE, SIZE, 3))
    convolution = keras.layers.Conv2D(3, 3, padding="same", name="convolution")
    rectifier = keras.layers.ReLU(name="rectifier")
    for number in range(2):
        x = convolution(x) if shared == "convolution" else keras.layers.Conv2D(3, 3, name=f"convolution_{number}")(x)
        x = rectifier(x) if shared == "rectifier" else keras.layers.ReLU(name=f"rectifier_{number}")(x)
    model = keras.Model(pixels, keras.layers.Dense(5, name="classes")(keras.layers.GlobalAveragePooling2D()(x)))
    photos = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32")
    whole = classify(model, seed=1)
    expected = ["convolution_0", "rectifier", "classes"] if shared == "rectifier" else ["rectifier_1", "classes"]
    assert [boundary.name for boundary in whole.boundaries[1:]] == expected
    for boundary in whole.boundaries:
        cut = classify(model, seed=1, freeze_depth=boundary.depth)
        parts = cut.prefix.count_params(), cut.suffix.count_params()
        assert sum(parts) == whole.count_params()
        assert cut.boundary.parameters_before == parts[0]
        np.testing.assert_allclose(cut(photos), whole(photos), rtol=1e-4, atol=1e-3)
