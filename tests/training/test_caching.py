"""What is frozen, computed once: for which boundaries, where it may not be, and what is told of it."""

import dataclasses
import errno
import os

import keras
import numpy as np
import pytest
from support import Listener, as_dataset, one_line
from tiny import CLASSES, inputs_of, make_dataset, make_photos, tiny_classifier

from ktl.data.dataset import Dataset, with_splits
from ktl.data.split import MemorySource
from ktl.errors import UserError
from ktl.features import shards as shards_module
from ktl.features.folder import own_entries, used_bytes
from ktl.studies.design import part_of
from ktl.studies.records import Part
from ktl.training.caching import compute_features
from ktl.training.inputs import make_inputs
from ktl.training.options import Caching, InputOptions

DEPTHS = ("none", "stem_relu", "block_relu", "all")

READING = ("reading photos", 40)
"""Arrays are; files are known by their size and times."""

PASS = [READING, ("checking photos", 40), ("computing frozen layers", 40)]


@pytest.fixture
def classifier(tiny_backbone):
    return tiny_classifier(tiny_backbone)


@pytest.fixture
def inputs_from(tmp_path):
    """A classifier, a data set, options and Caching's -> its inputs, and what was told."""

    def inputs_from(classifier, dataset=None, *, options=None, trainings=1, **caching):
        listener = Listener()
        chosen = options_of(options, **{"folder": tmp_path, **caching})
        dataset = dataset or make_dataset()
        return make_inputs(classifier, dataset, chosen, epochs=5, trainings=trainings, reporter=listener), listener

    return inputs_from


def options_of(options=None, **caching):
    kept = Caching(**{"mode": "on", **caching})
    return InputOptions(
        **{"batch_size": 5, "least_steps": 1, "augmentation": "none", "caching": kept, **(options or {})}
    )


def compute(folder, places, dataset=None, *, epochs=5, trainings=1, options=None, **caching) -> Listener:
    listener = Listener()
    chosen = options_of(options, folder=folder, **caching)
    compute_features(places, dataset or make_dataset(), chosen, epochs=epochs, trainings=trainings, reporter=listener)
    return listener


def entries(folder) -> set[str]:
    return {entry.path.name for entry in own_entries(folder)}


def shards(folder) -> set:
    return set(folder.rglob("*.shard"))


# All boundaries in one pass


def test_one_pass_serves_every_training(classifier, tmp_path, inputs_from):
    """However far the classifier is frozen meanwhile."""
    listener = compute(tmp_path, [(classifier, depth) for depth in DEPTHS])
    assert listener.tasks == PASS
    assert len(entries(tmp_path)) == 3
    for depth in DEPTHS[1:]:
        classifier.freeze(depth)
        inputs, told = inputs_from(classifier)
        assert inputs.cached
        assert told.tasks == [READING]
        values = np.concatenate([x for x, _ in inputs.evaluation_batches(inputs.dataset.test)])
        pixels = as_dataset(inputs_of(classifier).evaluation_batches(inputs.dataset.test))
        np.testing.assert_allclose(values, classifier.prefix.predict(pixels, verbose=0), rtol=1e-5, atol=1e-5)
    assert len(entries(tmp_path)) == 3


def test_seeds_share_the_augmented_views(tiny_backbone, inputs_from):
    found, told = [], []
    for seed in (1, 2):
        classifier = tiny_classifier(tiny_backbone, seed=seed)
        inputs, listener = inputs_from(classifier, options={"augmentation": "standard", "views": 2, "seed": seed})
        found.append(inputs)
        told.append(listener)
    assert told[0].tasks[-1] == ("computing frozen layers", 2 * 20 + 20)
    assert told[1].tasks == [READING]
    first, second = (next(iter(inputs.training_batches(epochs=1)))[0] for inputs in found)
    assert not np.array_equal(first, second), "their order is the seed's"


def test_only_what_is_missing_is_computed(classifier, tmp_path):
    compute(tmp_path, [(classifier, "all")])
    first, written = entries(tmp_path), shards(tmp_path)
    assert compute(tmp_path, [(classifier, "all"), (classifier, "stem_relu")]).tasks == PASS
    assert len(entries(tmp_path) - first) == 1
    assert len(shards(tmp_path) - written) == 1
    assert compute(tmp_path, [(classifier, "stem_relu"), (classifier, "all")]).tasks == [READING]


