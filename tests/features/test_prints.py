"""What photos are recognised by is remembered: no photo is read again for it, and what is found stays the same."""

import dataclasses

import numpy as np
import pytest
from support import encode, smooth_pixels

from ktl.data.dataset import Dataset
from ktl.data.duplicates import find_duplicates
from ktl.features.prints import RememberedPrints
from ktl.folders import cache_folder

pytestmark = pytest.mark.usefixtures("settled_photos")


@dataclasses.dataclass(frozen=True, eq=False)
class Counting:
    """A source that keeps the names of the photos that are read."""

    source: object
    read_photos: list

    def read(self, photo):
        self.read_photos.append(photo)
        return self.source.read(photo)

    def stamp(self, photo):
        return self.source.stamp(photo)

    def version(self, photo):
        return self.source.version(photo)


@pytest.fixture
def folder(tmp_path):
    """Splits of two classes, with a test photo that is a training photo in another size, and one that is one."""
    for split, seeds in (("train", range(6)), ("validation", range(6, 8)), ("test", range(8, 12))):
        for seed in seeds:
            path = tmp_path / "photos" / split / f"class{seed % 2}" / f"{seed:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(smooth_pixels(64, 64, seed)))
    train, test = tmp_path / "photos" / "train" / "class0", tmp_path / "photos" / "test" / "class0"
    (test / "near.png").write_bytes(encode(smooth_pixels(90, 90, 2)))
    (test / "same.png").write_bytes((train / "04.png").read_bytes())
    (test / "small.png").write_bytes(encode(smooth_pixels(9, 9, 70)))
    (test / "broken.png").write_bytes(b"no photo")
    return tmp_path / "photos"


def find(folder, memory):
    """What is found in a folder or at its URL, and the photos that were read."""
    dataset, read = Dataset.from_directory(folder), []
    splits = {split.name: dataclasses.replace(split, source=Counting(split.source, read)) for split in dataset.splits}
    return find_duplicates(dataclasses.replace(dataset, **splits), memory=memory), sorted(read)


def test_photos_are_read_once(folder, tmp_path):
    expected, everything = find(folder, None)
    assert {found.photo.rpartition("/")[2] for found in expected} == {"near.png", "same.png"}
    (tmp_path / "cache").mkdir()
    assert find(folder, RememberedPrints(tmp_path / "cache")) == (expected, everything)
    broken = ["test/class0/broken.png"]
    assert find(folder, RememberedPrints(tmp_path / "cache")) == (expected, broken)
    changed = folder / "test" / "class0" / "near.png"
    changed.write_bytes(encode(np.zeros((64, 64, 3), np.uint8)))
    found, read = find(folder, RememberedPrints(tmp_path / "cache"))
    assert found == find(folder, None)[0] != expected
    assert read == sorted([*broken, "test/class0/near.png"])


def test_other_versions_of_what_computes_them_know_nothing(folder, tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    find(folder, RememberedPrints(tmp_path / "cache"))
    monkeypatch.setattr("ktl.features.prints.version", lambda name: "another")
    assert len(find(folder, RememberedPrints(tmp_path / "cache"))[1]) == len(find(folder, None)[1])


def test_without_a_folder_nothing_is_remembered(folder, tmp_path):
    told = []
    memory = RememberedPrints(tmp_path / "none", tell=told.append)
    assert find(folder, memory) == find(folder, memory) == find(folder, None)
    assert told == []


@pytest.fixture
def machine(place, tmp_path, monkeypatch):
    """What a machine of that name remembers, with the store at the URL; what it was told."""

    def machine(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        cache_folder().mkdir(parents=True, exist_ok=True)
        told = []
        return RememberedPrints(f"{place.url}/cache", tell=told.append), told

    return machine


def test_machines_learn_from_each_other_what_they_know_of_photos_at_urls(folder, place, machine):
    photos, broken = place.put_folder(folder, "photos"), ["test/class0/broken.png"]
    expected, everything = find(photos, machine("first")[0])
    assert len(everything) == 16
    assert find(photos, machine("second")[0]) == (expected, broken)
    place.put("photos/test/class0/near.png", encode(np.zeros((64, 64, 3), np.uint8)))
    assert find(photos, machine("first")[0])[1] == sorted([*broken, "test/class0/near.png"])
    assert find(photos, machine("second")[0])[1] == broken
    names = place.names("cache/prints/")
    assert len(names) == 2
    for name in names:
        content = place.get(name)
        place.put(name, content[: len(content) // 2])
    memory, told = machine("third")
    assert find(photos, memory)[1] == everything
    assert sorted(told) == [
        f"cache: {place.url}/{name} is damaged; photos are read again for what it had. Remove it"
        for name in sorted(names)
    ]


def test_nothing_is_told_of_files_of_one_machine(folder, place, machine):
    find(folder, machine("first")[0])
    assert place.names("cache/") == []
