"""Rows that one machine computes are those that another one reads, through shards at a URL; each with its own disk."""

import threading

import numpy as np
import pytest
from made_up_rows import KEY, ROW_BYTES, compute, entry_of, filled, ids_of, rows_of

from ktl.errors import UserError
from ktl.features import shards_at
from ktl.features.shards import ID
from ktl.features.sharing import Sharing, fetch
from ktl.features.store import Features, FeatureStore

IDS = ids_of(range(100))
SHARD_ROWS = 10
OTHER = KEY[::-1]


@pytest.fixture
def machine(place, tmp_path, monkeypatch):
    """The store at the URL, as a machine of that name sees it; what it was told."""
    monkeypatch.setattr(shards_at, "LIST_SECONDS", 0.0)

    def machine(name, **limits):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        told = []
        return FeatureStore(f"{place.url}/cache", tell=told.append, **limits), told

    return machine


def read(store, entry, ids=IDS):
    fetch(store, entry, ids)
    labels = np.zeros(len(ids), np.int32)
    return Features(labels=labels, ids=ids, views=1, entry=entry, mend=lambda: False).read(np.arange(len(ids)))


def never(entries, ids):
    raise AssertionError(ids)


def shards(place, key=KEY):
    return [name for name in place.names(f"cache/{key}/") if name.endswith(".shard")]


def on_disk(store):
    return sorted(path.name for path in store.folder.glob("*/*.shard"))


def test_what_one_has_computed_another_reads(machine, place):
    first, _ = machine("first")
    filled(first, IDS, shard_rows=SHARD_ROWS)
    assert len(shards(place)) == 10
    assert f"cache/{KEY}/entry.json" in place.names()
    second, told = machine("second")
    entry = entry_of(second)
    assert not entry.lacks(IDS).any()
    assert entry.away(IDS).all()
    filled(second, IDS, compute=never)
    assert on_disk(second) == []
    came = []
    fetch(second, entry, IDS[:15], progress=came.append)
    assert (len(on_disk(second)), came[-1]) == (2, 15)
    np.testing.assert_array_equal(read(second, entry), rows_of(IDS))
    assert on_disk(second) == on_disk(first)
    assert told == []
    assert sorted(path.suffix for path in entry.folder.iterdir()) == [".json", *[".shard"] * 10]


def test_each_computes_what_is_nowhere(machine, place):
    filled(machine("first")[0], IDS[:50], shard_rows=SHARD_ROWS)
    second, _ = machine("second")
    asked = []

    def counting(entries, ids):
        asked.extend(ids)
        return compute(entries, ids)

    entry = filled(second, IDS, compute=counting, shard_rows=SHARD_ROWS)
    assert sorted(asked) == sorted(IDS[50:])
    assert len(shards(place)) == 10
    np.testing.assert_array_equal(read(second, entry), rows_of(IDS))


def test_what_this_disk_has_and_the_url_lacks_is_copied_there(machine, place):
    first, _ = machine("first")
    entry = filled(first, IDS, shard_rows=SHARD_ROWS)
    for name in shards(place)[:4]:
        place.delete(name)
    entry.refresh()
    assert not entry.lacks(IDS).any()
    with Sharing() as sharing:
        sharing.written([entry])
    assert len(shards(place)) == 10
    np.testing.assert_array_equal(read(machine("second")[0], entry_of(machine("second")[0])), rows_of(IDS))


@pytest.mark.parametrize("byte", [0, 3 * ROW_BYTES + 1, -60, -1])
def test_a_damaged_shard_is_told_of_and_its_rows_are_computed_again(machine, place, byte):
    filled(machine("first")[0], IDS, shard_rows=SHARD_ROWS)
    damaged = shards(place)[3]
    content = bytearray(place.get(damaged))
    content[byte] ^= 1
    place.put(damaged, bytes(content))
    second, told = machine("second")
    entry = entry_of(second)
    fetch(second, entry, IDS)
    assert told == [f"cache: {place.url}/{damaged} is damaged; its photos are computed again. Remove it"]
    assert entry.lacks(IDS).sum() == 10
    assert len(on_disk(second)) == 9
    filled(second, IDS)
    np.testing.assert_array_equal(read(second, entry), rows_of(IDS))
    assert place.get(damaged) == bytes(content)
    assert len(shards(place)) == 11


def test_the_disk_s_limit_holds(machine, place):
    first, _ = machine("first")
    for key in (KEY, OTHER):
        filled(first, IDS, key, shard_rows=SHARD_ROWS)
    needed = 100 * ROW_BYTES / 2**30
    second, _ = machine("second", limit_gib=1.5 * needed)
    np.testing.assert_array_equal(read(second, entry_of(second, KEY)), rows_of(IDS))
    np.testing.assert_array_equal(read(second, entry_of(second, OTHER)), rows_of(IDS, OTHER))
    names = {path.parent.name for path in second.folder.glob("*/*.shard")}
    assert OTHER in names
    assert len(on_disk(second)) < 20
    np.testing.assert_array_equal(read(second, entry_of(second, KEY)), rows_of(IDS))
    third, _ = machine("third", limit_gib=0.5 * needed)
    with pytest.raises(UserError, match=r"^Expected `cache_limit` of 0\.\d+ GiB or more, which the files at .*/cache"):
        fetch(third, entry_of(third), IDS)


def test_several_at_once_copy_each_shard_once(machine, place):
    filled(machine("first")[0], IDS, shard_rows=SHARD_ROWS)
    stores = [machine("second")[0] for _ in range(3)]
    entries = [entry_of(store) for store in stores]
    threads = [threading.Thread(target=fetch, args=(*pair, IDS)) for pair in zip(stores, entries, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for store, entry in zip(stores, entries, strict=True):
        np.testing.assert_array_equal(read(store, entry), rows_of(IDS))
    assert len(on_disk(stores[0])) == 10
    assert not list(stores[0].folder.glob("*/*.partial"))


def test_a_link_in_the_place_of_an_entry_is_refused(machine, tmp_path):
    filled(machine("first")[0], IDS, shard_rows=SHARD_ROWS)
    second, _ = machine("second")
    (tmp_path / "elsewhere").mkdir()
    for name in on_disk(machine("first")[0]):
        (tmp_path / "elsewhere" / name).touch()
    (second.folder / KEY).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"^Expected `cache_dir` to have a folder"):
        fetch(second, entry_of(second), IDS)


def test_nothing_there_is_nothing_to_fetch(machine):
    store, _ = machine("first")
    entry = entry_of(store)
    fetch(store, entry, IDS)
    fetch(store, entry, np.empty(0, ID))
    assert entry.lacks(IDS).all()


def test_a_url_that_cannot_be_written_to_is_refused():
    with pytest.raises(UserError, match=r"^Expected `cache_dir` as a folder, or a URL that files can be written to"):
        FeatureStore("https://example.org/cache")
