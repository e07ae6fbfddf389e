"""The store's folder and its limit; filling, shards and the folder's contents have tests of their own."""

import os
import shutil

import numpy as np
import pytest
from made_up_rows import KEY, ROW_BYTES, entry_of, filled, ids_of, rows_of

from ktl.features.store import Features, FeatureStore

OTHER = KEY[::-1]
IDS = ids_of(range(40))
SHARD_BYTES = 3000
"""More than the size of a shard of IDS, and less than that of two."""


def features_of(entry, ids=IDS, views=1):
    labels = np.arange(len(ids) // views, dtype=np.int32)
    return Features(labels=labels, ids=ids, views=views, entry=entry, mend=lambda: False)


def test_features_are_photos_times_views(tmp_path):
    ids = ids_of(range(10), codes=(1, 3, 5))
    features = features_of(filled(FeatureStore(tmp_path), ids), ids, views=3)
    assert (len(features), features.views, features.nbytes) == (10, 3, 30 * ROW_BYTES)
    assert (features.shape, features.dtype) == ((2, 5), "float32")
    np.testing.assert_array_equal(features.read(np.array([4, 29, 0])), rows_of(ids[[4, 29, 0]]))


def test_what_gives_way_stays_readable_where_it_is_open(tmp_path):
    store = FeatureStore(tmp_path, limit_gib=SHARD_BYTES / 2**30)
    opened = features_of(filled(store, IDS))
    filled(store, IDS, OTHER)
    assert entry_of(store).lacks(IDS).all()
    assert not entry_of(store, OTHER).lacks(IDS).any()
    np.testing.assert_array_equal(opened.read(np.arange(40)), rows_of(IDS))


def test_reading_is_using(tmp_path):
    store = FeatureStore(tmp_path, limit_gib=2 * SHARD_BYTES / 2**30)
    for number, key in enumerate((KEY, OTHER)):
        for shard in filled(store, IDS, key).shards:
            os.utime(shard.path, (number + 1, number + 1))
    store.use(entry_of(store), IDS, of="flowers")
    filled(store, IDS, "a" * 32)
    lacking = [entry_of(store, key).lacks(IDS).any() for key in (KEY, OTHER, "a" * 32)]
    assert lacking == [False, True, False]


def test_what_others_add_is_seen(tmp_path):
    entry = entry_of(FeatureStore(tmp_path))
    assert entry.lacks(IDS).all()
    filled(FeatureStore(tmp_path), IDS[:10])
    entry.refresh()
    assert entry.lacks(IDS).tolist() == [False] * 10 + [True] * 30


def test_the_limit_is_half_of_the_free_disk_if_not_given(tmp_path):
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