def test_heads_of_one_backbone_share_what_is_before_a_boundary(tiny_backbone, tmp_path):
    heads = [tiny_classifier(tiny_backbone, head=head) for head in ("kept", "replaced")]
    compute(tmp_path, [(classifier, "block_relu") for classifier in heads])
    assert len(entries(tmp_path)) == 1


def test_where_room_is_short_the_deepest_boundaries_have_it(classifier, tmp_path, inputs_from):
    """Their features are the smallest, and save the most."""
    small = compute(tmp_path / "sizes", [(classifier, "all")])
    assert small.tasks == PASS
    room = used_bytes(tmp_path / "sizes") * 1.5 / 2**30
    compute(tmp_path / "short", [(classifier, depth) for depth in DEPTHS], limit_gib=room)
    assert entries(tmp_path / "short") == entries(tmp_path / "sizes")


def test_nothing_is_computed_that_does_not_pay(classifier, tmp_path):
    settings = {"mode": "auto", "options": {"augmentation": "standard", "views": 9}}
    assert compute(tmp_path, [(classifier, "all")], epochs=1, **settings).tasks == [("checking photos", 40)]
    assert entries(tmp_path) == set()
    assert compute(tmp_path, [(classifier, "all")], epochs=1, trainings=11, **settings).tasks[2][1] == 9 * 20 + 20
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("mode", ["on", "off"])
def test_bad_photos_are_found_before_any_training(classifier, tmp_path, mode):
    """Also where nothing is worth computing: else every trial of a search would fail of it."""
    dataset = make_dataset()
    broken = Dataset.from_arrays(*make_photos(), class_names=CLASSES)
    files = {photo: broken.train.read(place) for place, photo in enumerate(broken.train.photos)}
    files[broken.train.photos[3]] = b"no photo"
    source = MemorySource(files)
    dataset = dataclasses.replace(dataset, train=dataclasses.replace(broken.train, source=source))
    with pytest.raises(UserError, match=r"Received: 1 of \d+ that cannot") as caught:
        compute(tmp_path, [(classifier, "all")], dataset, mode=mode)
    assert broken.train.photos[3] in one_line(caught)
    compute(tmp_path, [(classifier, "all")], dataset, mode=mode, options={"on_bad_image": "skip"})
    assert len(entries(tmp_path)) == (mode == "on")


def test_a_part_finds_the_features_of_its_whole(classifier, tmp_path, inputs_from):
    whole, listener = inputs_from(classifier)
    assert ("computing frozen layers", 40) in listener.tasks
    part = part_of(whole.dataset, Part(0.5), draw=0)
    found, listener = inputs_from(classifier, part)
    assert found.cached
    assert listener.tasks == [READING]
    assert found.dataset is part
    assert len(entries(tmp_path)) == 1


def test_a_part_that_comes_first_has_the_whole_computed(classifier, inputs_from):
    _, listener = inputs_from(classifier, part_of(make_dataset(), Part(0.5), draw=0))
    assert ("computing frozen layers", 40) in listener.tasks
    assert inputs_from(classifier)[1].tasks == [READING]


# What cannot be had


def darker(pixels, generator):
    return (pixels * generator.uniform(0.5, 1)).astype("uint8")


def test_a_function_of_photos_is_not_cached(classifier, tmp_path, inputs_from):
    """Nothing tells whether it does what it did when it was."""
    with pytest.raises(UserError, match=r"where `augmentation` is a function\. Received: on") as caught:
        inputs_from(classifier, options={"augmentation": darker}, mode="on")
    one_line(caught)
    inputs, listener = inputs_from(classifier, options={"augmentation": darker}, mode="auto", trainings=1000)
    assert not inputs.cached
    assert listener.messages == ["cache off: the augmentation is a function"]
    with pytest.raises(UserError, match="is a function"):
        compute(tmp_path, [(classifier, "all")], options={"augmentation": darker})
    assert entries(tmp_path) == set()


def test_a_cache_folder_that_cannot_be_made(classifier, monkeypatch, inputs_from):
    refused = r"^Expected `cache_dir` to be a folder that can be written to. Received: .*/proc"
    with pytest.raises(UserError, match=refused):
        inputs_from(classifier, mode="auto", folder="/proc/ktl")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc")
    with pytest.raises(UserError, match=refused):
        inputs_from(classifier, mode="on", folder=None)
    inputs, listener = inputs_from(classifier, mode="auto", folder=None)
    assert not inputs.cached
    assert any(text.startswith("cache off: [Errno") for text in listener.messages)
    _, listener = inputs_from(classifier, mode="off", folder="/proc/ktl")
    assert listener.messages == ["cache off: as asked"]


