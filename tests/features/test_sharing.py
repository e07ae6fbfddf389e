"""Rows that one machine computes are those that another one reads, through shards at a URL; each with its own disk."""

import threading

import numpy as np
import pytest
from made_up_rows import KEY, ROW_BYTES, compute, entry_of, filled, ids_of, rows_of

from ktl.errors import UserError
from ktl.features import rows, shards_at
from ktl.features.filling import working_bytes
from ktl.features.shards import ID
from ktl.features.sharing import Sharing, fetch
from ktl.features.store import Features, FeatureStore
from ktl.remote import read_parts

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


def features_of(entry, ids=IDS, *, mend=lambda: False):
    return Features(labels=np.zeros(len(ids), np.int32), ids=ids, views=1, entry=entry, mend=mend)


def read(store, entry, ids=IDS):
    fetch(store, entry, ids)
    return features_of(entry, ids).read(np.arange(len(ids)))


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


@pytest.mark.parametrize("part", [0, 0.35, 0.5, 1])
def test_what_has_no_room_here_is_read_there(machine, place, part):
    filled(machine("first")[0], IDS, shard_rows=SHARD_ROWS)
    second, told = machine("second", limit_gib=part * 100 * ROW_BYTES / 2**30)
    entry = entry_of(second)
    np.testing.assert_array_equal(read(second, entry), rows_of(IDS))
    assert len(on_disk(second)) == int(10 * part)
    features = features_of(entry)
    assert features.at_url == (part < 1)
    chosen = np.random.default_rng(3).integers(len(IDS), size=60)  # some of them twice
    np.testing.assert_array_equal(features.read(chosen), rows_of(IDS[chosen]))
    assert features.read(np.empty(0, int)).shape == (0, *rows_of(IDS).shape[1:])
    assert told == []


def test_rows_in_order_are_read_as_one_part_of_each_file(machine, monkeypatch):
    filled(machine("first")[0], IDS, shard_rows=SHARD_ROWS)
    asked = []

    def counting(parts):
        asked.append(len(parts))
        return read_parts(parts)

    monkeypatch.setattr(shards_at, "read_parts", counting)
    features = features_of(entry_of(machine("second", limit_gib=0)[0]))
    features.read(np.arange(len(IDS)))
    features.read(np.arange(0, len(IDS), 2))
    features.read(np.array([7, 7, 7]))
    assert asked == [10, 50, 1]


@pytest.mark.parametrize("damage", ["a changed byte", "a missing end", "no file"])
def test_what_is_damaged_or_gone_there_while_it_is_read_is_computed_again(machine, place, damage):
    filled(machine("first")[0], IDS, shard_rows=SHARD_ROWS)
    second, told = machine("second", limit_gib=50 * ROW_BYTES / 2**30)
    entry = entry_of(second)
    fetch(second, entry, IDS)

    def mend():
        filled(second, IDS, compute=counting)
        return True

    computed = []

    def counting(entries, ids):
        computed.extend(ids)
        return compute(entries, ids)

    features = features_of(entry, mend=mend)
    lost = next(name for name in shards(place) if name.rpartition("/")[2] not in on_disk(second))
    content = place.get(lost)
    if damage == "no file":
        place.delete(lost)
    else:
        place.put(
            lost, content[: 3 * ROW_BYTES] if damage == "a missing end" else bytes([content[0] ^ 1]) + content[1:]
        )
    np.testing.assert_array_equal(features.read(np.arange(len(IDS))), rows_of(IDS))
    assert len(computed) == 10
    what = "is gone; its photos are computed again" if damage == "no file" else "is damaged; its photos are computed"
    assert [line for line in told if line.startswith(f"cache: {place.url}/{lost} {what}")] == told != []
    assert not entry_of(machine("third")[0]).lacks(IDS).any()


def test_more_is_computed_than_has_room_here(machine, place, monkeypatch):
    """At most three files of 400 bytes are here at a time, of ten; `first` shows what is here after each."""
    limit = working_bytes([ROW_BYTES], shard_rows=SHARD_ROWS)
    assert limit == 3 * SHARD_ROWS * ROW_BYTES
    first, told = machine("first", limit_gib=limit / 2**30)
    here = []

    def watched(entries, ids):
        here.append(len(on_disk(first)))
        yield from compute(entries, ids)

    entry = filled(first, IDS, compute=watched, shard_rows=SHARD_ROWS)
    assert len(here) == len(shards(place)) == 10
    assert max(here) <= 2
    assert not entry.lacks(IDS).any()
    np.testing.assert_array_equal(read(first, entry), rows_of(IDS))
    assert len(on_disk(first)) == 3
    assert told == []


def test_what_gave_way_here_is_read_there(machine, monkeypatch):
    monkeypatch.setattr(rows, "MOST_OPEN", 2)  # what is open stays readable
    filled(machine("first")[0], IDS, shard_rows=SHARD_ROWS)
    second, told = machine("second")
    entry = entry_of(second)
    fetch(second, entry, IDS)
    features = features_of(entry, mend=never)
    for path in list(entry.folder.glob("*.shard")):
        path.unlink()
    np.testing.assert_array_equal(features.read(np.arange(len(IDS))), rows_of(IDS))
    assert features.at_url
    assert told == []


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
