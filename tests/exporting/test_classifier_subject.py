"""Exports of a classifier in memory: what they give, and what stays as it was."""

import json
import logging
import os
import random
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from ktl.data.images import decode
from ktl.data.loading import load_dataset
from ktl.data.split import FileSource, MemorySource, Split
from ktl.data.views import view_of
from ktl.errors import UserError
from ktl.exporting.classifier_subject import subject_of_classifier
from ktl.exporting.export import ExportError, export
from ktl.exporting.subject import head_input
from ktl.exporting.verification import compare
from ktl.inference.predictor import load_predictor
from ktl.models.classifier import TransferClassifier

CLASSES = tuple(f"class{k}" for k in range(6))


@pytest.fixture(scope="module")
def classifier(tiny_backbone):
    return TransferClassifier(tiny_backbone, class_names=CLASSES, hidden_units=5, freeze_depth="stem_relu", seed=0)


@pytest.fixture(scope="module")
def dataset(photo_folder):
    return load_dataset(str(photo_folder))


def expected_of(classifier, views: np.ndarray) -> np.ndarray:
    """Probabilities of views by the formula of the softmax."""
    logits = classifier(views.astype("float32"), training=False).numpy()
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def check(classifier, folder: Path, photos: list[bytes]) -> None:
    views = np.stack([view_of(photo, size=42) for photo in photos])
    predictor = load_predictor(folder)
    assert predictor.class_names == CLASSES
    np.testing.assert_allclose(predictor.classify(views), expected_of(classifier, views), atol=1e-5)


