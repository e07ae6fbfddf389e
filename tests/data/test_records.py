"""Files of records: whole ones, and damage, as TensorFlow's own reader notices it."""

import struct
from collections.abc import Iterator

import numpy as np
import pytest
from support import encode

from ktl.data.records import (
    FORMATS,
    DamagedRecords,
    RecordSource,
    features_of,
    read_tfrecords_without_tensorflow,
    value_of,
)

RECORDS = [b"", b"a", b"the second" * 3, bytes(range(256)) * 40]
"""Of which the last one is longer than what is read of a file at a time."""


def crc32c(content: bytes) -> int:
    """The checksum of RFC 3720, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def framed(record: bytes) -> bytes:
    """A record as it stands in a TFRecord file."""

    def masked(content: bytes) -> bytes:
        crc = crc32c(content)
        return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32)

    length = struct.pack("<Q", len(record))
    return length + masked(length) + record + masked(record)


def test_the_checksum_is_that_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


@pytest.fixture
def without_tensorflow_reader():
    pytest.importorskip("google_crc32c", reason='the extra "jax" is not installed')
    return read_tfrecords_without_tensorflow


def write_tfrecords(path, records=RECORDS):
    path.write_bytes(b"".join(map(framed, records)))
    return path


def read(reader, path) -> tuple[list[bytes], bool]:
    """The records before the first damaged one, and whether there was one."""
    found = []
    try:
        for record in reader(str(path)):
            found.append(record)
    except DamagedRecords:
        return found, True
    return found, False


def test_records_are_those_that_were_written(without_tensorflow_reader, tmp_path):
    path = write_tfrecords(tmp_path / "records")
    assert read(without_tensorflow_reader, path) == (RECORDS, False)
    path.write_bytes(b"")
    assert read(without_tensorflow_reader, path) == ([], False)


def damaged(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Files cut at each place of the first three records, with each byte of these changed, or with more at the end; and
    the first place at which they are wrong."""
    end = sum(len(framed(record)) for record in RECORDS[:3])
    yield from ((place, content[:place]) for place in (*range(end), len(content) - 4, len(content) - 1))
    yield from ((place, content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]) for place in range(end))
    yield from ((len(content), content + more) for more in (bytes(1), bytes(12), bytes(16)))


def test_a_file_that_is_cut_or_changed_anywhere_is_noticed_there(without_tensorflow_reader, tmp_path):
    path = write_tfrecords(tmp_path / "records")
    content, ends = path.read_bytes(), np.cumsum([len(framed(record)) for record in RECORDS])
    for place, broken in damaged(content):
        path.write_bytes(broken)
        whole = int(np.searchsorted(ends, place, side="right"))
        cut_between_records = len(broken) in (0, *ends[:-1])
        assert read(without_tensorflow_reader, path) == (RECORDS[:whole], not cut_between_records)


@pytest.mark.slow
def test_tensorflow_s_reader_notices_the_same(without_tensorflow_reader, tmp_path):
    pytest.importorskip("tensorflow")
    from ktl.data.tf_data import read_tfrecords

    path = write_tfrecords(tmp_path / "records")
    for place, content in ((None, path.read_bytes()), *damaged(path.read_bytes())):
        path.write_bytes(content)
        assert read(read_tfrecords, path) == read(without_tensorflow_reader, path), place


def example(photo: bytes) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    record = tf_example_pb2.Example()
    record.features.feature["image"].bytes_list.value.append(photo)
    return record.SerializeToString()


PHOTOS = {f"train/{number}": encode(np.full([8, 8, 3], 40 * number, np.uint8)) for number in range(4)}


def write_array_records(path, records):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


WRITERS = {"tfrecord": write_tfrecords, "array_record": write_array_records}


@pytest.fixture(params=WRITERS)
def source(request, tmp_path):
    """Four photos in a file `photos` of each format."""
    pytest.importorskip({"tfrecord": "ktl", "array_record": "array_record"}[request.param])
    path, form = tmp_path / "photos", FORMATS[request.param]
    WRITERS[request.param](path, [example(photo) for photo in PHOTOS.values()])
    places = [place for place, record in form.records(str(path)) if value_of(features_of(record), "image")]
    return RecordSource(dict(zip(PHOTOS, places, strict=True)), form)


def test_photos_are_read_in_any_order(source):
    for photo in reversed(PHOTOS):
        assert source.read(photo) == PHOTOS[photo]
    assert len({source.stamp(photo) for photo in PHOTOS}) == len(PHOTOS)
    assert len({source.version(photo) for photo in PHOTOS}) == len(PHOTOS)


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "noise"])
def test_a_file_that_was_damaged_since_is_an_error_of_reading(source, tmp_path, damage):
    """As the sources of photos promise: it names the photo then, or passes it over."""
    path = tmp_path / "photos"
    content = path.read_bytes()
    path.write_bytes({"gone": b"", "empty": b"", "cut": content[:-40], "noise": b"\x0b" * len(content)}[damage])
    if damage == "gone":
        path.unlink()
    with pytest.raises(OSError, match="photos"):
        source.read("train/3")


def test_files_that_are_missing_or_cut_are_damaged(source, tmp_path):
    path = tmp_path / "photos"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedRecords):
        list(source.format.records(str(path)))
    with pytest.raises(DamagedRecords):
        list(source.format.records(str(tmp_path / "none")))
