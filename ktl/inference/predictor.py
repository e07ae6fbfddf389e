"""A trained network as it is used: views of photos in, class probabilities out, whatever it comes from."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from ktl.arguments import checked_arguments
from ktl.errors import UserError
from ktl.files import CHECKSUMS, damaged, digest, open_regular, read_json, read_lines, reading
from ktl.inference.formats import KERAS_MODEL, READERS, Classify, check_classes
from ktl.inference.models_at import model_folder
from ktl.models.classifier import TransferClassifier
from ktl.names import is_url
from ktl.process import random_state_kept
from ktl.remote import name_of

TOP_K = 5
"""Classes that answers name with their probabilities, the best first."""


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained network, ready to classify.

    Attributes:
        name: of its folder or model.
        class_names: in the order of the probabilities.
        image_size: side of the views, pixels.
        classify: uint8 [photos, image_size, image_size, 3], from `ktl.data.views.evaluation_view`, to class
            probabilities, float32 [photos, classes].
        features: see `ktl.inference.formats.Opened`.
    """

    name: str
    class_names: tuple[str, ...]
    image_size: int
    classify: Classify
    features: Callable[[bytes], np.ndarray] | None = None


@checked_arguments
def load_predictor(path: str | os.PathLike) -> Predictor:
    """Opens the folder of a run, of a search (its best run), or of an export in any format; of one at a URL, a copy in
    the user's cache folder.

    Raises:
        UserError: it is none of these.

    Example:
        >>> predictor = ktl.load("runs/flowers")
        >>> predictor.image_size, predictor.class_names[:2]
        (224, ('bluebell', 'buttercup'))
        >>> ktl.predict(predictor, "rose.jpg")[0].label
        'rose'
    """
    path, given = model_folder(path), path
    folder, name = _find(path)
    reader = READERS[name]
    if not (folder / reader.labels).is_file():
        raise UserError(f"Expected {reader.labels} beside {name}. Received: {folder} without it")
    class_names = read_lines(folder / reader.labels)
    with random_state_kept():
        opened = reader.open(folder / name)
    check_classes(folder / reader.labels, class_names, opened.classes)
    _check_names(folder, folder / reader.labels, class_names)
    called = name_of(given) if is_url(given) else path.resolve().name
    return Predictor(called, class_names, opened.image_size, opened.classify, opened.features)


def digest_of_model(path: str | os.PathLike) -> str:
    """A digest of the files that answers come from. What else a folder has, as a report, plays no part.

    Raises:
        UserError: see `load_predictor`.
    """
    folder, name = _find(model_folder(path))
    files = (folder / name, folder / READERS[name].labels, *sorted((folder / "variables").glob("*")))  # of a SavedModel
    return hashlib.sha256(repr([(file.name, digest(file)) for file in files]).encode()).hexdigest()


def _find(path: Path) -> tuple[Path, str]:
    """The folder with a model's files, and the name of the one by which it is known."""
    folder = path / "best" if (path / "best" / KERAS_MODEL).exists() else path
    for name in READERS:
        if (folder / name).exists():
            return folder, name
    listed = ", ".join(READERS)
    raise UserError(
        f"Expected the folder of a run that has ended, or of an export: one with {listed}. Received: {path}"
    )


NAMES_IN = {
    "export.json": lambda path: tuple(read_json(path)["class_names"]),
    "confusion.csv": lambda path: _first_row(path)[1:],
}
"""File of a run or an export -> how the class names, in their order, are read from it."""


def _first_row(path: Path) -> tuple[str, ...]:
    """Of a table that may be large: it has a cell for each two classes."""
    with io.TextIOWrapper(open_regular(path), encoding="utf-8", newline="") as file:
        return tuple(next(csv.reader(file)))


def _check_names(folder: Path, labels: Path, class_names: tuple[str, ...]) -> None:
    """Raises UserError where a folder without checksums has labels of another model, by what else it says."""
    if (folder / CHECKSUMS).exists():
        return
    for path, names_in in ((folder / name, names_in) for name, names_in in NAMES_IN.items()):
        with contextlib.suppress(FileNotFoundError), reading(path):
            if names_in(path) != class_names:
                raise damaged(labels, f"other class names than {path.name} has, as of another model")


def load_classifier(path: str | os.PathLike) -> Predictor:
    """The earlier name of `load_predictor`."""
    warnings.warn("ktl.load_classifier is now ktl.load", DeprecationWarning, stacklevel=2)
    return load_predictor(path)


def predictor_of(classifier: TransferClassifier | Predictor | str | os.PathLike) -> Predictor:
    """The network that is given: a `TransferClassifier`, a predictor, or a folder as `load_predictor` opens.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(classifier, Predictor):
        return classifier
    if isinstance(classifier, str | os.PathLike):
        return load_predictor(classifier)
    if isinstance(classifier, TransferClassifier):
        return _predictor_in_memory(classifier)
    raise UserError(
        "Expected a TransferClassifier, a Predictor, or the folder of a run or of an export. Received: "
        f"{type(classifier).__name__}"
    )


def _predictor_in_memory(classifier: TransferClassifier) -> Predictor:
    """As the classifier is: its weights are read when it classifies, and no layer of it is changed or added."""

    def classify(views: np.ndarray) -> np.ndarray:
        logits = classifier.predict_on_batch(views)  # Keras keeps the function that it traces for this
        return np.asarray(keras.ops.convert_to_numpy(keras.ops.softmax(logits)))

    return Predictor(classifier.name, classifier.class_names, classifier.image_size, classify)
