"""The cache folder: ktl's own things are known, counted and removed, and nothing else ever is."""

import json
import os
import shutil

import pytest
from made_up_rows import KEY, entry_of, filled, ids_of

from ktl.data.split import FileVersion
from ktl.errors import UserError
from ktl.features import folder as folders
from ktl.features.digests import SIDE_FILES, DigestMemory
from ktl.features.store import FeatureStore
from ktl.files import read_json

OTHER = KEY[::-1]


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "cache")


def old_entry(folder, name="f" * 32, files=folders.OLD_FILES):
    """An entry of version 0.1."""
    (folder / name).mkdir()
    for file in files:
        (folder / name / file).write_bytes(b"0" * 1000)
    return folder / name


def shards(store) -> list:
    """From the one used longest ago."""
    found = [shard for entry in folders.own_entries(store.folder) for shard in entry.shards]
    return [shard.path for shard in sorted(found, key=lambda shard: shard.used)]


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_entries_have_a_mark_and_say_what_they_are(store):
    filled(store, ids_of(range(30)), shard_rows=20)
    (entry,) = folders.own_entries(store.folder)
    assert entry.path.name == KEY
    assert read_json(entry.path / "entry.json") == {
        "made_by": folders.MARK,
        "layers": "made_up",
        "shape": [2, 5],
        "dtype": "float32",
    }
    assert len(entry.shards) == 2
    assert entry.size == folders.used_bytes(store.folder) == sum(path.stat().st_size for path in shards(store))


def foreign_things(folder):
    """What somebody else may have in a folder that he names as the cache's."""
    (folder / "thesis").mkdir()
    for name in ("chapters.docx", "meta.json", "data.bin", f"{KEY}.shard"):
        (folder / "thesis" / name).write_bytes(b"mine" * 500)
    named = folder / ("a" * 32)  # such as a folder of checksums, without the mark
    named.mkdir()
    (named / f"{KEY}.shard").write_bytes(b"mine")
    marked = folder / ("c" * 32)  # with a mark of another program
    marked.mkdir()
    (marked / "entry.json").write_text('{"made_by": "somebody"}')
    (marked / f"{KEY}.shard").write_bytes(b"mine")
    (folder / f"{KEY}.shard").write_bytes(b"mine")
    old_entry(folder, "b" * 32, files=(*folders.OLD_FILES, "notes.txt"))
    old_entry(folder, "not-a-key")
    (folder / KEY / "notes.txt").write_bytes(b"mine")
    return snapshot(folder)


@pytest.mark.parametrize("remove", ["clear", "make_room"])
def test_what_ktl_did_not_make_stays(store, remove):
    filled(store, ids_of(range(30)))
    foreign_things(store.folder)
    for path in shards(store):
        path.unlink()
    (store.folder / KEY / "entry.json").unlink()
    before = snapshot(store.folder)
    filled(store, ids_of(range(30)))
    if remove == "clear":
        folders.clear(store.folder)
    else:
        folders.make_room(store.folder, size=10**9, limit=1)
    assert shards(store) == []
    after = snapshot(store.folder)
    after.pop(store.folder / KEY / "entry.json", None)
    assert after == before


@pytest.mark.parametrize("remove", ["clear", "make_room"])
def test_no_link_is_followed(store, tmp_path, remove):
    filled(store, ids_of(range(30)))
    shutil.copytree(store.folder, tmp_path / "elsewhere")
    before = snapshot(tmp_path / "elsewhere")
    (store.folder / OTHER).symlink_to(tmp_path / "elsewhere" / KEY)
    inside = store.folder / KEY / f"{OTHER}.shard"
    inside.symlink_to(next((tmp_path / "elsewhere" / KEY).glob("*.shard")))
    size = folders.used_bytes(store.folder)
    assert size == sum(path.stat().st_size for path in shards(store))
    if remove == "clear":
        assert folders.clear(store.folder) == size
    else:
        folders.make_room(store.folder, size=10**9, limit=1)
    assert snapshot(tmp_path / "elsewhere") == before
    assert inside.is_symlink()
    with pytest.raises(UserError, match=r"Received: .*" + OTHER):
        filled(store, ids_of(range(30)), OTHER)
    assert snapshot(tmp_path / "elsewhere") == before


