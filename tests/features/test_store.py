"""Cached training equals uncached training; nothing stale, partial or foreign is ever read."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from ktl.config.settings import RunConfig
from ktl.data.dataset import without
from ktl.data.input_pipeline import PhotoCache, evaluation_batches, training_batches
from ktl.data.loading import load_dataset
from ktl.features.store import (
    VIEW_SEED,
    FeatureCache,
    Views,
    cached_evaluation_batches,
    cached_training_batches,
    entry_bytes,
    entry_key,
    worth_caching,
)
from ktl.features.store import store as features_module
from ktl.models.backbones import build_backbone
from ktl.models.boundaries import find_boundary
from ktl.models.classifier import build_network, freeze
from ktl.studies.cells import part_of
from ktl.training.fit import compile_model, fit

SIZE = 42


@pytest.fixture
def network(tiny_backbone):
    keras.utils.set_random_seed(1)
    backbone = build_backbone(str(tiny_backbone))
    return build_network(backbone, classes=6, freeze_depth="stem_relu")


@pytest.fixture(scope="module")
def dataset(photo_folder):
    return load_dataset(str(photo_folder))


def key_of(network, dataset, views=None, dtype="float32"):
    return entry_key(network.prefix, dataset, views=views or Views(SIZE), dtype=dtype, on_bad_image="fail")


def build(cache, network, dataset, *, depths=None, views=None, dtype="float32", **arguments):
    """Writes the features at some depths in one pass; their keys."""
    views = views or Views(SIZE)
    keys = {}
    for depth in depths or [network.boundary.depth]:
        network = freeze(network, depth)
        keys[key_of(network, dataset, views, dtype)] = network.boundary
    photo_cache = PhotoCache(memory_gib=0.1)
    pixels = network.graph.input
    cache.build(keys, pixels, dataset, views=views, dtype=dtype, photo_cache=photo_cache, **arguments)
    return list(keys)


def split_features(cache, key, dataset):
    return cache.load(key, dataset)[1]


def expected_features(network, depth, split):
    batches = evaluation_batches(split, image_size=SIZE, batch_size=32, cache=PhotoCache(memory_gib=0))
    tensor = find_boundary(network.boundaries, depth).tensor
    return keras.Model(network.graph.input, tensor).predict(batches, verbose=0)


def test_one_pass_writes_what_the_prefix_gives_at_every_boundary(network, dataset, tmp_path):
    cache = FeatureCache(tmp_path)
    depths = ["stem_relu", "block_relu", "all"]
    for key, depth in zip(build(cache, network, dataset, depths=depths), depths, strict=True):
        found = split_features(cache, key, dataset)
        for split in dataset.splits:
            batches = list(cached_evaluation_batches(found[split.name], batch_size=7))
            values, labels = (np.concatenate(column) for column in zip(*batches, strict=True))
            np.testing.assert_allclose(values, expected_features(network, depth, split), rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(labels, split.labels)


@pytest.mark.parametrize("views", [Views(SIZE), Views(SIZE, "standard", 3)])
def test_training_batches_are_the_prefix_of_some_view_of_the_uncached_ones(network, dataset, tmp_path, views):
    cache = FeatureCache(tmp_path)
    (key,) = build(cache, network, dataset, views=views)
    train = split_features(cache, key, dataset)["train"]
    batches = list(cached_training_batches(train, batch_size=16, epochs=4, seed=5))
    common = {"image_size": SIZE, "batch_size": 16, "cache": PhotoCache(memory_gib=0.1)}
    uncached = training_batches(
        dataset.train, epochs=4, seed=VIEW_SEED, augmentation=views.augmentation, flip=True, **common
    )
    steps = len(batches) // 4
    drawn = []
    views_of_photo = {}  # every view of every photo, by an independent pass over the uncached epochs
    order, seen = (
        [features_module.epoch_order(len(dataset.train), seed, epoch) for epoch in range(4)] for seed in (5, VIEW_SEED)
    )
    for epoch in range(views.of(dataset.train)):
        start = epoch * steps
        pixels = np.concatenate([x for x, _ in list(uncached)[start : start + steps]])
        values = network.prefix.predict(pixels, verbose=0)
        for photo, value in zip(seen[epoch], values, strict=True):
            views_of_photo.setdefault(int(photo), []).append(value)
    for epoch in range(4):
        values = np.concatenate([x for x, _ in batches[epoch * steps : (epoch + 1) * steps]])
        labels = np.concatenate([y for _, y in batches[epoch * steps : (epoch + 1) * steps]])
        np.testing.assert_array_equal(labels, dataset.train.labels[order[epoch]])  # the order of uncached training
        shown = []
        for photo, value in zip(order[epoch], values, strict=True):
            distances = [np.abs(value - view).max() for view in views_of_photo[int(photo)]]
            assert min(distances) < 1e-5
            shown.append(int(np.argmin(distances)))
        drawn.append(np.array(shown)[np.argsort(order[epoch])])
    if views.count == 3:
        # Each view once in three epochs, then the first again; photos are not in step with each other.
        assert (np.sort(drawn[:3], axis=0) == np.arange(3)[:, None]).all()
        np.testing.assert_array_equal(drawn[3], drawn[0])
        assert len(set(drawn[0])) == 3


def test_a_part_reads_the_features_of_its_whole(network, dataset, tmp_path):
    cache, views = FeatureCache(tmp_path), Views(SIZE, "standard", 2)
    part = part_of(dataset, 0.5)
    assert 0 < len(part.train) < len(dataset.train)
    assert key_of(network, part, views) == key_of(network, dataset, views)
    (key,) = build(cache, network, dataset, views=views)
    whole = split_features(cache, key, dataset)["train"]
    clean, features, _ = cache.load(key, part)
    assert clean is part
    np.testing.assert_array_equal(features["train"].labels, part.train.labels)
    for place, photo in enumerate(part.train.photos):
        rows, of_whole = (2 * index + np.arange(2) for index in (place, dataset.train.photos.index(photo)))
        np.testing.assert_array_equal(features["train"].read(rows), whole.read(of_whole))
    left_out = {part.train.photos[0], dataset.train.photos[0]}
    clean_whole = without(dataset, left_out)
    (key,) = build(cache, network, clean_whole, bad_photos=[(photo, "broken") for photo in left_out])
    clean, features, bad = cache.load(key, part)
    assert {photo for photo, _ in bad} == left_out
    assert set(clean.train.photos) == set(part.train.photos) - left_out
    rows = np.array([clean_whole.train.photos.index(photo) for photo in clean.train.photos])
    expected = expected_features(network, "stem_relu", clean_whole.train)[rows]
    np.testing.assert_allclose(features["train"].read(np.arange(len(clean.train))), expected, rtol=1e-5, atol=1e-6)


def test_no_thread_tunes_the_batches(network, dataset, tmp_path):
    """Letting go of an iterator would wait for it, up to a minute."""
    cache = FeatureCache(tmp_path)
    (key,) = build(cache, network, dataset)
    train = split_features(cache, key, dataset)["train"]
    trained = cached_training_batches(train, batch_size=8, epochs=2, seed=0)
    for batches in (cached_evaluation_batches(train, batch_size=8), trained):
        assert batches.options().autotune.enabled is False


def test_continuing_gives_the_batches_of_an_uninterrupted_training(network, dataset, tmp_path):
    views = Views(SIZE, "standard", 2)
    cache = FeatureCache(tmp_path)
    (key,) = build(cache, network, dataset, views=views)
    train = split_features(cache, key, dataset)["train"]
    whole, rest = (
        list(cached_training_batches(train, batch_size=20, epochs=4, first_epoch=first, seed=3)) for first in (0, 2)
    )
    for (x, y), (expected_x, expected_y) in zip(rest, whole[len(whole) // 2 :], strict=True):
        np.testing.assert_array_equal(x, expected_x)
        np.testing.assert_array_equal(y, expected_y)


class Losses(keras.callbacks.Callback):
    """The running mean of the loss after each step."""

    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(logs["loss"])


@pytest.mark.parametrize(
    ("freeze_depth", "optimizer"), [("stem_relu", "adamw"), ("stem_relu", "sgd"), ("all", "adamw")]
)
def test_cached_and_uncached_training_have_the_same_losses_step_by_step(
    tiny_backbone, dataset, tmp_path, freeze_depth, optimizer
):
    config = RunConfig(
        dataset="x", epochs=3, patience=0, batch_size=8, augmentation="none", optimizer=optimizer, learning_rate=1e-3
    )
    steps = -(-len(dataset.train) // 8)
    losses, weights = {}, {}
    for way in ("cached", "uncached"):
        keras.utils.set_random_seed(2)
        network = build_network(build_backbone(str(tiny_backbone)), classes=6, freeze_depth=freeze_depth)
        photos = {"image_size": SIZE, "batch_size": 8, "cache": PhotoCache(memory_gib=0.1)}
        if way == "cached":
            cache = FeatureCache(tmp_path / "cache")
            found = split_features(cache, build(cache, network, dataset)[0], dataset)
            model = network.suffix
            train = cached_training_batches(found["train"], batch_size=8, epochs=3, seed=0)
            validation = cached_evaluation_batches(found["validation"], batch_size=8)
        else:
            model = network.model
            train = training_batches(dataset.train, epochs=3, seed=0, augmentation="none", flip=True, **photos)
            validation = evaluation_batches(dataset.validation, **photos)
        compile_model(model, head_variables=network.head_variables, config=config, steps_per_epoch=steps, xla=False)
        recorder = Losses()
        arguments = {"steps_per_epoch": steps, "validation": validation, "config": config, "callbacks": (recorder,)}
        fit(model, train=lambda first, batches=train: batches, checkpoint_dir=str(tmp_path / way), **arguments)
        losses[way] = recorder.values
        weights[way] = [np.array(keras.ops.convert_to_numpy(v)) for v in network.graph.weights]
    assert len(losses["cached"]) == 3 * steps
    np.testing.assert_allclose(losses["cached"], losses["uncached"], atol=1e-4)
    if optimizer == "adamw" and freeze_depth != "all":
        return  # AdamW makes full steps of the rounding errors that are the gradient of a bias before a normalisation
    for cached, uncached in zip(weights["cached"], weights["uncached"], strict=True):
        np.testing.assert_allclose(cached, uncached, atol=1e-3)


def test_float16_halves_the_disk_and_costs_a_thousandth(network, dataset, tmp_path):
    cache = FeatureCache(tmp_path)
    sizes = {}
    for dtype in ("float32", "float16"):
        (key,) = build(cache, network, dataset, dtype=dtype)
        values = next(iter(cached_evaluation_batches(split_features(cache, key, dataset)["test"], batch_size=99)))[0]
        np.testing.assert_allclose(values, expected_features(network, "stem_relu", dataset.test), rtol=2e-3, atol=1e-3)
        sizes[dtype] = sum(file.stat().st_size for file in (tmp_path / key).glob("*.bin"))
        assert sizes[dtype] == entry_bytes(network.boundary, dataset, Views(SIZE), dtype)
    assert sizes["float16"] * 2 == sizes["float32"]


def test_the_key_changes_with_everything_that_the_features_depend_on(network, dataset, photo_folder, tmp_path):
    keys = {
        key_of(network, dataset),
        key_of(network, dataset, Views(SIZE, "standard", 4)),
        key_of(network, dataset, Views(SIZE, "standard", 5)),
        key_of(network, dataset, dtype="float16"),
        entry_key(network.prefix, dataset, views=Views(SIZE), dtype="float32", on_bad_image="skip"),
        key_of(freeze(network, "block_relu"), dataset),
    }
    same = key_of(freeze(network, "stem_relu"), dataset)
    assert same in keys
    network.graph.get_layer("block").kernel.assign_add(
        [[[[1e-3]]]] * np.ones_like(network.graph.get_layer("block").kernel)
    )
    assert key_of(network, dataset) == same  # weights behind the boundary do not count
    kernel = network.graph.get_layer("stem").kernel
    kernel.assign(np.nextafter(keras.ops.convert_to_numpy(kernel), np.float32(9)))
    keys.add(key_of(network, dataset))
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", photo_folder, copy], check=True)
    os.utime(next(copy.glob("*/*.png")))
    keys.add(key_of(network, load_dataset(str(copy))))
    assert len(keys) == 8


def test_the_key_does_not_change_with_the_seed_of_training(tiny_backbone, dataset):
    keys = set()
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        network = build_network(build_backbone(str(tiny_backbone)), classes=6, freeze_depth="all")
        assert any(isinstance(layer, keras.layers.Dropout) for layer in network.prefix.layers)
        keys.add(key_of(network, dataset))
    assert len(keys) == 1


def test_the_key_is_the_same_in_another_process(tiny_backbone, photo_folder, network, dataset):
    code = f"""
