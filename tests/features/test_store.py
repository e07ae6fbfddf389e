"""The store: what was written is read, whole or not at all; what was used longest ago gives way."""

import json
import os
import shutil
import subprocess
import sys
import time

import filelock
import numpy as np
import pytest

from ktl.data.dataset import without
from ktl.errors import UserError
from ktl.features.store import FILES, FeatureStore
from ktl.studies.design import part_of
from ktl.studies.records import Part

SHAPE = (2, 5)


def rows_of(dataset, views, seed):
    """Made-up features, float32 [photos * views, *SHAPE] of each split."""
    generator = np.random.default_rng(seed)
    counts = {split.name: len(split) * (views if split.name == "train" else 1) for split in dataset.splits}
    return {name: generator.normal(size=(count, *SHAPE)).astype("float32") for name, count in counts.items()}


def size_of(dataset, views=1):
    return sum(values.nbytes for values in rows_of(dataset, views, 0).values())


def write(store, dataset, *keys, views=1, bad_photos=(), **arguments) -> dict:
    """Writes an entry for each key; the rows of the last one."""
    with store.writing(dict.fromkeys(keys, size_of(dataset, views)), **arguments) as writers:
        for key in keys:
            rows = rows_of(dataset, views, seed=len(key))
            if key not in writers:
                continue
            for split in dataset.splits:
                with writers[key].split(split.name) as write_some:
                    for part in np.array_split(np.random.default_rng(0).permutation(len(rows[split.name])), 3):
                        write_some(part, rows[split.name][part])
            counts = {split.name: views if split.name == "train" else 1 for split in dataset.splits}
            writers[key].finish(shape=SHAPE, dtype="float32", views=counts, bad_photos=bad_photos)
    return rows


def everything(features):
    return features.read(np.arange(len(features) * features.views))


def partial_folders(store):
    return list(store.folder.glob(".partial-*"))


def make_old(paths):
    """As if last written to long ago."""
    for path in paths:
        for each in (*path.iterdir(), path):
            os.utime(each, (1, 1))


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


def test_what_was_written_is_read(store, dataset):
    assert store.load("a", dataset) is None
    assert not store.has("a")
    rows = write(store, dataset, "a", views=2)
    assert store.has("a")
    entry = store.load("a", dataset)
    assert (entry.dataset, entry.bad_photos) == (dataset, ())
    for split in dataset.splits:
        features = entry.features[split.name]
        np.testing.assert_array_equal(everything(features), rows[split.name])
        np.testing.assert_array_equal(features.labels, split.labels)
        assert (len(features), features.shape, features.dtype) == (len(split), SHAPE, "float32")
        assert features.nbytes == rows[split.name].nbytes
    assert not partial_folders(store)


def test_what_is_there_has_no_writer(store, dataset):
    write(store, dataset, "a")
    with store.writing({"a": 1, "b": 1}) as writers:
        assert list(writers) == ["b"]
        for split in dataset.splits:
            with writers["b"].split(split.name):
                pass
        writers["b"].finish(shape=SHAPE, dtype="float32", views={}, bad_photos=())
    assert store.has("b")


def test_a_part_reads_the_features_of_its_whole(store, dataset):
    part = part_of(dataset, Part(0.5), draw=0)
    assert 0 < len(part.train) < len(dataset.train)
    rows = write(store, dataset, "a", views=2)["train"].reshape(-1, 2, *SHAPE)
    entry = store.load("a", part)
    assert entry.dataset is part
    np.testing.assert_array_equal(entry.features["train"].labels, part.train.labels)
    for place, photo in enumerate(part.train.photos):
        found = entry.features["train"].read(2 * place + np.arange(2))
        np.testing.assert_array_equal(found, rows[dataset.train.photos.index(photo)])


def test_a_part_reads_the_features_of_its_whole_without_the_bad_photos(store, dataset):
    part = part_of(dataset, Part(0.5), draw=0)
    left_out = {part.train.photos[0], dataset.train.photos[0]}
    clean = without(dataset, left_out)
    rows = write(store, clean, "a", bad_photos=[(photo, "broken") for photo in sorted(left_out)])["train"]
    entry = store.load("a", part)
    assert entry.bad_photos == tuple((photo, "broken") for photo in sorted(left_out))
    assert set(entry.dataset.train.photos) == set(part.train.photos) - left_out
    places = [clean.train.photos.index(photo) for photo in entry.dataset.train.photos]
    np.testing.assert_array_equal(everything(entry.features["train"]), rows[places])


def test_bad_photos_are_remembered_with_the_entry(store, dataset):
    bad = (dataset.train.photos[0], "cut short")
    rows = write(store, without(dataset, {bad[0]}), "a", bad_photos=[bad])
    entry = store.load("a", dataset)
    assert entry.bad_photos == (bad,)
    assert entry.dataset.train.photos == dataset.train.photos[1:]
    assert len(entry.features["train"]) == len(dataset.train) - 1
    np.testing.assert_array_equal(everything(entry.features["train"]), rows["train"])


def test_meta_json_has_what_readers_rely_on(store, dataset):
    write(store, dataset, "a", views=2)
    meta = json.loads((store.folder / "a" / "meta.json").read_text())
    assert meta == {
        "format_version": 1,
        "shape": list(SHAPE),
        "dtype": "float32",
        "views": {"train": 2, "validation": 1, "test": 1},
        "bad_photos": [],
    }
    assert time.time() - (store.folder / "a" / "meta.json").stat().st_mtime < 60
    assert sorted(os.listdir(store.folder / "a")) == sorted(FILES)


