"""Folders and models as networks that classify."""

import os
import shutil

import numpy as np
import pytest

import ktl
from ktl.errors import UserError
from ktl.inference.predictor import load_predictor, predictor_of
from ktl.serving.service import model_name

LABELS = [f"flower {number}" for number in range(20)]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, tiny_backbone):
    """The folder of a run, as far as its model is concerned."""
    folder = tmp_path_factory.mktemp("runs") / "flowers"
    folder.mkdir()
    shutil.copy(tiny_backbone, folder / "model.keras")
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    return folder


def test_a_folder_has_its_name_classes_and_image_size(run_folder):
    predictor = load_predictor(run_folder)
    assert (predictor.name, predictor.class_names, predictor.image_size) == ("flowers", tuple(LABELS), 42)
    probabilities = predictor.classify(np.zeros([2, 42, 42, 3], np.uint8))
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (2, 20))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["saved_model.pb", "model.tflite", "model.onnx"])
def test_a_folder_that_a_runtime_cannot_be_told_of_is_not_called_damaged(tmp_path, name):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    (folder / "assets").mkdir(parents=True)
    for path in (name, "labels.txt", "assets/labels.txt"):
        (folder / path).touch()
    with pytest.raises(UserError, match=r"^Expected `model` to be a path in UTF-8[^\n]*Rename the folder$"):
        load_predictor(folder)


def test_a_keras_model_is_opened_whatever_its_folder_is_called(run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / os.fsdecode(b"caf\xe9"))
    assert model_name(load_predictor(folder)) == "caf\\xe9"


def test_of_a_search_the_best_run_is_opened_under_the_searchs_name(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "search" / "best")
    assert load_predictor(tmp_path / "search").name == "search"


def test_a_predictor_is_itself(run_folder):
    predictor = load_predictor(run_folder)
    assert predictor_of(predictor) is predictor


def test_a_folder_without_labels_or_model_is_one_line(run_folder, tmp_path):
    with pytest.raises(UserError, match=r"^Expected the folder of a run that has ended, or of an export[^\n]*$"):
        load_predictor(tmp_path)
    shutil.copy(run_folder / "model.keras", tmp_path)
    with pytest.raises(UserError, match=r"^Expected labels.txt beside model.keras\. Received: [^\n]* without it$"):
        load_predictor(tmp_path)


@pytest.mark.parametrize(
    ("names", "what"), [(LABELS[1:], "19 classes, .* has 20"), ([*LABELS[1:], LABELS[1]], "a class twice")]
)
def test_labels_that_do_not_name_each_class_are_one_line(run_folder, tmp_path, names, what):
    shutil.copy(run_folder / "model.keras", tmp_path)
    (tmp_path / "labels.txt").write_text("\n".join(names))
    with pytest.raises(UserError, match=rf"^Expected [^\n]*labels\.txt [^\n]*: {what}[^\n]*$"):
        load_predictor(tmp_path)


def test_the_earlier_name_still_works_and_says_the_new_one(run_folder):
    with pytest.warns(DeprecationWarning, match=r"now ktl\.load$"):
        assert ktl.load_classifier(run_folder).class_names == tuple(LABELS)