import keras
from ktl.models.backbones import build_backbone
from ktl.data.loading import load_dataset
from ktl.features.store import Views, entry_key
from ktl.models.classifier import build_network
build_backbone("mobilenet_0.25", weights="random", image_size=32)
network = build_network(build_backbone({str(tiny_backbone)!r}), classes=6, freeze_depth="stem_relu")
dataset = load_dataset({str(photo_folder)!r})
print(entry_key(network.prefix, dataset, views=Views({SIZE}), dtype="float32", on_bad_image="fail"))
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == key_of(network, dataset)


def test_a_killed_pass_leaves_nothing_that_is_read(tiny_backbone, photo_folder, network, dataset, tmp_path):
    code = f"""
import os, signal
from ktl.models.backbones import build_backbone
from ktl.data.loading import load_dataset
from ktl.features.store import FeatureCache, Views
from ktl.models.classifier import build_network
from ktl.data.input_pipeline import PhotoCache
network = build_network(build_backbone({str(tiny_backbone)!r}), classes=6, freeze_depth="stem_relu")
kill = lambda done: os.kill(os.getpid(), signal.SIGKILL)
FeatureCache({str(tmp_path)!r}).build({{{key_of(network, dataset)!r}: network.boundary}}, network.graph.input,
    load_dataset({str(photo_folder)!r}), views=Views({SIZE}), dtype="float32", photo_cache=PhotoCache(memory_gib=0),
    progress=kill)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    cache = FeatureCache(tmp_path)
    assert list(tmp_path.glob(".partial-*"))
    assert cache.load(key_of(network, dataset), dataset) is None
    (key,) = build(cache, network, dataset)
    values = next(iter(cached_evaluation_batches(split_features(cache, key, dataset)["test"], batch_size=99)))[0]
    np.testing.assert_allclose(values, expected_features(network, "stem_relu", dataset.test), rtol=1e-5, atol=1e-6)
    for folder in tmp_path.glob(".partial-*"):
        for file in [*folder.iterdir(), folder]:
            os.utime(file, (0, 0))
    build(cache, network, dataset, depths=["all"])
    assert not list(tmp_path.glob(".partial-*"))


def _build_once(path, backbone, folder, log):
    network = build_network(build_backbone(backbone), classes=6, freeze_depth="stem_relu")
    dataset = load_dataset(folder)
    with open(log, "a") as file:
        build(FeatureCache(path), network, dataset, progress=lambda done: file.write(f"{os.getpid()}\n"))


def test_processes_that_need_the_same_entry_make_it_once(tiny_backbone, photo_folder, tmp_path):
    context = multiprocessing.get_context("spawn")
    arguments = (str(tmp_path / "cache"), str(tiny_backbone), str(photo_folder), str(tmp_path / "log"))
    processes = [context.Process(target=_build_once, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    assert len(set((tmp_path / "log").read_text().split())) == 1


def test_a_full_disk_leaves_nothing_behind(network, dataset, tmp_path):
    def full(done):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        build(FeatureCache(tmp_path), network, dataset, progress=full)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_the_entry_used_longest_ago_gives_way_and_stays_readable_where_it_is_open(network, dataset, tmp_path):
    size = entry_bytes(network.boundary, dataset, Views(SIZE), "float32")
    cache = FeatureCache(tmp_path, limit_gib=2.9 * size / 2**30)  # the third, of two views, takes almost two sizes
    first, second, third = Views(SIZE), Views(SIZE, "standard", 1), Views(SIZE, "standard", 2)
    keys = [build(cache, network, dataset, views=views)[0] for views in (first, second)]
    os.utime(tmp_path / keys[1] / "meta.json", (1, 1))
    opened = split_features(cache, keys[0], dataset)["test"]
    before = opened.read(np.arange(3))
    os.utime(tmp_path / keys[0] / "meta.json", (0, 0))
    build(cache, network, dataset, views=third)
    assert cache.load(keys[0], dataset) is None
    assert cache.load(keys[1], dataset) is not None
    np.testing.assert_array_equal(opened.read(np.arange(3)), before)


@pytest.mark.parametrize("lost", ["meta.json", "train.bin", "test.bin"])
def test_what_is_left_of_an_entry_is_made_anew(network, dataset, tmp_path, lost):
    """A cleaner of caches, or a kill while an entry was removed."""
    cache = FeatureCache(tmp_path)
    (key,) = build(cache, network, dataset)
    (tmp_path / key / lost).unlink()
    assert cache.load(key, dataset) is None
    build(cache, network, dataset)
    values = split_features(cache, key, dataset)["test"].read(np.arange(len(dataset.test)))
    np.testing.assert_allclose(values, expected_features(network, "stem_relu", dataset.test), rtol=1e-5, atol=1e-6)
    assert not list(tmp_path.glob(".partial-*"))


def test_a_kill_while_an_entry_gives_way_leaves_nothing_that_is_read_or_counted_for_ever(network, dataset, tmp_path):
    size = entry_bytes(network.boundary, dataset, Views(SIZE), "float32")
    cache = FeatureCache(tmp_path, limit_gib=1.2 * size / 2**30)
    (key,) = build(cache, network, dataset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *arguments, **settings: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build(cache, network, dataset, dtype="float16")
    assert cache.load(key, dataset) is None
    for path in [path for folder in tmp_path.glob(".partial-*") for path in (*folder.iterdir(), folder)]:
        os.utime(path, (1, 1))
    build(cache, network, dataset)
    assert cache.load(key, dataset) is not None
    assert not list(tmp_path.glob(".partial-*"))


def test_bad_photos_are_remembered_with_the_entry(network, dataset, tmp_path):
    bad = [(dataset.train.photos[0], "cut short")]
    clean = without(dataset, {bad[0][0]})
    cache = FeatureCache(tmp_path)
    key = key_of(network, dataset)
    arguments = {"views": Views(SIZE), "dtype": "float32", "photo_cache": PhotoCache(memory_gib=0.1)}
    cache.build({key: network.boundary}, network.graph.input, clean, bad_photos=bad, **arguments)
    loaded, found, bad_photos = cache.load(key, dataset)
    assert bad_photos == bad
    assert loaded.train.photos == dataset.train.photos[1:]
    assert len(found["train"]) == len(dataset.train) - 1


def test_a_file_that_is_cut_short_is_an_error_and_no_numbers(network, dataset, tmp_path):
    cache = FeatureCache(tmp_path)
    (key,) = build(cache, network, dataset)
    found = split_features(cache, key, dataset)["test"]
    os.truncate(tmp_path / key / "test.bin", found.nbytes - 1)
    with pytest.raises(OSError, match="end of the file"):
        found.read(np.arange(len(found)))


@pytest.mark.parametrize(
    ("asked", "depth", "epochs", "trainings", "views", "limit", "use", "reason"),
    [
        ("off", "all", 30, 1, 1, 1e12, False, "as asked"),
        ("on", "none", 30, 1, 1, 1e12, False, "nothing is frozen"),
        ("auto", "all", 30, 1, 1, 10, False, "more than the limit"),
        ("on", "all", 30, 1, 1, 10, False, "more than the limit"),
        ("auto", "all", 30, 1, 1, 1e12, True, "30.0 times less"),
        ("auto", "all", 8, 1, 4, 1e12, True, "2.0 times less"),
        ("auto", "all", 4, 1, 4, 1e12, False, "would not pay"),
        ("auto", "all", 4, 5, 4, 1e12, True, "5.0 times less"),
        ("on", "all", 4, 1, 4, 1e12, True, "1.0 times less"),
    ],
)
def test_auto_caches_where_it_pays_and_says_why(
    network, dataset, asked, depth, epochs, trainings, views, limit, use, reason
):
    boundary = find_boundary(network.boundaries, depth)
    seen = Views(SIZE, "standard", views)
    arguments = {"views": seen, "dtype": "float32", "epochs": epochs, "trainings": trainings, "limit_bytes": int(limit)}
    found, why = worth_caching(asked, boundary, dataset, **arguments)
    assert (found, reason in why) == (use, True), why


def test_meta_json_has_what_readers_rely_on(network, dataset, tmp_path):
    (key,) = build(FeatureCache(tmp_path), network, dataset, views=Views(SIZE, "standard", 2))
    meta = json.loads((tmp_path / key / "meta.json").read_text())
    assert meta == {
        "shape": list(network.boundary.tensor.shape[1:]),
        "dtype": "float32",
        "views": {"train": 2, "validation": 1, "test": 1},
        "bad_photos": [],
    }
    assert time.time() - (tmp_path / key / "meta.json").stat().st_mtime < 60
