"""LiteRT and ONNX files against the network in Keras.

Tests of ONNX are slow ones, since they need `pip install "ktl[export]"`; those of MobileNet, slow and long ones, need
the folder KTL_ASSETS.
Measured there, on 68 test photos: float32 within 5e-6 of Keras in either format, float16 within 0.015, int8 with the
same top-1 on 96 to 98 %.
"""

import contextlib
import os
import sys
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from support import start

from ktl.data.images import decode
from ktl.data.views import evaluation_view
from ktl.errors import UserError
from ktl.exporting.litert import QUANTIZATIONS, write_litert
from ktl.exporting.onnx import write_onnx
from ktl.exporting.tracing import in_float32
from ktl.inference.formats import open_litert, open_onnx
from ktl.models.classifier import TransferClassifier

SIZE = 42
FORMATS = [*QUANTIZATIONS, "onnx"]
ONNX = pytest.param("onnx", marks=pytest.mark.slow)
TOLERANCE = {"none": 1e-4, "float16": 2e-2, "onnx": 1e-4}
TOP1_AGREEMENT = 0.9


def random_views(count: int, *, size: int = SIZE, low: int = 0, high: int = 256) -> np.ndarray:
    """Noise around a colour of its own a view, so that views differ after the network has pooled them."""
    generator = np.random.default_rng(0)
    colour = generator.uniform(0, 255, (count, 1, 1, 3))
    return (colour + generator.normal(0, 40, (count, size, size, 3))).clip(low, high - 1).astype("uint8")


def classifier(backbone: str, *, policy: str = "float32") -> keras.Model:
    """Pixels to probabilities, with a kept head."""
    keras.config.set_dtype_policy(policy)
    graph = TransferClassifier(backbone, class_names=[*"abcde"]).as_functional()
    keras.config.set_dtype_policy("float32")
    return with_softmax(graph)


def with_softmax(graph: keras.Model) -> keras.Model:
    return keras.Model(graph.input, keras.layers.Softmax(dtype="float32")(graph.output))


def write(model, folder: Path, format: str, **arguments):
    """A file of that format, as a function."""
    if format == "onnx":
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")
        write_onnx(model, folder / "model.onnx")
        return open_onnx(folder / "model.onnx").classify
    path = folder / f"{format}.tflite"
    write_litert(model, path, quantization=format, **arguments)
    return open_litert(path).classify


