"""The pass: its numbers are the prefix's, and nothing stale, partial or foreign is ever read."""

import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from stored_features import (
    compute,
    expected_features,
    extraction_of,
    read_features,
)
from support import start
from tiny import SIZE, tiny_classifier

from ktl.data.loading import load_dataset
from ktl.features.extraction import Views
from ktl.features.store import FeatureStore


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


def test_one_pass_writes_what_the_prefix_gives_at_every_boundary(classifier, dataset, store):
    depths = ["stem_relu", "block_relu", "all"]
    keys = compute(store, *(extraction_of(classifier, dataset, depth) for depth in depths))
    for key, depth in zip(keys, depths, strict=True):
        found = store.load(key, dataset).features
        for split in dataset.splits:
            values, labels = read_features(found[split.name])
            np.testing.assert_allclose(values, expected_features(classifier, depth, split), rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(labels, split.labels)


def test_what_is_there_is_not_computed_again(classifier, dataset, store):
    seen = []
    compute(store, extraction_of(classifier, dataset), progress=seen.append)
    total = sum(map(len, dataset.splits))
    assert seen[-1] == total
    seen.clear()
    (key, _) = compute(
        store, extraction_of(classifier, dataset), extraction_of(classifier, dataset, "all"), progress=seen.append
    )
    assert seen[-1] == total  # of the other alone
    seen.clear()
    assert compute(store, extraction_of(classifier, dataset), progress=seen.append) == [key]
    assert seen == []


def test_float16_halves_the_disk_and_costs_a_thousandth(classifier, dataset, store):
    sizes = {}
    for dtype in ("float32", "float16"):
        extraction = extraction_of(classifier, dataset, dtype=dtype)
        (key,) = compute(store, extraction)
        values, _ = read_features(store.load(key, dataset).features["test"])
        assert values.dtype == dtype
        np.testing.assert_allclose(
            values, expected_features(classifier, "stem_relu", dataset.test), rtol=2e-3, atol=1e-3
        )
        sizes[dtype] = sum(file.stat().st_size for file in (store.folder / key).glob("*.bin"))
        assert sizes[dtype] == extraction.nbytes
    assert sizes["float16"] * 2 == sizes["float32"]


def test_the_size_counts_the_views_of_training_photos_alone(classifier, dataset):
    one, three = (extraction_of(classifier, dataset, views=Views(SIZE, "standard", count)) for count in (1, 3))
    row = np.prod(classifier.boundary.tensor.shape[1:]) * 4
    assert three.nbytes - one.nbytes == 2 * len(dataset.train) * row
    assert one.nbytes == sum(map(len, dataset.splits)) * row


# The key


def test_the_key_changes_with_everything_that_the_features_depend_on(classifier, dataset, photo_folder, tmp_path):
    def key(changed=dataset, **changes):
        return extraction_of(classifier, changed, **changes).key

    copy = tmp_path / "copy"
    shutil.copytree(photo_folder, copy)
    os.utime(next(copy.glob("*/*.png")))
    keys = [
        key(),
        key(views=Views(SIZE, "standard", 4)),
        key(views=Views(SIZE, "standard", 5)),
        key(views=Views(SIZE + 1)),
        key(dtype="float16"),
        key(on_bad_image="skip"),
        key(depth="block_relu"),
        key(load_dataset(str(copy))),
        key(views=Views(SIZE, "standard", 4, flip=True)),
    ]
    kernel = classifier.get_layer("stem").kernel
    kernel.assign(np.nextafter(keras.ops.convert_to_numpy(kernel), np.float32(9)))
    keys.append(key())
    mean = classifier.get_layer("stem_norm").moving_mean
    mean.assign(mean + 1e-3)
    keys.append(key())
    assert len(set(keys)) == len(keys) == 11
    assert all(len(each) == 32 for each in keys)


def test_the_key_takes_no_notice_of_weights_behind_the_boundary(classifier, dataset):
    before = extraction_of(classifier, dataset).key
    kernel = classifier.get_layer("block").kernel
    kernel.assign(kernel + 1e-3)
    assert extraction_of(classifier, dataset).key == before


@pytest.mark.parametrize("depth", ["stem_relu", "block_relu"])
def test_the_key_takes_no_notice_of_what_is_frozen(classifier, dataset, depth):
    before = extraction_of(classifier, dataset, depth).key
    for other in ("none", "depthwise_relu", "all"):
        classifier.freeze(other)
        assert extraction_of(classifier, dataset, depth).key == before, other
    for layer in classifier.layers:
        layer.trainable = False
    assert extraction_of(classifier, dataset, depth).key == before


def test_the_key_does_not_change_with_the_seed_of_training(tiny_backbone, dataset):
    keys = set()
    for seed in (1, 2):
        classifier = tiny_classifier(tiny_backbone, freeze_depth="all", seed=seed)
        assert any(isinstance(layer, keras.layers.Dropout) for layer in classifier.prefix.layers)
        keys.add(extraction_of(classifier, dataset).key)
    assert len(keys) == 1


def test_the_key_is_the_same_in_another_process(tiny_backbone, photo_folder, classifier, dataset):
    code = f"""
from stored_features import extraction_of
from tiny import tiny_classifier
from ktl.data.loading import load_dataset
from ktl.models.backbones import build_backbone
build_backbone("mobilenet_0.25", weights="random", image_size=32)  # counts up Keras' names
print(extraction_of(tiny_classifier({str(tiny_backbone)!r}), load_dataset({str(photo_folder)!r})).key)
"""
    assert in_another_process(code).stdout.strip() == extraction_of(classifier, dataset).key


def in_another_process(code, **arguments) -> subprocess.CompletedProcess:
    """Python that finds the tests' own modules."""
    paths = [path for path in sys.path if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    defaults = {"check": True, "capture_output": True, "text": True, "env": environment, "timeout": 120}
    return subprocess.run([sys.executable, "-c", code], **{**defaults, **arguments})


# Several processes, and a full disk


def _compute_once(folder, backbone, photos, log):
    dataset = load_dataset(photos)
    with open(log, "a") as file:
        extraction = extraction_of(tiny_classifier(backbone), dataset)
        compute(FeatureStore(folder), extraction, progress=lambda done: file.write(f"{os.getpid()}\n"))


def test_processes_that_need_the_same_entry_make_it_once(tiny_backbone, photo_folder, tmp_path):
    arguments = (str(tmp_path / "store"), str(tiny_backbone), str(photo_folder), str(tmp_path / "log"))
    for process in [start(_compute_once, *arguments) for _ in range(2)]:
        process.join(300)
        assert process.exitcode == 0
    assert len(set((tmp_path / "log").read_text().split())) == 1


def test_a_full_disk_leaves_nothing_behind(classifier, dataset, store):
    def full(done):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        compute(store, extraction_of(classifier, dataset), progress=full)
    assert not [path for path in store.folder.iterdir() if path.is_dir()]
