"""A data set that changes: the next run computes the photos that are new, says so, and has a fresh cache's numbers."""

import csv
import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from support import Listener, encode
from tiny import tiny_classifier

from ktl.data.dataset import Dataset, make_dataset
from ktl.data.images import decode
from ktl.data.listing import Listing
from ktl.data.records import Place, RecordSource
from ktl.data.split import Split
from ktl.models.classifier import TransferClassifier
from ktl.training.inputs import make_inputs
from ktl.training.options import Caching, InputOptions

CLASSES = ("ash", "birch", "cedar", "dogwood")
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Photo:
    content: bytes
    label: str
    split: str


def noise(number) -> bytes:
    return encode(np.random.default_rng(number).integers(0, 256, (44, 50, 3), np.uint8))


def first_photos() -> dict[str, Photo]:
    """136 photos by their names."""
    splits = [*["train"] * 24, *["validation"] * 4, *["test"] * 6]
    return {
        f"{label}{number:02}.png": Photo(noise(100 * index + number), label, split)
        for index, label in enumerate(CLASSES)
        for number, split in enumerate(splits)
    }


def later_photos() -> dict[str, Photo]:
    """10 added, 2 removed, 5 relabelled, 6 moved to another split, 3 renamed, a class renamed."""
    photos = {}
    for name, photo in first_photos().items():
        number = int(name[-6:-4])
        if name in ("ash00.png", "birch33.png"):
            continue
        label = "cedar" if photo.label == "birch" and number < 5 else photo.label
        split = {1: "test", 24: "train", 30: "validation"}.get(number, photo.split) if label == "ash" else photo.split
        split = {7: "test", 8: "validation", 25: "test"}.get(number, split) if label == "dogwood" else split
        name = f"again-{name}" if label == "cedar" and number in (9, 10, 11) else name
        photos[name] = dataclasses.replace(photo, label="willow" if label == "ash" else label, split=split)
    for number in range(10):
        photos[f"new{number}.png"] = Photo(noise(9000 + number), "cedar", SPLITS[number % 3])
    return photos


def as_folder(photos, place):
    for name, photo in photos.items():
        path = place / photo.split / photo.label / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo.content)
    return Dataset.from_directory(place)


def as_csv(photos, place):
    place.mkdir()
    for name, photo in photos.items():
        (place / name).write_bytes(photo.content)
    with open(place / "photos.csv", "w", newline="") as file:
        rows = [(name, photo.label, photo.split) for name, photo in photos.items()]
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return Dataset.from_csv(place / "photos.csv")


def as_arrays(photos, place):
    parts = {}
    for split in SPLITS:
        chosen = [photo for photo in photos.values() if photo.split == split]
        parts[split] = ([decode(photo.content) for photo in chosen], [photo.label for photo in chosen])
    return Dataset.from_arrays(*parts["train"], validation=parts["validation"], test=parts["test"])


