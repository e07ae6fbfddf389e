"""Digests of photos are remembered by their files, and never those of other bytes."""

import os
import shutil
import sqlite3
import time

import numpy as np
import pytest
from support import plain_photo, write_classes

from ktl.data.dataset import Dataset
from ktl.data.digest import photo_digest
from ktl.data.split import FileVersion, MemorySource, Split
from ktl.features import digests as digests_module
from ktl.features.digests import MEMORY_FILE, DigestMemory, digests_of

pytestmark = pytest.mark.usefixtures("settled_photos")


@pytest.fixture
def photos(tmp_path):
    return write_classes(tmp_path / "photos", {"ash": 20, "birch": 20})


@pytest.fixture
def find(tmp_path):
    """A data set -> the digests, how many photos were read for them, what was told."""
    (tmp_path / "cache").mkdir()

    def find(dataset):
        told, read = [], []
        memory = DigestMemory(tmp_path / "cache", tell=told.append)

        def reading(total):
            read.append(total)
            return digests_module.contextlib.nullcontext(lambda done: None)

        found = digests_of(dataset.splits, memory, reading=reading)
        assert found == expected(dataset)
        return sum(read), told

    return find


def expected(dataset):
    return {photo: photo_digest(split.source.read(photo)) for split in dataset.splits for photo in split.photos}


def listed(photos):
    return Dataset.from_directory(photos)


def test_photos_are_read_once(photos, find):
    assert find(listed(photos)) == (40, [])
    assert find(listed(photos)) == (0, [])


def test_photos_in_a_folder_whose_name_is_not_utf_8_are_read_once(photos, find):
    renamed = photos.rename(photos.with_name(os.fsdecode(b"caf\xe9")))
    other = shutil.copytree(renamed, photos.with_name(os.fsdecode(b"caf\xe8")), copy_function=write_reversed)
    for folder in (renamed, other):
        assert find(listed(folder)) == (40, [])
    for folder in (renamed, other):
        assert find(listed(folder)) == (0, [])


def write_reversed(source, target):
    with open(source, "rb") as file, open(target, "wb") as copy:
        copy.write(file.read()[::-1])


def test_a_changed_file_is_read_again_whatever_its_time_and_size_say(photos, find):
    find(listed(photos))
    path = photos / "ash" / "000.png"
    before = path.stat()
    path.write_bytes(bytes(reversed(path.read_bytes())))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert find(listed(photos)) == (1, [])
    shutil.copy2(photos / "birch" / "003.png", path)
    assert find(listed(photos)) == (1, [])


def test_photos_at_urls_are_read_once_and_again_where_they_have_changed(photos, place, find):
    url = place.put_folder(photos, "photos")
    assert find(listed(url)) == (40, [])
    assert find(listed(url)) == (0, [])
    place.put("photos/ash/000.png", plain_photo(99))
    assert find(listed(url)) == (1, [])


def test_a_file_that_may_still_change_is_not_remembered(photos, find, monkeypatch):
    monkeypatch.setattr(digests_module, "UNSETTLED_NS", 2 * 10**9)
    now = time.time_ns()
    monkeypatch.setattr(digests_module.time, "time_ns", lambda: now)
    assert find(listed(photos))[0] == 40
    assert find(listed(photos))[0] == 40
    monkeypatch.setattr(digests_module.time, "time_ns", lambda: now + 10**11)
    assert find(listed(photos))[0] == 40
    assert find(listed(photos))[0] == 0


def test_photos_in_memory_are_read_each_time(find):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 9, 9, 3), np.uint8)
    dataset = Dataset.from_arrays(pixels, np.arange(20) % 2)
    assert [find(dataset)[0] for _ in range(2)] == [20, 20]


def test_a_photo_that_cannot_be_read_has_none(tmp_path):
    class Broken(MemorySource):
        def read(self, photo):
            if photo == "b":
                raise OSError("gone")
            return super().read(photo)

    split = Split("train", ("a", "b"), np.zeros(2, np.int32), Broken({"a": plain_photo(1), "b": b""}))
    found = digests_of([split], DigestMemory(tmp_path))
    assert found == {"a": photo_digest(plain_photo(1)), "b": None}


# Damage


def test_no_changed_byte_gives_another_digest(tmp_path):
    version, digest = FileVersion("/photos/a.png", "12 34", 0), photo_digest(b"a")
    memory = DigestMemory(tmp_path)
    memory.keep({version: digest})
    content = (tmp_path / MEMORY_FILE).read_bytes()
    used = [place for place, byte in enumerate(content) if byte]
    for place in used:
        (tmp_path / MEMORY_FILE).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert memory.find([version]) in ([digest], [None]), place
        memory.keep({version: digest})
        if memory.find([version]) == [None]:  # the first one has removed the file
            memory.keep({version: digest})
            assert memory.find([version]) == [digest], place


@pytest.mark.parametrize("damage", [bytes(10_000), b"no table", b""])
def test_a_damaged_file_is_told_and_made_anew(photos, find, tmp_path, damage):
    find(listed(photos))
    (tmp_path / "cache" / MEMORY_FILE).write_bytes(damage)
    read, told = find(listed(photos))
    assert read == 40
    assert len(told) == bool(damage)
    assert all("was damaged and is removed" in text for text in told)
    read, _ = find(listed(photos))
    if read:  # what was told in the find before has removed the file, which was then made
        assert find(listed(photos))[0] == 0


def test_a_file_that_another_process_holds_costs_reading_and_nothing_else(photos, find, tmp_path, monkeypatch):
    find(listed(photos))
    real = sqlite3.connect
    monkeypatch.setattr(digests_module.sqlite3, "connect", lambda place, timeout: real(place, timeout=0.01))
    with real(tmp_path / "cache" / MEMORY_FILE, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert find(listed(photos)) == (40, [])
        other.execute("COMMIT")
    assert find(listed(photos)) == (0, [])