def test_an_entry_of_a_later_version_is_refused_in_one_line(store, dataset):
    write(store, dataset, "a")
    path = store.folder / "a" / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(UserError, match=r"^Expected format_version 1 or below. Received: 2 in .*meta\.json"):
        store.load("a", dataset)


# Room


def test_the_entry_used_longest_ago_gives_way_and_stays_readable_where_it_is_open(tmp_path, dataset):
    size = size_of(dataset)
    store = FeatureStore(tmp_path, limit_gib=2.9 * size / 2**30)  # the third, of two views, takes almost two sizes
    rows = write(store, dataset, "a")
    write(store, dataset, "bb")
    os.utime(tmp_path / "bb" / "meta.json", (1, 1))
    opened = store.load("a", dataset).features["test"]
    os.utime(tmp_path / "a" / "meta.json", (0, 0))
    write(store, dataset, "ccc", views=2)
    assert store.load("a", dataset) is None
    assert store.load("bb", dataset) is not None
    np.testing.assert_array_equal(everything(opened), rows["test"])


def test_reading_an_entry_is_using_it(tmp_path, dataset):
    store = FeatureStore(tmp_path, limit_gib=2.5 * size_of(dataset) / 2**30)
    for key in ("a", "bb"):
        write(store, dataset, key)
        os.utime(tmp_path / key / "meta.json", (len(key), len(key)))
    store.load("a", dataset)
    write(store, dataset, "ccc")
    assert [store.has(key) for key in ("a", "bb", "ccc")] == [True, False, True]


def test_the_limit_is_half_of_the_free_disk_if_not_given(tmp_path, dataset):
    limit = FeatureStore(tmp_path).limit_bytes
    assert limit == pytest.approx(shutil.disk_usage(tmp_path).free / 2, rel=0.05)
    assert FeatureStore(tmp_path, limit_gib=0.5).limit_bytes == 2**29


def test_a_folder_that_cannot_be_had_is_an_error():
    with pytest.raises(OSError, match=r"/proc"):
        FeatureStore("/proc/ktl")


def test_the_folder_is_the_user_s_cache_folder_if_not_given(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert FeatureStore().folder == tmp_path / "ktl"
    assert (tmp_path / "ktl").is_dir()


# Errors, kills, other processes


@pytest.mark.parametrize("lost", FILES)
def test_what_is_left_of_an_entry_is_made_anew(store, dataset, lost):
    """A cleaner of caches, or a kill while an entry was removed."""
    rows = write(store, dataset, "a")
    (store.folder / "a" / lost).unlink()
    assert not store.has("a")
    assert store.load("a", dataset) is None
    write(store, dataset, "a")
    np.testing.assert_array_equal(everything(store.load("a", dataset).features["test"]), rows["test"])
    assert not partial_folders(store)


def test_an_error_while_writing_leaves_nothing(store, dataset):
    def write_a_little():
        with store.writing({"a": 1, "b": 1}) as writers, writers["a"].split("train") as write_some:
            write_some(np.arange(1), np.zeros((1, 3)))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_a_little()
    assert not [path for path in store.folder.iterdir() if path.is_dir()]
    write(store, dataset, "a")  # no lock is held
    assert store.has("a")


def test_what_killed_passes_left_goes_after_an_hour(store, dataset):
    for name in (".partial-old", ".partial-new"):
        (store.folder / name).mkdir()
        (store.folder / name / "train.bin").write_bytes(b"half")
    make_old([store.folder / ".partial-old"])
    write(store, dataset, "a")
    assert [path.name for path in partial_folders(store)] == [".partial-new"]


def test_a_kill_while_an_entry_gives_way_leaves_nothing_that_is_read_or_counted_for_ever(tmp_path, dataset):
    store = FeatureStore(tmp_path, limit_gib=1.2 * size_of(dataset) / 2**30)
    write(store, dataset, "a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *arguments, **settings: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write(store, dataset, "bb")
    assert store.load("a", dataset) is None
    make_old([path for folder in partial_folders(store) for path in (*folder.iterdir(), folder) if path.is_dir()])
    write(store, dataset, "a")
    assert store.load("a", dataset) is not None
    assert not partial_folders(store)


def test_a_file_that_is_cut_short_is_an_error_and_no_numbers(store, dataset):
    write(store, dataset, "a")
    found = store.load("a", dataset).features["test"]
    os.truncate(store.folder / "a" / "test.bin", found.nbytes - 1)
    with pytest.raises(OSError, match="the end of"):
        everything(found)


def test_who_waits_for_another_process_is_told_once_and_finds_what_it_wrote(store, dataset):
    code = f"""
import filelock, sys
with filelock.FileLock({str(store.folder / "a.lock")!r}):
    print("locked", flush=True)
    sys.stdin.readline()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        assert other.stdout.readline() == "locked\n"
        told = []

        def waiting():
            told.append("waiting")
            other.communicate("go on\n")

        write(store, dataset, "a", waiting=waiting)
    assert told == ["waiting"]
    assert store.has("a")
    with filelock.FileLock(store.folder / "a.lock", blocking=False):
        pass
