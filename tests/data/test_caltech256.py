"""The Caltech-256 builder on a small archive of the real layout, prepared offline as a user would."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from support import encode

from ktl.data.images import decode
from ktl.data.loading import load_dataset
from ktl.errors import UserError

CLASSES = {"001.ak47": 70, "056.dog": 64, "198.spider": 62, "257.clutter": 62}


def jpeg(value):
    return encode(Image.new("RGB", (8, 8), (value, value, value)), "JPEG")


def add(tar, name, content):
    entry = tarfile.TarInfo(f"256_ObjectCategories/{name}")
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caltech")
    manual = folder / "downloads" / "manual"
    manual.mkdir(parents=True)
    with tarfile.open(manual / "256_ObjectCategories.tar", "w") as tar:
        for label, count in reversed(CLASSES.items()):
            for number in range(1, count + 1):
                add(tar, f"{label}/{label[:3]}_{number:04}.jpg", jpeg(number))
        add(tar, "198.spider/RENAME2", b"#!/bin/sh\n")
        add(tar, "056.dog/greg/vision309/056_0001.jpg", jpeg(255))
        folder_entry = tarfile.TarInfo("256_ObjectCategories/056.dog/greg")
        folder_entry.type = tarfile.DIRTYPE
        tar.addfile(folder_entry)
    return folder


@pytest.fixture(scope="module")
def dataset(data_dir):
    return load_dataset("caltech256", data_dir=str(data_dir))


def test_sixty_photos_a_class_are_for_training_and_clutter_is_left_out(dataset):
    assert dataset.class_names == ("ak47", "dog", "spider")
    training = np.bincount(dataset.train.labels) + np.bincount(dataset.validation.labels)
    assert training.tolist() == [60, 60, 60]
    assert np.bincount(dataset.validation.labels).tolist() == [6, 6, 6]
    assert np.bincount(dataset.test.labels).tolist() == [10, 4, 2]


def test_every_photo_of_the_archive_is_there_once_under_its_class(dataset):
    photos = [photo.split("/")[1] for split in dataset.splits for photo in split.photos]
    assert sorted(photos) == sorted(
        f"{label[:3]}_{number:04}.jpg"
        for label, count in CLASSES.items()
        if label != "257.clutter"
        for number in range(1, count + 1)
    )
    prefixes = {"001": "ak47", "056": "dog", "198": "spider"}
    for split in dataset.splits:
        for index, photo in enumerate(split.photos):
            assert dataset.class_names[split.labels[index]] == prefixes[photo[-12:-9]]
            assert split.read(index) == jpeg(int(photo[-8:-4]))


def test_the_training_photos_are_drawn_and_not_the_first(dataset):
    assert any(int(photo[-8:-4]) <= 60 for photo in dataset.test.photos)


def test_a_second_load_finds_it_prepared(dataset, data_dir):
    (data_dir / "downloads" / "manual" / "256_ObjectCategories.tar").unlink()
    again = load_dataset("caltech256", data_dir=str(data_dir))
    assert again.fingerprint == dataset.fingerprint
    assert again.class_names == dataset.class_names
    assert decode(again.train.read(0)).shape == (8, 8, 3)


def test_without_the_archive_the_instructions_are_given(tmp_path):
    for content in ([], ["other.zip"]):
        manual = tmp_path / "downloads" / "manual"
        manual.mkdir(parents=True, exist_ok=True)
        for name in content:
            (manual / name).write_bytes(b"")
        with pytest.raises(UserError, match=r"https://data\.caltech\.edu/records/nyy15-4j048") as error:
            load_dataset("caltech256", data_dir=str(tmp_path))
        assert "\n" not in str(error.value)


def test_an_archive_cut_short_gets_one_line(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "256_ObjectCategories.tar").write_bytes(b"not a tar file" * 99)
    with pytest.raises(UserError, match="Expected intact archives of caltech256") as error:
        load_dataset("caltech256", data_dir=str(tmp_path))
    assert "\n" not in str(error.value)
