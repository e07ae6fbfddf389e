"""Exports and runs as functions: a folder's file is opened in the runtime that it was written for.

Every file takes a batch of any size: what the network sees of photos, uint8 [batch, image_size, image_size, 3]; and
gives class probabilities, float32 [batch, classes].
"""

import contextlib
import dataclasses
import importlib
import logging
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import ktl.models.layers  # noqa: F401  Keras finds the layers of a file by their registered names
from ktl.arguments import check_in_utf8
from ktl.backends.engines import make_engine
from ktl.errors import UserError
from ktl.files import check_file, damaged
from ktl.models.new_weights import quick_to_build
from ktl.process import cores
from ktl.stored import opening
from ktl.streams import without_standard_error

LABELS = "labels.txt"
SAVED_MODEL = "saved_model.pb"
KERAS_MODEL = "model.keras"
LITERT_MODEL = "model.tflite"
ONNX_MODEL = "model.onnx"

VIEWS = "views"
"""The SavedModel's signature that takes what the network sees of photos."""

FEATURES = "features"
"""The SavedModel's signature that gives what the head reads."""

Classify = Callable[[np.ndarray], np.ndarray]
"""Views, uint8 [batch, image_size, image_size, 3], to probabilities, float32 [batch, classes]."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """A file as a function.

    Attributes:
        image_size: side of the views, pixels.
        classes: how many there are.
        classify: not for several threads at a time.
        features: what the head reads of a photo, from its encoded bytes: float32 [channels]; None where a file does
            not give it. Raises ValueError for a photo that TensorFlow does not decode.
    """

    image_size: int
    classes: int
    classify: Classify
    features: Callable[[bytes], np.ndarray] | None = None


def open_saved_model(path: Path) -> Opened:
    """Opens the folder of a SavedModel that ktl has written, by its saved_model.pb.

    Raises:
        UserError: it lacks the signature that takes views.
    """
    check_in_utf8(path, argument="model")
    tf = tensorflow_for("a SavedModel")
    for file in (path, *sorted(path.parent.glob("variables/*"))):
        check_file(file)
    with opening(path):
        loaded: Any = tf.saved_model.load(str(path.parent))
    if VIEWS not in loaded.signatures:
        raise UserError(f"Expected a SavedModel with the signature {VIEWS}. Received: {path.parent}")
    signature = loaded.signatures[VIEWS]

    def classify(views: np.ndarray) -> np.ndarray:
        assert loaded  # its variables live as long as it does
        return signature(views=tf.constant(views))["probabilities"].numpy()

    image_size = signature.structured_input_signature[1][VIEWS].shape[1]
    classes = signature.structured_outputs["probabilities"].shape[-1]
    features = _features_of(loaded, tf) if FEATURES in loaded.signatures else None
    return Opened(image_size, classes, classify, features)


def _features_of(loaded: Any, tf: Any) -> Callable[[bytes], np.ndarray]:
    def features(photo: bytes) -> np.ndarray:
        try:
            return loaded.signatures[FEATURES](photos=tf.constant([photo]))[FEATURES].numpy()[0]
        except tf.errors.InvalidArgumentError as error:
            raise ValueError("TensorFlow does not decode it") from error

    return features


def tensorflow_for(purpose: str) -> Any:
    """TensorFlow. Raises UserError, which says what for, where it is not installed."""
    try:
        return importlib.import_module("tensorflow")
    except ModuleNotFoundError as error:
        raise UserError(f"Expected TensorFlow, which {purpose} needs. Received: no such package. Install it") from error


def open_keras(path: Path) -> Opened:
    """Opens a `.keras` file of pixels in 0..255 to logits or probabilities.

    Raises:
        UserError: it is damaged, or has code of its own in it.
    """
    saved: Any = probabilities_of(load_network(path))
    compute = make_engine().compile(saved.input, [saved.output])
    return Opened(saved.input_shape[1], saved.output_shape[-1], lambda views: compute(views)[0])


def load_network(path: Path) -> Any:
    """A `.keras` file's network, of square pixels to a number for each class.

    Raises:
        UserError: it is damaged, has code of its own in it, or is another network.
    """
    with opening(path), quick_to_build():
        loaded: Any = keras.models.load_model(path, compile=False)
        shapes = loaded.input_shape, loaded.output_shape
        if len(shapes[0]) != 4 or shapes[0][1] != shapes[0][2] or shapes[0][3] != 3 or len(shapes[1]) != 2:
            raise ValueError(f"a network of {shapes[0]} to {shapes[1]}")
    return loaded


def check_classes(labels: Path, class_names: Sequence[str], classes: int) -> None:
    """Raises UserError where a file does not name each of a model's classes."""
    if len(set(class_names)) != len(class_names):
        raise damaged(labels, "a class twice")
    if len(class_names) != classes:
        raise damaged(labels, f"{len(class_names)} classes, of which the model beside it has {classes}")


def open_litert(path: Path) -> Opened:
    """Opens a LiteRT (.tflite) file that ktl has written."""
    check_in_utf8(path, argument="model")
    with opening(path), quiet_converters():
        interpreter = _litert_interpreter()(model_path=str(path), num_threads=cores())
        interpreter.allocate_tensors()
    (pixels,), (probabilities,) = interpreter.get_input_details(), interpreter.get_output_details()

    def classify(views: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(pixels["index"], views.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(pixels["index"], views)
        interpreter.invoke()
        return interpreter.get_tensor(probabilities["index"])

    return Opened(int(pixels["shape"][1]), int(probabilities["shape"][-1]), classify)


def open_onnx(path: Path) -> Opened:
    """Opens an ONNX file that ktl has written, on the CPU.

    Raises:
        UserError: a package is missing.
    """
    check_in_utf8(path, argument="model")
    runtime = onnx_package("onnxruntime")
    with opening(path):
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (pixels,), (probabilities,) = session.get_inputs(), session.get_outputs()
    size, classes = pixels.shape[1], probabilities.shape[-1]
    return Opened(size, classes, lambda views: session.run(["probabilities"], {"pixels": views})[0])


@dataclasses.dataclass(frozen=True)
class Reader:
    """How a file is opened.

    Attributes:
        open: gives the file as a function.
        labels: where its class names are, a path relative to its folder.
    """

    open: Callable[[Path], Opened]
    labels: str


READERS = {
    SAVED_MODEL: Reader(open_saved_model, f"assets/{LABELS}"),
    KERAS_MODEL: Reader(open_keras, LABELS),
    LITERT_MODEL: Reader(open_litert, LABELS),
    ONNX_MODEL: Reader(open_onnx, LABELS),
}
"""Name of the file by which a folder is known -> its reader."""


def probabilities_of(model: keras.Model) -> keras.Model:
    """A model that ends in probabilities, of the same layers; one that ends in logits gets a softmax."""
    if isinstance(model.layers[-1], keras.layers.Softmax):
        return model
    return keras.Model(model.input, keras.layers.Softmax(dtype="float32", name="probabilities")(model.output))


def onnx_package(name: str) -> types.ModuleType:
    """Imports a package that ONNX files need.

    Raises:
        UserError: it is missing.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f'Expected pip install "ktl[export]" for ONNX. Received: no package {error.name}') from error


@contextlib.contextmanager
def quiet_converters() -> Iterator[None]:
    """Silences converters and interpreters, also Python's warnings. What goes wrong is raised, with its text."""
    logger = logging.getLogger("absl")
    level = logger.level  # which converters set where nobody has
    try:
        with without_standard_error(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _litert_interpreter() -> type:
    try:
        from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        return tensorflow_for("a LiteRT file without ai-edge-litert").lite.Interpreter
    return Interpreter