def test_weights_that_are_no_numbers_are_told_before_anything_is_written(tiny_backbone, tmp_path):
    classifier = TransferClassifier(tiny_backbone, class_names=CLASSES)
    classifier.get_layer("head_classifier").bias.assign(np.full(6, np.nan, "float32"))
    with pytest.raises(UserError, match=r"^Expected the classifier .* finite numbers.* nan in head_classifier/bias"):
        export(classifier, tmp_path / "model", verbose=0)
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def on_test_split(classifier, dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "model"
    return folder, export(classifier, folder, photos=dataset.test, format="keras", verbose=0)


def test_of_a_split_its_labels_count(classifier, dataset, on_test_split):
    folder, found = on_test_split
    photos = [dataset.test.read(index) for index in range(len(dataset.test))]
    check(classifier, folder, photos)
    top = expected_of(classifier, np.stack([view_of(photo, size=42) for photo in photos])).argmax(axis=1)
    assert found["test"]["photos"] == len(photos)
    assert found["test"]["top1"] == found["test"]["run_top1"] == np.mean(top == dataset.test.labels)
    assert found["test"]["largest_difference"] < 1e-4
    assert found["verified_on"] == "test photos that were given"


def test_the_features_are_what_the_first_new_dense_layer_reads(classifier, dataset):
    subject = subject_of_classifier(classifier, dataset.test)
    layer = next(layer for layer in classifier.new_layers if isinstance(layer, keras.layers.Dense))
    views = np.stack([view_of(dataset.test.read(index), size=42) for index in range(3)])
    expected = keras.Model(classifier.input, layer.input)(views, training=False)
    received = keras.Model(subject.model.input, subject.head_input)(views, training=False)
    np.testing.assert_allclose(received, expected, atol=1e-4)
    assert head_input(classifier, dense_layers=2) is layer.input


def test_the_files_say_what_it_was_verified_on(classifier, on_test_split, dataset):
    folder, found = on_test_split
    card, record = (folder / "MODEL_CARD.md").read_text(), json.loads((folder / "export.json").read_text())
    assert (record["run"], record["verified_on"]) == (None, "test photos that were given")
    for fact in (
        ", ".join(CLASSES),
        f"| verified on | {len(dataset.test)}: test photos that were given |",
        f"Top-1 {found['test']['top1']:.4f}",
        f"{classifier.count_params():,} parameters",
        "stem_relu",
        keras.__version__,
    ):
        assert fact in card


def test_without_photos_it_is_verified_on_noise(classifier, on_test_split, tmp_path):
    subject = subject_of_classifier(classifier, None)
    assert "noise" in subject.verified_on
    evidence = subject.make_evidence(tmp_path)
    pixels = [decode(photo.read_bytes()) for photo in evidence.photos]
    assert min(photo.std() for photo in pixels) > 20
    expected = expected_of(classifier, np.stack([view_of(photo.read_bytes(), size=42) for photo in evidence.photos]))
    np.testing.assert_allclose(evidence.expected, expected, atol=1e-5)
    found = compare(on_test_split[0], evidence)
    assert found["photos"] == 32
    assert found["largest_difference"] < 1e-4


@pytest.mark.parametrize("kind", ["paths", "folder", "images", "arrays", "split in memory"])
def test_what_an_export_can_be_verified_on(classifier, photo_folder, on_test_split, tmp_path, kind):
    """Each gives photos, and for them what the export gives."""
    files = sorted(photo_folder.rglob("*.*"))[:5]
    encoded = {f"{index}": file.read_bytes() for index, file in enumerate(files)}
    given = {
        "paths": lambda: files,
        "folder": lambda: photo_folder / "class0",
        "images": lambda: [Image.open(file) for file in files],
        "arrays": lambda: np.stack([decode(file.read_bytes()) for file in files]),
        "split in memory": lambda: Split("test", tuple(encoded), np.zeros(5, np.int32), MemorySource(encoded)),
    }
    subject = subject_of_classifier(classifier, given[kind]())
    evidence = subject.make_evidence(tmp_path)
    views = np.stack([view_of(file.read_bytes(), size=42) for file in files])
    np.testing.assert_allclose(evidence.expected[:5], expected_of(classifier, views), atol=1e-5)
    found = compare(on_test_split[0], evidence)
    assert found["photos"] == (12 if kind == "folder" else 5)
    assert (evidence.labels is None) == (kind != "split in memory")
    assert found["largest_difference"] < 1e-4
    assert "photos that were given" in subject.verified_on


def test_int8_is_fitted_to_the_photos_that_are_given_and_all_else_stays_as_it_was(classifier, photo_folder, tmp_path):
    def state():
        levels = {name: logging.getLogger(name).level for name in ("", "absl", "tensorflow", "ktl", "uvicorn.error")}
        policies = [layer.dtype_policy.name for layer in classifier.layers]
        numpy_state = np.random.get_state()[1].tolist()
        return levels, keras.config.dtype_policy().name, policies, random.getstate(), numpy_state, dict(os.environ)

    with pytest.raises(UserError, match=r"Expected `photos` with `quantization` int8"):
        export(classifier, tmp_path / "model", format="litert", quantization="int8")
    before, weights = state(), [weight.copy() for weight in classifier.get_weights()]
    try:
        found = export(
            classifier, tmp_path / "model", photos=photo_folder, format="litert", quantization="int8", verbose=0
        )
    except ExportError as error:  # of a network that nobody has trained, rounding may change many labels
        assert "test top-1 is" in str(error)  # noqa: PT017
    else:
        assert found["test"]["photos"] == 72
    assert state() == before
    for weight, now in zip(weights, classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, now)
    # Keras refuses to name the output of a layer that has been made part of another graph.
    assert all(layer.output is not None for layer in classifier.layers)


def test_photos_that_cannot_be_read_are_left_out(classifier, photo_folder, tmp_path):
    good = sorted(photo_folder.rglob("*.*"))[:3]
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    bad = [tmp_path / "bad.jpg", tmp_path / "none.jpg"]
    evidence = subject_of_classifier(classifier, [*bad, *good]).make_evidence(tmp_path)
    assert evidence.photos == good
    photos = tuple(str(photo) for photo in (*bad, *good))
    labelled = Split("test", photos, np.arange(5, dtype=np.int32), FileSource(Path("/")))
    evidence = subject_of_classifier(classifier, labelled).make_evidence(tmp_path)
    assert (evidence.names, evidence.labels.tolist()) == (list(photos[2:]), [2, 3, 4])
    with pytest.raises(UserError, match=r"Expected `photos` that can be read\. Received: 2 that cannot"):
        export(classifier, tmp_path / "other", photos=bad, format="keras", verbose=0)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", ["split", "folder", "paths"])
def test_an_export_does_not_go_into_the_data_set_of_its_photos(classifier, dataset, photo_folder, kind):
    """It would be a class of the next run."""
    files = sorted(photo_folder.rglob("*.*"))
    photos = {"split": dataset.test, "folder": photo_folder, "paths": iter(files)}[kind]
    with pytest.raises(UserError, match="Expected `output` outside of the data set"):
        export(classifier, photo_folder / "model", photos=photos, format="keras")
    assert sorted(photo_folder.rglob("*.*")) == files


def test_an_export_may_be_beside_a_photo_and_beside_a_table_of_photos(classifier, photo_folder, tmp_path):
    photo = shutil.copy(next(photo_folder.rglob("*.jpg")), tmp_path / "photo.jpg")
    assert subject_of_classifier(classifier, [photo]).photo_folders == ()
    listed = Split("test", ("photo.jpg",), np.zeros(1, np.int32), FileSource(tmp_path))
    assert subject_of_classifier(classifier, listed).photo_folders == ()


def test_what_cannot_be_exported_is_one_line(classifier, tiny_backbone, dataset, tmp_path):
    with pytest.raises(UserError, match=r"^Expected `classifier` to be a TransferClassifier or .*: <Functional[^\n]*$"):
        export(keras.models.load_model(tiny_backbone), tmp_path / "model")
    with pytest.raises(UserError, match=r"Expected the folder of a run with `calibrate`"):
        export(classifier, tmp_path / "model", calibrate=True)
    more = Split("test", dataset.test.photos, dataset.test.labels + 1, dataset.test.source)
    with pytest.raises(UserError, match=r"Expected `photos` of the classifier's 6 classes"):
        export(classifier, tmp_path / "model", photos=more)
    assert os.listdir(tmp_path) == []