def test_a_full_disk_is_told_and_photos_are_seen(classifier, tmp_path, monkeypatch, inputs_from):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shards_module, "write_all", full)
    inputs, listener = inputs_from(classifier)
    assert not inputs.cached
    assert any(text.startswith("cache off: no space left in") for text in listener.messages)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".shard", ".partial", ".claim")]
    compute(tmp_path, [(classifier, "all")])  # nor does a search end of it
    monkeypatch.undo()
    assert inputs_from(classifier)[0].cached


def test_another_error_of_the_disk_is_not_taken_for_a_full_one(classifier, monkeypatch, inputs_from):
    def broken(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(shards_module, "write_all", broken)
    with pytest.raises(OSError, match="Input/output error"):
        inputs_from(classifier)


def test_what_is_in_the_cache_is_used_however_little_more_has_room(classifier, inputs_from):
    """A disk that fills up between two trainings must not change what the second one trains on."""
    inputs_from(classifier)
    inputs, _ = inputs_from(classifier, limit_gib=1e-9)
    assert inputs.cached
    classifier.freeze("all")
    inputs, listener = inputs_from(classifier, limit_gib=1e-9)
    assert not inputs.cached
    assert any(text.startswith("cache off: it would take") for text in listener.messages)


@pytest.mark.parametrize("epochs", [1, 9])
def test_what_is_there_is_told_and_decides_nothing(tiny_backbone, tmp_path, epochs):
    """Four views of each photo pay from five epochs on, whatever else ran before: else its numbers would differ."""
    classifier, dataset = tiny_classifier(tiny_backbone, freeze_depth="all"), make_dataset()
    part = with_splits(dataset, {"train": dataset.train.take(np.arange(12))})
    settings = {"augmentation": "standard", "views": 4, "batch_size": 20}
    decisions = {}
    for folder, mode in (("cold", None), ("warm", "on")):
        if mode:
            make_inputs(classifier, part, options_of(settings, folder=tmp_path / folder), epochs=1)
        listener = Listener()
        options = options_of(settings, folder=tmp_path / folder, mode="auto")
        decisions[folder] = make_inputs(classifier, dataset, options, epochs=epochs, reporter=listener).cached
        (told,) = [text for text in listener.messages if text.startswith("cache ")]
        assert told.endswith("; 32 of 40 photos are there") == (mode is not None and epochs == 9), told
    assert decisions == dict.fromkeys(decisions, epochs == 9)


@pytest.mark.parametrize("depth", ["stem_relu", "all"])
def test_what_is_damaged_is_computed_again_while_it_trains(tiny_backbone, tmp_path, inputs_from, depth):
    """Every file in turn; the first epoch has read the last row before."""
    classifier = tiny_classifier(tiny_backbone, freeze_depth=depth)
    inputs, listener = inputs_from(classifier)
    expected = [x for x, _ in inputs.training_batches(epochs=2)]
    for path in shards(tmp_path):
        content = path.read_bytes()
        path.write_bytes(content[:100] + bytes([content[100] ^ 4]) + content[101:])
    found = [x for x, _ in inputs.training_batches(epochs=2)]
    for values, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(values, wanted)
    assert len([text for text in listener.messages if "was damaged and is removed" in text]) == 1


def test_other_weights_do_not_mend_what_is_damaged(tiny_backbone, tmp_path, inputs_from):
    classifier = tiny_classifier(tiny_backbone)
    inputs, _ = inputs_from(classifier)
    kernel = classifier.get_layer("stem").kernel
    kernel.assign(kernel + 1)
    for path in shards(tmp_path):
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(UserError, match=r"^Expected .* Received: other weights\. Repeat the command$"):
        list(inputs.training_batches(epochs=1))


def test_features_have_half_the_bits_under_mixed_precision(tiny_backbone, float32_policy, inputs_from):
    dtypes = {}
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        inputs, _ = inputs_from(tiny_classifier(tiny_backbone))
        dtypes[policy] = inputs.features["train"].dtype
    assert dtypes == {"float32": "float32", "mixed_bfloat16": "float16"}
