"""One shard: what was written is read, and no changed byte ever is."""

import gc
import os

import numpy as np
import pytest
from made_up_rows import KEY, ROW_BYTES, SHAPE, ids_of, rows_of

from ktl.features.shards import DamagedShard, Shard, ShardWriter, open_shard, row_ids

IDS = ids_of(range(30), codes=(0, 3))


def written(folder, name="a", ids=IDS):
    writer = ShardWriter(folder, name=name, key=KEY, row_bytes=ROW_BYTES)
    for start in range(0, len(ids), 9):
        writer.append(ids[start : start + 9], rows_of(ids[start : start + 9]))
    writer.finish()
    return writer.path


def read(shard, places):
    out = np.empty((len(places), *SHAPE), "float32")
    shard.read(np.array(places), list(out))
    return out


def opened(path, key=KEY, row_bytes=ROW_BYTES):
    return Shard(path, key=key, row_bytes=row_bytes)


def test_ids_are_digest_and_view_photo_by_photo():
    ids = row_ids([b"a" * 16, b"b" * 15 + b"\0"], [0, 258])
    texts = [row.ljust(20, b"\0") for row in ids.tolist()]
    assert texts == [
        b"a" * 16 + bytes(4),
        b"a" * 16 + b"\0\0\1\2",
        b"b" * 15 + bytes(5),
        b"b" * 15 + b"\0\0\0\1\2",
    ]


def test_what_was_written_is_read_in_any_order(tmp_path):
    shard = opened(written(tmp_path))
    np.testing.assert_array_equal(shard.ids, IDS)
    places = [7, 0, 59, 7]
    np.testing.assert_array_equal(read(shard, places), rows_of(IDS[places]))
    assert os.listdir(tmp_path) == ["a.shard"]


def test_what_is_not_finished_is_no_shard(tmp_path):
    writer = ShardWriter(tmp_path, name="a", key=KEY, row_bytes=ROW_BYTES)
    writer.append(IDS, rows_of(IDS))
    assert os.listdir(tmp_path) == ["a.partial"]
    writer.close()
    assert os.listdir(tmp_path) == []


def test_a_shard_stays_readable_when_its_file_is_removed(tmp_path):
    path = written(tmp_path)
    shard = opened(path)
    path.unlink()
    np.testing.assert_array_equal(read(shard, [3]), rows_of(IDS[[3]]))


@pytest.mark.parametrize("change", [1, 255])
def test_every_changed_byte_is_found(tmp_path, change):
    path = written(tmp_path, ids=IDS[:3])
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ change]) + content[place + 1 :])
        with pytest.raises(DamagedShard, match=r"a\.shard is damaged"):
            read(opened(path), [0, 1, 2])
    path.write_bytes(content)
    np.testing.assert_array_equal(read(opened(path), [0, 1, 2]), rows_of(IDS[:3]))


def test_changes_of_large_rows_are_found(tmp_path):
    """Whose checksum is of sums: a byte anywhere, zeros, pages that changed places."""
    size = 5 * 4096 + 12
    row = np.random.default_rng(0).integers(0, 256, (1, size)).astype(np.uint8)
    writer = ShardWriter(tmp_path, name="a", key=KEY, row_bytes=size)
    writer.append(IDS[:1], row)
    writer.finish()
    content = writer.path.read_bytes()

    def is_found(changed):
        writer.path.write_bytes(changed + content[size:])
        with pytest.raises(DamagedShard):
            opened(writer.path, row_bytes=size).read(np.array([0]), [np.empty(size, np.uint8)])

    for place in [*range(0, size, 331), size - 1]:
        is_found(content[:place] + bytes([content[place] ^ 128]) + content[place + 1 : size])
    for start in range(0, size, 4096):
        end = min(start + 4096, size)
        is_found(content[:start] + bytes(end - start) + content[end:size])
    pages = [content[start : start + 4096] for start in range(0, size, 4096)]
    is_found(b"".join([pages[1], pages[0], *pages[2:]]))
    is_found(b"".join([pages[0], pages[3], pages[2], pages[1], *pages[4:]]))


@pytest.mark.parametrize("kept", [0, 1, ROW_BYTES, -1, -40])
def test_a_shard_that_is_cut_short_is_found(tmp_path, kept):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DamagedShard):
        opened(path)


def test_a_shard_that_is_cut_short_while_it_is_read_is_found(tmp_path):
    path = written(tmp_path)
    shard = opened(path)
    os.truncate(path, 5 * ROW_BYTES)
    np.testing.assert_array_equal(read(shard, [4]), rows_of(IDS[[4]]))
    with pytest.raises(DamagedShard):
        read(shard, [5])


def test_zeros_are_found(tmp_path):
    path = written(tmp_path)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DamagedShard):
        opened(path)


def test_rows_that_changed_places_are_found(tmp_path):
    path = written(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[ROW_BYTES : 2 * ROW_BYTES] + content[:ROW_BYTES] + content[2 * ROW_BYTES :])
    for place in (0, 1):
        with pytest.raises(DamagedShard):
            read(opened(path), [place])


def test_a_shard_of_another_entry_or_row_size_is_found(tmp_path):
    path = written(tmp_path)
    for other in ({"key": KEY[::-1]}, {"row_bytes": ROW_BYTES // 2}):
        with pytest.raises(DamagedShard):
            opened(path, **other)


def test_all_readers_have_one_file_until_the_last_lets_go(tmp_path):
    path = written(tmp_path)
    first = open_shard(path, key=KEY, row_bytes=ROW_BYTES)
    assert open_shard(path, key=KEY, row_bytes=ROW_BYTES) is first
    number = os.stat(path).st_ino
    del first
    gc.collect()
    descriptors = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    assert number not in [os.stat(name).st_ino for name in descriptors if os.path.exists(name)]