@pytest.mark.parametrize("name", [".claims/plan.lock", *(f"digests.sqlite{end}" for end in SIDE_FILES)])
def test_nothing_is_written_to_a_file_that_has_another_name_too(tmp_path, name):
    told, version = [], FileVersion("a", "b", 0)
    FeatureStore(tmp_path / "cache")
    DigestMemory(tmp_path / "cache").keep({version: b"c" * 16})
    (tmp_path / "mine").write_bytes(b"mine" * 1000)
    (tmp_path / "cache" / name).unlink(missing_ok=True)
    (tmp_path / "cache" / name).hardlink_to(tmp_path / "mine")
    FeatureStore(tmp_path / "cache")
    memory = DigestMemory(tmp_path / "cache", tell=told.append)
    memory.keep({version: b"d" * 16})
    memory.find([version])
    assert (tmp_path / "mine").read_bytes() == b"mine" * 1000
    assert all("is no file of ktl's" in line for line in told)


@pytest.mark.parametrize("name", [".claims", ".claims/plan.lock", "digests.sqlite"])
def test_nothing_is_written_through_a_link(tmp_path, name):
    target = tmp_path / "mine"
    target.mkdir() if name == ".claims" else target.write_bytes(b"mine")
    link = tmp_path / "cache" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    if name == "digests.sqlite":
        told = []
        DigestMemory(tmp_path / "cache", tell=told.append).keep({FileVersion("a", "b", 0): b"c"})
        assert "is no file of ktl's" in told[0]
    else:
        with pytest.raises(UserError, match=r"Received: .*" + name):
            FeatureStore(tmp_path / "cache")
    assert list(target.iterdir()) == [] if target.is_dir() else target.read_bytes() == b"mine"


def test_the_shards_used_longest_ago_give_way_and_as_few_as_can_be(store):
    for start in range(0, 50, 10):
        filled(store, ids_of(range(start, start + 10)))
    paths = [shard.path for entry in folders.own_entries(store.folder) for shard in entry.shards]
    for age, path in enumerate(paths):
        os.utime(path, (age, age))
    used = folders.used_bytes(store.folder)
    folders.make_room(store.folder, size=paths[0].stat().st_size * 2 - 1, limit=used)
    assert shards(store) == paths[2:]
    folders.make_room(store.folder, size=0, limit=used)
    assert shards(store) == paths[2:]
    folders.make_room(store.folder, size=10**9, limit=used, keep=paths[3:4])
    assert shards(store) == paths[3:4]


def test_entries_of_version_0_1_go_first_and_only_for_room(store):
    old, half = old_entry(store.folder), old_entry(store.folder, ".partial-abcd_123", files=("train.bin",))
    filled(store, ids_of(range(30)))
    used = folders.used_bytes(store.folder)
    assert used == 5000 + sum(path.stat().st_size for path in shards(store))
    folders.make_room(store.folder, size=0, limit=used)
    assert old.exists()
    folders.make_room(store.folder, size=4500, limit=used)
    assert not old.exists()
    assert not half.exists()
    assert len(shards(store)) == 1


def test_clearing_takes_what_is_named(store):
    filled(store, ids_of(range(30)), KEY, OTHER)
    sizes = {entry.path.name: entry.size for entry in folders.own_entries(store.folder)}
    assert folders.clear(store.folder, [OTHER]) == sizes[OTHER]
    assert [entry.path.name for entry in folders.own_entries(store.folder)] == [KEY]
    assert folders.clear(store.folder) == sizes[KEY]
    assert not (store.folder / KEY).exists()


DAMAGED = {
    "empty": "",
    "no mark": "{}",
    "a list": "[]",
    "no text": "\0" * 40,
    "cut": '{"made_by": "ktl',
    "deep": '{"a":' * 100_000,
    "a number of data sets": json.dumps({"made_by": folders.MARK, "datasets": 5}),
    "data sets without names": json.dumps({"made_by": folders.MARK, "datasets": [{}]}),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_mark_is_mended_when_the_entry_is_used(tmp_path, damage):
    told = []
    store = FeatureStore(tmp_path, tell=told.append)
    ids = ids_of(range(30))
    entry = filled(store, ids)
    (tmp_path / KEY / "entry.json").write_text(DAMAGED[damage])
    assert folders.own_entries(tmp_path) == []
    store.use(entry, ids, of="flowers")
    assert [text.endswith("had a damaged entry.json, which is mended") for text in told] == [True]
    assert folders.own_entries(tmp_path)[0].about["datasets"] == ["flowers"]


def test_uses_are_noted_once_each_and_count_as_used_now(store):
    ids = ids_of(range(30))
    entry = filled(store, ids, shard_rows=10)
    for path in shards(store):
        os.utime(path, (1, 1))
    for dataset in ("flowers", "dogs", "flowers"):
        store.use(entry, ids[:10], of=dataset)
    assert folders.own_entries(store.folder)[0].about["datasets"] == ["flowers", "dogs"]
    assert sorted(path.stat().st_mtime == 1 for path in shards(store)) == [False, True, True]
    assert not entry_of(store).lacks(ids).any()
