"""Dataset.from_directory: layouts, what is passed over, and the line that each mistake gets."""

import os
import unicodedata

import pytest
from support import count_labels, one_line, plain_photo, write_classes

from ktl.data.dataset import Dataset
from ktl.data.input_pipeline import PhotoCache, check_photos
from ktl.errors import UserError


@pytest.mark.parametrize("name", ["leaves", "notes.txt"])
def test_what_is_no_folder_is_named(tmp_path, name):
    (tmp_path / "notes.txt").write_text("tall")
    with pytest.raises(UserError, match=rf"Expected path to be a folder .* Received: .*{name}, which") as error:
        Dataset.from_directory(tmp_path / name)
    one_line(error)


def test_a_folder_is_found_below_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_classes(tmp_path / "leaves", {"ash": 5, "birch": 5})
    assert Dataset.from_directory("~/leaves").name == "leaves"


@pytest.mark.parametrize("validation", ["validation", "val", "valid", "Val"])
def test_given_splits_are_kept(tmp_path, validation):
    for part, count in (("train", 4), (validation, 2), ("test", 3)):
        write_classes(tmp_path / part, {"ash": count, "birch": count})
    dataset = Dataset.from_directory(tmp_path)
    assert [len(split) for split in dataset.splits] == [8, 4, 6]
    assert dataset.validation.photos[0] == f"{validation}/ash/000.png"
    assert dataset.train.read(5) == (tmp_path / "train" / "birch" / "001.png").read_bytes()


def test_a_missing_validation_split_leaves_test_alone(tmp_path):
    for part, count in (("train", 10), ("test", 3)):
        write_classes(tmp_path / part, {"ash": count, "birch": count})
    dataset = Dataset.from_directory(tmp_path)
    assert [len(split) for split in dataset.splits] == [18, 2, 6]
    assert all(photo.startswith("test/") for photo in dataset.test.photos)
    assert all(photo.startswith("train/") for photo in dataset.validation.photos)


def test_a_class_may_be_called_train(tmp_path):
    root = write_classes(tmp_path, {"train": 5, "plane": 5, "test": 5})
    assert Dataset.from_directory(root).class_names == ("plane", "test", "train")


def test_a_link_to_nowhere_is_a_photo_that_cannot_be_read(tmp_path):
    root = write_classes(tmp_path, {"ash": 5, "birch": 5})
    (root / "ash" / "gone.jpg").symlink_to(tmp_path / "moved.jpg")
    dataset = Dataset.from_directory(root)
    checked, bad = check_photos(dataset, image_size=32, on_bad_image="skip", cache=PhotoCache(memory_gib=0))
    assert [photo for photo, _ in bad] == ["ash/gone.jpg"]
    assert sum(map(len, checked.splits)) == 10


def test_a_class_may_begin_with_underscores(tmp_path):
    root = write_classes(tmp_path, {"__background__": 5, "birch": 5})
    assert Dataset.from_directory(root).class_names == ("__background__", "birch")


def test_what_is_no_regular_file_is_passed_over(tmp_path):
    """Reading a named pipe would wait without end."""
    root = write_classes(tmp_path, {"ash": 5, "birch": 5})
    os.mkfifo(root / "ash" / "pipe.jpg")
    (root / "birch" / "link.jpg").symlink_to(root / "ash" / "pipe.jpg")
    dataset = Dataset.from_directory(root)
    assert sum(map(len, dataset.splits)) == 10


@pytest.mark.parametrize(("train", "test"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_a_class_is_its_name_in_either_form_of_unicode(tmp_path, train, test):
    for part, form in (("train", train), ("test", test)):
        write_classes(tmp_path / part, {unicodedata.normalize(form, "caf\u00e9"): 5, "tea": 5})
    dataset = Dataset.from_directory(tmp_path)
    assert dataset.class_names == ("caf\u00e9", "tea")
    assert count_labels(dataset.test, 2) == [5, 5]
    assert all(dataset.test.read(index) for index in range(10))


def test_what_is_no_photo_is_passed_over(tmp_path):
    root = write_classes(tmp_path, {"ash": 5, "birch": 5, ".cache": 2, "__MACOSX": 2})
    (root / "ash" / "2019.jpg").mkdir()
    (root / "ash" / "notes.txt").write_text("tall")
    (root / "ash" / ".hidden.png").write_bytes(plain_photo(3))
    (root / "ash" / "LOUD.JPEG").write_bytes(plain_photo(4, "JPEG"))
    dataset = Dataset.from_directory(root)
    assert dataset.class_names == ("ash", "birch")
    assert sum(map(len, dataset.splits)) == 11


@pytest.mark.parametrize(("name", "shown"), [(b"caf\xe9.png", "caf"), (b"two\nlines.png", "two"), (b"cr\r.png", "cr")])
def test_names_that_no_file_of_results_could_hold_are_refused(tmp_path, name, shown):
    root = write_classes(tmp_path, {"ash": 5, "birch": 5})
    (root / "ash" / os.fsdecode(name)).write_bytes(plain_photo(3))
    with pytest.raises(UserError, match=rf"Expected names in UTF-8, of one line each\. Received: .*{shown}.*Rename it"):
        Dataset.from_directory(root)


@pytest.mark.parametrize(
    ("layout", "received"),
    [
        ({}, "with no folder in it"),
        ({"ash": 5, "birch": 0}, "none in"),
        ({"ash": 5}, "classes in .* Received: ash"),
        ({"ash": 5, "birch": 2}, "class 'birch'"),
        ({"test/ash": 5, "test/birch": 5}, "Received: test only"),
        ({"train/ash": 5, "train/birch": 5, "val/ash": 1, "valid/ash": 1}, "two, valid among them"),
        ({"train/ash": 5, "train/birch": 5, "test/cedar": 1}, "none of cedar"),
    ],
)
def test_a_folder_that_cannot_be_used_gets_one_line(tmp_path, layout, received):
    root = write_classes(tmp_path / "leaves", layout)
    root.mkdir(exist_ok=True)
    with pytest.raises(UserError, match=received) as error:
        Dataset.from_directory(root)
    one_line(error)


def test_flowers17(assets):
    dataset = Dataset.from_directory(assets / "data" / "flowers17")
    assert [len(split) for split in dataset.splits] == [680, 340, 340]
    assert count_labels(dataset.train, 17) == [40] * 17
    assert dataset.class_names[0] == "bluebell"


def test_oxford_pets37_carves_a_validation_photo_of_each_breed(assets):
    dataset = Dataset.from_directory(assets / "data" / "oxford_pets37")
    assert [count_labels(split, 37) for split in dataset.splits] == [[4] * 37, [1] * 37, [5] * 37]
