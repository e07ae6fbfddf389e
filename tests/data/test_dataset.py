"""Data sets: carving of splits, fingerprints, parts."""

import os

import numpy as np
import pytest
from support import count_labels, one_line, plain_photo, write_classes

from ktl.data import dataset as dataset_module
from ktl.data.dataset import Dataset, with_splits, without
from ktl.errors import UserError


def test_carving_is_stratified_disjoint_and_always_the_same(tmp_path):
    root = write_classes(tmp_path / "leaves", {"ash": 50, "birch": 10, "cedar": 3})
    dataset, again = Dataset.from_directory(root), Dataset.from_directory(root)
    assert count_labels(dataset.test, 3) == [10, 2, 1]
    assert count_labels(dataset.validation, 3) == [4, 1, 1]
    assert count_labels(dataset.train, 3) == [36, 7, 1]
    photos = [photo for split in dataset.splits for photo in split.photos]
    assert len(set(photos)) == len(photos) == 63
    for split, other in zip(dataset.splits, again.splits, strict=True):
        assert split.photos == other.photos
        for photo, label in zip(split.photos, split.labels, strict=True):
            assert photo.startswith(dataset.class_names[label] + "/")
    assert dataset.fingerprint == again.fingerprint
    assert dataset.name == "leaves"


def test_carving_depends_on_the_seed_constant(tmp_path, monkeypatch):
    root = write_classes(tmp_path, {"ash": 50, "birch": 50})
    first = Dataset.from_directory(root)
    monkeypatch.setattr(dataset_module, "SPLIT_SEED", dataset_module.SPLIT_SEED + 1)
    assert Dataset.from_directory(root).test.photos != first.test.photos


def test_a_photo_that_joins_a_class_displaces_one_or_two_of_it_and_none_of_the_others(tmp_path):
    root = write_classes(tmp_path, {"ash": 20, "birch": 20})
    before = Dataset.from_directory(root)
    for index in range(20, 40):
        (root / "ash" / f"{index:03}.png").write_bytes(plain_photo(index))
        after = Dataset.from_directory(root)
        for old, new in zip(before.splits, after.splits, strict=True):
            assert len(set(old.photos) - set(new.photos)) <= (2 if old.name == "validation" else 1)
            assert [photo for photo in old.photos if photo[0] == "b"] == [
                photo for photo in new.photos if photo[0] == "b"
            ]
        before = after


def test_the_name_of_a_class_does_not_choose(tmp_path):
    root = write_classes(tmp_path, {"ash": 20, "birch": 20})
    before = Dataset.from_directory(root)
    (root / "ash").rename(root / "yew")
    after = Dataset.from_directory(root)
    for old, new in zip(before.splits, after.splits, strict=True):
        assert set(new.photos) == {photo.replace("ash", "yew") for photo in old.photos}


def test_the_fingerprint_changes_with_bytes_labels_and_splits(tmp_path):
    root = write_classes(tmp_path, {"ash": 5, "birch": 5})
    prints = {Dataset.from_directory(root).fingerprint}
    os.utime(root / "ash" / "000.png", ns=(1, 1))
    prints.add(Dataset.from_directory(root).fingerprint)
    (root / "ash" / "000.png").rename(root / "birch" / "100.png")
    prints.add(Dataset.from_directory(root).fingerprint)
    (root / "birch").rename(root / "beech")
    prints.add(Dataset.from_directory(root).fingerprint)
    assert len(prints) == 4


def test_a_data_set_is_shown_in_one_line(tmp_path):
    root = write_classes(tmp_path / "leaves", {"ash": 50, "birch": 10})
    dataset = Dataset.from_directory(root)
    assert repr(dataset) == "Dataset('leaves', 2 classes, 43 train, 5 validation and 12 test photos)"
    assert repr(dataset.test) == "Split('test', 12 photos)"


def test_a_split_alone_gives_its_photos(tmp_path):
    test = Dataset.from_directory(write_classes(tmp_path, {"ash": 10, "birch": 10})).test
    for index, photo in enumerate(test.photos):
        assert test.read(index) == (tmp_path / photo).read_bytes()
    part = test.take(np.array([3, 0]), name="part")
    assert (part.name, part.photos) == ("part", (test.photos[3], test.photos[0]))
    assert part.labels.tolist() == test.labels[[3, 0]].tolist()


def test_without_some_photos_the_others_stay_in_their_splits(tmp_path):
    dataset = Dataset.from_directory(write_classes(tmp_path, {"ash": 10, "birch": 10}))
    gone = {dataset.train.photos[2], dataset.test.photos[0]}
    smaller = without(dataset, gone)
    for split, whole in zip(smaller.splits, dataset.splits, strict=True):
        kept = [index for index, photo in enumerate(whole.photos) if photo not in gone]
        assert split.photos == tuple(whole.photos[index] for index in kept)
        assert split.labels.tolist() == whole.labels[kept].tolist()
    assert smaller.fingerprint != dataset.fingerprint
    with pytest.raises(UserError, match="none of ash") as error:
        without(dataset, {photo for photo in dataset.train.photos if photo.startswith("ash/")})
    one_line(error)


def test_a_part_of_the_training_photos_keeps_the_other_splits(tmp_path):
    dataset = Dataset.from_directory(write_classes(tmp_path, {"ash": 10, "birch": 10}))
    part = with_splits(dataset, {"train": dataset.train.take(np.arange(0, len(dataset.train), 2))})
    assert len(part.train) == len(dataset.train) // 2
    assert (part.validation, part.test) == (dataset.validation, dataset.test)
    assert part.fingerprint != dataset.fingerprint


@pytest.mark.parametrize("make", [Dataset.from_directory, Dataset.from_csv, Dataset.from_tfds])
@pytest.mark.parametrize("given", [None, 5, True, b"photos", ["photos"], ""])
def test_what_is_no_path_or_name_gets_one_line(make, given):
    with pytest.raises(UserError, match=r"^Expected [^\n]* Received: [^\n]*$"):
        make(given)