@pytest.fixture(scope="module")
def network(tiny_backbone):
    """Trained to tell how red a view is: rounding is nothing beside what it sees, as in any trained network."""
    keras.utils.set_random_seed(0)
    model = classifier(str(tiny_backbone))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5
    views = random_views(64)
    redness = views[..., 0].mean((1, 2)).argsort().argsort()
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(), jit_compile=False)
    steps = 25
    model.fit(np.tile(views, (steps, 1, 1, 1)), np.tile(redness * 5 // 64, steps), batch_size=64, verbose=0)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("converted")


@pytest.fixture(scope="module")
def convert(network, folder):
    """format -> the small network in that format as a function; converted once."""
    done = {}

    def get(format: str):
        if format not in done:
            # A generator: the views are there once.
            done[format] = write(network, folder, format, calibration=(views for views in [random_views(64)]))
        return done[format]

    return get


@pytest.mark.parametrize("format", [*QUANTIZATIONS, ONNX])
def test_a_file_gives_the_networks_probabilities_for_any_number_of_views(network, convert, format):
    views = random_views(24)
    expected = network.predict(views, verbose=0)
    assert expected.std(axis=0).min() > 0.01, "the network must tell these views apart"
    classify = convert(format)
    parts = [views[:1], views[1:8], views[8:10], views[10:]]  # more, then fewer, then more again
    received = np.concatenate([classify(part) for part in parts])
    assert received.dtype == np.float32
    np.testing.assert_allclose(received.sum(axis=1), 1, atol=1e-2 if format == "int8" else 1e-4)
    if format in TOLERANCE:
        assert np.abs(received - expected).max() < TOLERANCE[format]
    else:
        assert np.mean(received.argmax(1) == expected.argmax(1)) >= TOP1_AGREEMENT


def interpreter_of(path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's says that it is deprecated
        interpreter = tf.lite.Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    return interpreter


@pytest.mark.parametrize("format", QUANTIZATIONS)
def test_a_litert_file_names_its_tensors_and_takes_pixels(convert, folder, format):
    convert(format)
    interpreter = interpreter_of(folder / f"{format}.tflite")
    runner = interpreter.get_signature_runner()
    pixels, probabilities = runner.get_input_details()["pixels"], runner.get_output_details()["probabilities"]
    assert (pixels["dtype"], [*pixels["shape_signature"]]) == (np.uint8, [-1, SIZE, SIZE, 3])
    assert (probabilities["dtype"], [*probabilities["shape_signature"]]) == (np.float32, [-1, 5])


@pytest.mark.parametrize(("format", "dtype"), [("none", np.float32), ("float16", np.float16), ("int8", np.int8)])
def test_a_litert_file_holds_its_weights_in_that_dtype(network, convert, folder, format, dtype):
    convert(format)
    interpreter = interpreter_of(folder / f"{format}.tflite")
    kernels = {layer.kernel.shape for layer in network.layers if isinstance(layer, keras.layers.Conv2D)}
    shapes = {(shape[3], *shape[:3]) for shape in kernels}  # LiteRT has output channels first
    found = [tensor for tensor in interpreter.get_tensor_details() if tuple(tensor["shape"]) in shapes]
    assert dtype in {tensor["dtype"] for tensor in found}
    assert format != "int8" or np.float32 not in {tensor["dtype"] for tensor in found}


@pytest.mark.slow
def test_onnx_file_names_its_tensors_and_takes_pixels(convert, folder):
    convert("onnx")
    import onnx

    graph = onnx.load(folder / "model.onnx").graph
    (pixels,), (probabilities,) = graph.input, graph.output
    assert (pixels.name, probabilities.name) == ("pixels", "probabilities")
    assert pixels.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in pixels.type.tensor_type.shape.dim] == [0, SIZE, SIZE, 3]  # 0: any


def test_pixels_of_an_int8_file_are_the_pixels_even_if_calibration_has_no_black_and_white(network, tmp_path):
    dull = random_views(4, low=60, high=180)
    kept = dull.copy()
    write_litert(network, tmp_path / "dull.tflite", quantization="int8", calibration=[dull])
    (pixels,) = interpreter_of(tmp_path / "dull.tflite").get_input_details()
    assert pixels["quantization"] == (1.0, 0)
    np.testing.assert_array_equal(dull, kept)


@pytest.mark.parametrize("calibration", [None, [], [np.empty([0, SIZE, SIZE, 3], np.uint8)]])
def test_int8_without_calibration_is_an_error(network, tmp_path, calibration):
    with pytest.raises(UserError, match=r"Expected training photos that calibrate int8\. Received: none"):
        write_litert(network, tmp_path / "a.tflite", quantization="int8", calibration=calibration)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_quantization_is_an_error_that_lists_what_exists(network, tmp_path):
    with pytest.raises(UserError, match=r"one of: none, float16, int8\. Received: int4"):
        write_litert(network, tmp_path / "a.tflite", quantization="int4")


@pytest.mark.parametrize("format", ["none", ONNX])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_network_of_mixed_precision_is_converted_in_float32(tiny_backbone, network, tmp_path, policy, format):
    mixed = classifier(str(tiny_backbone), policy=policy)
    mixed.set_weights(network.get_weights())
    policies = [layer.dtype_policy.name for layer in mixed.layers]
    assert policy in policies
    views = random_views(6)
    received = write(mixed, tmp_path, format)(views)
    expected = network.predict(views, verbose=0)  # of the same weights, in float32
    assert np.abs(received - expected).max() < TOLERANCE[format]
    assert [layer.dtype_policy.name for layer in mixed.layers] == policies


def test_policies_come_back_after_an_error(tiny_backbone):
    mixed = classifier(str(tiny_backbone), policy="mixed_float16")
    with contextlib.suppress(KeyError), in_float32(mixed):
        assert {layer.compute_dtype for layer in mixed.layers} == {"float32"}
        raise KeyError
    assert "float16" in {layer.compute_dtype for layer in mixed.layers}


@pytest.mark.parametrize("format", ["none", ONNX])
def test_constants_of_a_normalization_layer_are_no_inputs(tmp_path, format):
    pixels = keras.Input((4, 4, 3))
    x = keras.layers.Normalization(mean=[100.0, 110, 120], variance=[9e3, 8e3, 7e3])(pixels)  # as EfficientNet has it
    model = with_softmax(keras.Model(pixels, keras.layers.Dense(5)(keras.layers.Flatten()(x))))
    views = random_views(3, size=4)
    np.testing.assert_allclose(write(model, tmp_path, format)(views), model.predict(views, verbose=0), atol=1e-5)


@pytest.mark.parametrize(
    ("format", "runtime", "operation"),
    [
        ("none", "LiteRT", "Tan"),
        ("none", "LiteRT", "Erfinv"),
        pytest.param("onnx", "ONNX", "Erfinv", marks=pytest.mark.slow),
    ],
)
def test_an_operation_that_a_format_lacks_is_an_error_that_names_it(tmp_path, format, runtime, operation):
    pixels = keras.Input((4, 4, 3))
    x = keras.layers.Dense(5)(keras.layers.Flatten()(pixels))
    model = with_softmax(keras.Model(pixels, getattr(keras.ops, operation.lower())(keras.ops.tanh(x))))
    path = tmp_path / ("model.onnx" if format == "onnx" else f"{format}.tflite")
    path.write_text("what was there")
    with pytest.raises(UserError, match=rf"Expected operations that {runtime} has\. Received: .*{operation}") as caught:
        write(model, tmp_path, format)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize("package", ["onnx", "tf2onnx"])
def test_a_missing_package_is_an_error_that_says_how_to_get_it(network, tmp_path, monkeypatch, package):
    for name in {"onnx", "tf2onnx"} - {package}:
        pytest.importorskip(name)
    monkeypatch.setitem(sys.modules, package, None)  # Python's own way to make an import fail
    with pytest.raises(UserError, match=rf'Expected pip install "ktl\[export\]" .* Received: no package {package}$'):
        write_onnx(network, tmp_path / "a.onnx")


def test_a_missing_onnx_runtime_is_an_error_that_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r'Expected pip install "ktl\[export\]" .* Received: no package onnxruntime$'):
        open_onnx(tmp_path / "a.onnx")


def test_tensorflow_opens_a_litert_file_where_its_own_package_is_missing(network, convert, folder, monkeypatch):
    convert("none")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    views = random_views(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # TensorFlow's says that it is deprecated
        opened = open_litert(folder / "none.tflite")
    assert opened.image_size == views.shape[1]
    np.testing.assert_allclose(opened.classify(views), network.predict(views, verbose=0), atol=TOLERANCE["none"])


def _convert_and_run(backbone: str, folder: Path, streams) -> None:
    for descriptor, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), descriptor)
    model = classifier(backbone)
    for format in FORMATS:
        write(model, folder, format, calibration=[random_views(4)])(random_views(2))
    print("still heard", file=sys.stderr, flush=True)