def as_records(photos, place):
    """As TensorFlow Datasets stores them, in one file."""
    place.mkdir()
    path, offset, places = place / "photos.tfrecord", 0, {}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, photo in photos.items():
            feature = {"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[photo.content]))}
            record = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
            writer.write(record)
            places[name] = Place(str(path), offset + 12, len(record))
            offset += 12 + len(record) + 4
    source, names = RecordSource(places), sorted({photo.label for photo in photos.values()})
    splits = {}
    for split in SPLITS:
        chosen = {name: photo for name, photo in photos.items() if photo.split == split}
        labels = np.array([names.index(photo.label) for photo in chosen.values()], np.int32)
        splits[split] = Split(split, tuple(chosen), labels, source)
    return make_dataset(Listing("records", splits, tuple(names)))


def rows_of(photos, views) -> set:
    """What is computed of some photos: each of them, as it is seen in its split."""
    return {
        (photo.content, view)
        for photo in photos.values()
        for view in (range(views) if photo.split == "train" and views > 1 else ["evaluation"])
    }


def run(classifier_of, dataset, cache, views):
    """The features of a run with that cache by photo, what was told, and how many views were computed."""
    listener = Listener()
    classifier = classifier_of(dataset.class_names)
    options = InputOptions(
        augmentation="standard" if views > 1 else "none", views=views, caching=Caching(mode="on", folder=cache)
    )
    inputs = make_inputs(classifier, dataset, options, epochs=5, reporter=listener)
    rows = {split.name: inputs.features[split.name] for split in inputs.dataset.splits}
    values = {name: part.read(np.arange(len(part) * part.views)) for name, part in rows.items()}
    (told,) = [text for text in listener.messages if text.startswith("cache on")]
    return values, told, dict(listener.tasks).get("computing frozen layers", 0)


def check_that_new_photos_alone_are_computed(classifier_of, first, later, *, form, views, folder):
    """How many photos were computed of the later data set, and how many were there."""
    cache = folder / "cache"
    _, told, computed = run(classifier_of, form(first, folder / "first"), cache, views)
    assert computed == len(rows_of(first, views))
    assert "are there" not in told

    dataset = form(later, folder / "later")
    found, told, computed = run(classifier_of, dataset, cache, views)
    new = rows_of(later, views) - rows_of(first, views)
    assert computed == len(new)
    there = sum(rows_of({"": photo}, views) <= rows_of(first, views) for photo in later.values())
    assert told.endswith(f"; {there:,} of {len(later):,} photos are there")

    fresh, _, all_of_them = run(classifier_of, dataset, folder / "fresh", views)
    assert all_of_them == len(rows_of(later, views))
    for split in SPLITS:
        np.testing.assert_array_equal(found[split], fresh[split])
    assert run(classifier_of, dataset, cache, views)[2] == 0
    return computed, there


@pytest.mark.parametrize(
    ("form", "views"), [(as_folder, 1), (as_folder, 2), (as_csv, 1), (as_arrays, 1), (as_records, 1)]
)
def test_only_new_photos_are_computed(tiny_backbone, tmp_path, form, views):
    first, later = first_photos(), later_photos()
    assert (len(first), len(later)) == (136, 144)

    def classifier_of(class_names):
        return tiny_classifier(tiny_backbone, class_names=class_names, freeze_depth="block_relu")

    found = check_that_new_photos_alone_are_computed(
        classifier_of, first, later, form=form, views=views, folder=tmp_path
    )
    if views == 1:  # else a photo that moved between training and another split is seen otherwise
        assert found == (10, 134)


def real_photos(folder) -> dict[str, Photo]:
    """Those of a folder of splits of classes, by their names."""
    files = sorted(file for split in SPLITS for file in (folder / split).glob("*/*.jpg"))
    return {
        f"{file.parent.name}-{file.name}": Photo(file.read_bytes(), file.parent.name, file.parent.parent.name)
        for file in files
    }


def changed(photos, others) -> dict[str, Photo]:
    """100 of the others are added to the first class, 20 are removed, 50 relabelled, and the last class is renamed."""
    names = sorted(photos)
    labels = sorted({photo.label for photo in photos.values()})
    kept = {name: photos[name] for name in names if name not in names[::68][:20]}
    relabelled = set(sorted(kept)[7::20][:50])
    renamed = {labels[-1]: "another name"}
    later = {
        name: dataclasses.replace(
            photo, label=labels[1] if name in relabelled else renamed.get(photo.label, photo.label)
        )
        for name, photo in kept.items()
    }
    added = {f"new-{name}": dataclasses.replace(others[name], label=labels[0]) for name in sorted(others)[:100]}
    return later | added


@pytest.mark.long
@pytest.mark.parametrize("form", [as_folder, as_csv, as_records])
def test_100_new_photos_of_flowers17_are_all_that_is_computed(assets, tmp_path, form):
    first = real_photos(assets / "data/flowers17")
    later = changed(first, real_photos(assets / "data/caltech50"))
    assert (len(first), len(later)) == (1360, 1440)
    weights = str(assets / "weights/mobilenet_0_75_224.weights.h5")

    def classifier_of(class_names):
        return TransferClassifier("mobilenet_0.75", weights=weights, class_names=class_names, freeze_depth="all")

    found = check_that_new_photos_alone_are_computed(classifier_of, first, later, form=form, views=1, folder=tmp_path)
    assert found == (100, 1340)
