"""load_dataset: the embedded digits, and what a name's spelling means."""

from pathlib import Path

import numpy as np
import pytest
from support import one_line, write_classes

from ktl.data.images import decode
from ktl.data.loading import dataset_folder, load_dataset, meaning_of
from ktl.errors import UserError


def test_digits_are_scikit_learns_in_256_greys():
    from sklearn.datasets import load_digits

    dataset, reference = load_dataset("digits"), load_digits()
    assert dataset.class_names == tuple("0123456789")
    assert dataset.flip is False
    assert sum(map(len, dataset.splits)) == 1797
    split = dataset.test
    for index in (0, 100, len(split) - 1):
        number = int(split.photos[index].split("/")[1].removesuffix(".png"))
        assert split.labels[index] == reference.target[number]
        grey = decode(split.read(index))
        np.testing.assert_allclose(grey[..., 0], reference.images[number] * 255 / 16, atol=0.5)


@pytest.mark.parametrize(
    ("name", "received"),
    [
        ("stanford_dog", "Did you mean: stanford_dogs"),
        ("no such thing", "which is none of them"),
        ("huggingface:mnist", "none of them"),
        ("./leaves", "does not exist"),
        ("leaves.csv", "leaves.csv: it does not exist"),
        ("mnist:9.9.9", "version 9.9.9"),
        ("imdb_reviews", "with label, text|with text, label|imdb_reviews, with"),
    ],
)
def test_an_unknown_name_gets_one_line(tmp_path, monkeypatch, name, received):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=received) as error:
        load_dataset(name, data_dir=str(tmp_path))
    one_line(error)


@pytest.mark.parametrize(
    ("name", "known"), [("cifar10", "TensorFlow Datasets"), ("mnist", "TensorFlow"), ("digits", "scikit-learn's")]
)
def test_a_folder_of_photos_with_a_known_name_is_meant_and_the_other_meaning_told(tmp_path, monkeypatch, name, known):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / name, {"ash": 5, "birch": 5})
    for spelling in (name, f"./{name}", f"{name}/", str(tmp_path / name)):
        dataset = load_dataset(spelling)
        assert dataset.class_names == ("ash", "birch")
        assert meaning_of(spelling).kind == "folder"
        assert len(dataset.found.remarks) == (spelling == name)
    (remark,) = load_dataset(name).found.remarks
    assert f"{name} is taken for the folder that is here, not for" in remark
    assert known in remark
    assert dataset_folder(name) == Path(name)


def test_a_folder_without_photos_or_a_file_is_not_meant_by_a_known_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    dataset = load_dataset("digits")
    assert dataset.class_names == tuple("0123456789")
    (remark,) = dataset.found.remarks
    assert remark == "digits is taken for scikit-learn's digits, not for the folder of that name that is here: ./digits"
    (tmp_path / "mnist").touch()
    assert meaning_of("mnist").kind == "tfds"
    assert meaning_of("mnist").remark.endswith("not for the file of that name that is here")
    assert dataset_folder("digits") is dataset_folder("mnist") is dataset_folder("nothing") is None


def test_where_prepared_data_sets_are_a_known_name_means_one_of_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "cifar10", {"ash": 5, "birch": 5})
    assert meaning_of("cifar10", data_dir="prepared").kind == "tfds"
    write_classes(tmp_path / "leaves", {"ash": 5, "birch": 5})
    assert meaning_of("leaves", data_dir="prepared").kind == "folder"
    assert meaning_of("leaves").remark is None


def test_a_folder_may_be_called_as_a_table_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "leaves.csv", {"ash": 5, "birch": 5})
    assert load_dataset("leaves.csv").class_names == ("ash", "birch")


@pytest.mark.parametrize("name", ["leaves.txt", "./leaves.txt"])
def test_a_file_that_is_no_table_is_named_as_one(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leaves.txt").touch()
    with pytest.raises(UserError, match=r"leaves\.txt, which is another file") as error:
        load_dataset(name)
    one_line(error)