@pytest.mark.slow
def test_nothing_is_printed(tiny_backbone, tmp_path):
    pytest.importorskip("tf2onnx")
    # In a process of its own: native code says some things once a process.
    streams = [tmp_path / "stdout", tmp_path / "stderr"]
    process = start(_convert_and_run, str(tiny_backbone), tmp_path, streams)
    process.join(120)
    assert process.exitcode == 0
    assert [stream.read_text() for stream in streams] == ["", "still heard\n"]


MOBILENET_SIZE = 224


def flowers(assets: Path, split: str, *, each: int) -> np.ndarray:
    photos = [
        photo
        for folder in sorted((assets / "data/flowers17" / split).iterdir())
        for photo in sorted(folder.iterdir())[:each]
    ]
    return np.stack([evaluation_view(decode(photo.read_bytes()), size=MOBILENET_SIZE) for photo in photos])


@pytest.fixture(scope="module")
def mobilenet(assets):
    """Real weights up to the kept logits; the new layer tells photos apart by their features."""
    weights = assets / "weights/mobilenet_0_75_224.weights.h5"
    names = [f"flower {number}" for number in range(17)]
    network = TransferClassifier("mobilenet_0.75", class_names=names, weights=str(weights)).as_functional()
    train = flowers(assets, "train", each=6)
    labels = np.repeat(np.arange(17), 6)
    logits = network.get_layer("head_normalization").input
    cut = keras.Model(network.input, logits)
    head_input = keras.Input(logits.shape[1:])
    head = network.get_layer("head_classifier")(network.get_layer("head_normalization")(head_input))
    head = keras.Model(head_input, head)
    keras.utils.set_random_seed(0)
    head.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    head.fit(cut.predict(train, verbose=0), labels, epochs=40, verbose=0)
    return with_softmax(network)


@pytest.mark.parametrize(
    "format",
    [
        pytest.param(format, marks=pytest.mark.slow if format in ("none", "onnx") else pytest.mark.long)
        for format in FORMATS
    ],
)
def test_mobilenet_of_real_photos(assets, mobilenet, tmp_path, format):
    photos = flowers(assets, "test", each=4)
    expected = mobilenet.predict(photos, verbose=0)
    started = time.perf_counter()
    classify = write(mobilenet, tmp_path, format, calibration=[flowers(assets, "train", each=2)])
    converted = time.perf_counter() - started
    received = np.concatenate([classify(photos[:1]), classify(photos[1:])])
    started = time.perf_counter()
    for photo in photos[:16]:
        classify(photo[None])
    milliseconds = 1000 * (time.perf_counter() - started) / 16
    (path,) = tmp_path.iterdir()
    agreement = np.mean(received.argmax(1) == expected.argmax(1))
    accuracy = np.mean(received.argmax(1) == np.repeat(np.arange(17), 4))
    print(
        f"{format}: {path.stat().st_size / 2**20:.2f} MiB, converted in {converted:.1f} s, {milliseconds:.1f} ms a "
        f"photo, top-1 {accuracy:.3f}, as Keras on {agreement:.3f}, differs by {np.abs(received - expected).max():.2g}"
    )
    if format in TOLERANCE:
        assert np.abs(received - expected).max() < TOLERANCE[format]
        noise = random_views(3, size=MOBILENET_SIZE)
        assert np.abs(classify(noise) - mobilenet.predict(noise, verbose=0)).max() < TOLERANCE[format]
    assert agreement >= TOP1_AGREEMENT
