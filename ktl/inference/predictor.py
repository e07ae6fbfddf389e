"""A trained network as it is used: views of photos in, class probabilities out, whatever file it comes from."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import ktl.models.layers  # noqa: F401  Keras finds the layers of a file by their registered names
from ktl.errors import UserError
from ktl.files import read_lines
from ktl.inference.formats import Classify, open_litert, open_onnx
from ktl.models.batchnorm_folding import fold_batch_normalization

LABELS = "labels.txt"
SAVED_MODEL = "saved_model.pb"
KERAS_MODEL = "model.keras"
LITERT_MODEL = "model.tflite"
ONNX_MODEL = "model.onnx"

VIEWS = "views"
"""The SavedModel's signature that takes what the network sees of photos."""

TOP_K = 5
"""Classes that answers name with their probabilities, the best first."""


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained network.

    Attributes:
        name: of its folder.
        class_names: in the order of the probabilities.
        image_size: side of the views, pixels.
        classify: uint8 [photos, image_size, image_size, 3], from `ktl.data.images.evaluation_view`, to class
            probabilities, float32 [photos, classes].
    """

    name: str
    class_names: tuple[str, ...]
    image_size: int
    classify: Classify


def load_classifier(path: str | Path) -> Classifier:
    """Opens the folder of a run, of a search (its best run), or of an export in any format.

    Raises:
        UserError: it is none of these.
    """
    path = Path(path)
    folder = path / "best" if (path / "best" / KERAS_MODEL).exists() else path
    for name, (open_model, labels) in FORMATS.items():
        if (folder / name).exists():
            if not (folder / labels).is_file():
                raise UserError(f"Expected {labels} beside {name}. Received: {folder} without it")
            image_size, classify = open_model(folder / name)
            class_names = read_lines(folder / labels)
            return Classifier(path.resolve().name, class_names, image_size, classify)
    listed = ", ".join(FORMATS)
    raise UserError(
        f"Expected the folder of a run that has ended, or of an export: one with {listed}. Received: {path}"
    )


def probabilities_of(model: keras.Model) -> keras.Model:
    """A model that ends in probabilities; one that ends in logits gets a softmax."""
    if isinstance(model.layers[-1], keras.layers.Softmax):
        return model
    return keras.Model(model.input, keras.layers.Softmax(dtype="float32", name="probabilities")(model.output))


def _open_saved_model(path: Path) -> tuple[int, Classify]:
    loaded = tf.saved_model.load(str(path.parent))
    if VIEWS not in loaded.signatures:
        raise UserError(f"Expected a SavedModel with the signature {VIEWS}. Received: {path.parent}")
    signature = loaded.signatures[VIEWS]

    def classify(views: np.ndarray) -> np.ndarray:
        assert loaded  # its variables live as long as it does
        return signature(views=tf.constant(views))["probabilities"].numpy()

    return signature.structured_input_signature[1][VIEWS].shape[1], classify


def _open_keras(path: Path) -> tuple[int, Classify]:
    saved = probabilities_of(keras.models.load_model(path, compile=False))
    model = fold_batch_normalization(saved.input, [saved.output])
    image_size = model.input_shape[1]

    @tf.function(input_signature=[tf.TensorSpec([None, image_size, image_size, 3], tf.uint8)])
    def classify(views):
        return model(views, training=False)

    return image_size, lambda views: classify(views).numpy()


FORMATS = {
    SAVED_MODEL: (_open_saved_model, f"assets/{LABELS}"),
    KERAS_MODEL: (_open_keras, LABELS),
    LITERT_MODEL: (open_litert, LABELS),
    ONNX_MODEL: (open_onnx, LABELS),
}
"""File that tells a format -> what opens it, and where its labels are."""
