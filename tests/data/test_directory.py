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


def test_what_is_passed_over_is_counted_with_an_example(tmp_path):
    root = write_classes(tmp_path, {"ash": 5, "birch": 5, ".cache": 2, "__MACOSX": 2, "ash/more/old": 3})
    (root / "ash" / "2019.jpg").mkdir()
    os.mkfifo(root / "ash" / "pipe.png")
    for name in ("ash/.hidden.png", "loose.png", "birch/photo", "birch/photo.jpg_large", "birch/scan.TIF"):
        (root / name).write_bytes(plain_photo(3))
    for name in ("ash/notes.txt", "ash/.DS_Store"):
        (root / name).write_text("tall")
    (root / "ash" / "LOUD.JPEG").write_bytes(plain_photo(4, "JPEG"))
    (root / "ash" / "saved.jfif").write_bytes(plain_photo(5, "JPEG"))
    dataset = Dataset.from_directory(root)
    assert dataset.class_names == ("ash", "birch")
    assert sum(map(len, dataset.splits)) == 12
    assert {what: (count, example) for what, count, example in dataset.found.passed_over} == {
        "hidden photos": (5, "ash/.hidden.png"),
        "photos in folders within a class folder": (3, "ash/more/old/000.png"),
        "pipes, sockets or devices": (1, "ash/pipe.png"),
        "other files": (1, "ash/notes.txt"),
        "photos of formats that are not read": (1, "birch/scan.TIF"),
        "photos whose names do not end as a photo's": (2, "birch/photo"),
        "photos in no class folder": (1, "loose.png"),
    }
    found, passed_over = dataset.told()
    assert found.endswith(
        ": 12 photos of 2 classes: 8 train, 2 validation, 2 test (validation and test set aside from train)"
    )
    assert "; 1 photos in no class folder, such as loose.png" in passed_over


def test_folders_beside_the_splits_are_told(tmp_path):
    root = write_classes(tmp_path, {"train/ash": 5, "train/birch": 5, "unsure/ash": 7, "test/ash": 1, "test/birch": 1})
    (root / "test" / "loose.png").write_bytes(plain_photo(3))
    dataset = Dataset.from_directory(root)
    assert dataset.found.set_aside == ("validation",)
    assert dataset.found.passed_over == (
        ("photos in no class folder", 1, "test/loose.png"),
        ("photos in folders that are no split", 7, "unsure/ash/000.png"),
    )


def test_of_a_folder_of_photos_alone_nothing_is_passed_over(tmp_path):
    dataset = Dataset.from_directory(write_classes(tmp_path, {"ash": 5, "birch": 5}))
    assert dataset.found.passed_over == ()
    assert len(dataset.told()) == 1


@pytest.mark.parametrize("link", ["hard", "symbolic", "folder"])
def test_one_file_under_two_names_is_refused(tmp_path, link):
    """Its photo could be in train and in test."""
    root = write_classes(tmp_path, {"train/ash": 5, "train/birch": 5, "test/birch": 5})
    if link == "folder":
        (root / "test" / "ash").symlink_to(root / "train" / "ash")
    else:
        (root / "test" / "ash").mkdir()
        (root / "test" / "ash" / "other.png").write_bytes(plain_photo(9))
        make = os.link if link == "hard" else os.symlink
        make(root / "train" / "ash" / "003.png", root / "test" / "ash" / "same.png")
    with pytest.raises(
        UserError, match=r"Expected each photo once .* (train|test)/ash/\S+, which is the same file"
    ) as error:
        Dataset.from_directory(root)
    one_line(error)


def test_a_data_set_may_be_made_of_links(tmp_path):
    root = write_classes(tmp_path / "all", {"ash": 5, "birch": 5})
    chosen = tmp_path / "chosen"
    for name in ("ash", "birch"):
        (chosen / name).mkdir(parents=True)
        for photo in (root / name).iterdir():
            (chosen / name / photo.name).symlink_to(photo)
    assert sum(map(len, Dataset.from_directory(chosen).splits)) == 10


@pytest.mark.parametrize("twin", ["Ash", "ash ", "as\u200bh", "\ufeffash", "A\u0301sh"])
def test_class_folders_whose_names_look_alike_are_refused(tmp_path, twin):
    first = "\u00e1sh" if twin.startswith("A\u0301") else "ash"
    root = write_classes(tmp_path, {first: 5, twin: 5, "birch": 5})
    with pytest.raises(
        UserError, match=r"class names that differ in more .* Received: .*5 photos.* and .*5 photos"
    ) as error:
        Dataset.from_directory(root)
    one_line(error)


def test_letters_are_classes_in_either_case_and_that_is_told(tmp_path):
    dataset = Dataset.from_directory(write_classes(tmp_path, {"A": 5, "a": 5}))
    assert dataset.class_names == ("A", "a")
    assert dataset.told()[0] == "'A' (5 photos) and 'a' (5 photos) are two classes"


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
