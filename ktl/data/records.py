"""Photos in the files of a data set that TensorFlow Datasets (TFDS) has prepared.

Each record is a `tf.train.Example`, in a TFRecord or an ArrayRecord file. Nothing here needs TensorFlow, but for the
checksums of TFRecord files where the package google-crc32c is not installed.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import DecodeError

from ktl.data.split import FileVersion, file_version
from ktl.errors import UserError

BEFORE_RECORD, AFTER_RECORD = 12, 4
"""Bytes around a record in a TFRecord file: before it its length with a checksum, after it the record's checksum."""

_LENGTH = 8
"""Bytes of the length, little-endian."""


class Place(NamedTuple):
    """A record in a file.

    Attributes:
        path: of the file.
        position: in a TFRecord file the offset in bytes, in an ArrayRecord file the number of the record.
        length: in bytes.
    """

    path: str
    position: int
    length: int


class DamagedRecords(Exception):
    """A file of records is missing or not whole."""


class RecordFormat(NamedTuple):
    """How files of one format are read.

    Attributes:
        records: the records of a file, one after another, and their places. Raises DamagedRecords, and OSError where
            the file may not be read.
        record_at: the record at a place. Raises OSError.
    """

    records: Callable[[str], Iterator[tuple[Place, bytes]]]
    record_at: Callable[[Place], bytes]


def _check_it_opens(path: str) -> None:
    """Where it does not, Python's errors tell a file that is missing from one that may not be read."""
    try:
        open(path, "rb").close()
    except FileNotFoundError as error:
        raise DamagedRecords(path) from error


def _tfrecords(path: str) -> Iterator[tuple[Place, bytes]]:
    _check_it_opens(path)
    offset = 0
    for record in _tfrecord_reader()(path):
        yield Place(path, offset + BEFORE_RECORD, len(record)), record
        offset += BEFORE_RECORD + len(record) + AFTER_RECORD


def _tfrecord_reader() -> Callable[[str], Iterator[bytes]]:
    """Ours, which spares loading TensorFlow and the memory that it takes of a GPU, where it can check the checksums."""
    try:
        import google_crc32c  # noqa: F401
    except ModuleNotFoundError:
        try:
            from ktl.data.tf_data import read_tfrecords  # loads TensorFlow
        except ModuleNotFoundError as error:
            raise UserError(
                "Expected the package google-crc32c, to check TFRecord files where TensorFlow is not installed. "
                "Received: no such package. pip install google-crc32c"
            ) from error
        return read_tfrecords
    return read_tfrecords_without_tensorflow


def read_tfrecords_without_tensorflow(path: str) -> Iterator[bytes]:
    """The records of a TFRecord file, one after another. Raises DamagedRecords at the first one that is not whole."""
    with open(path, "rb") as file:
        while header := file.read(BEFORE_RECORD):
            length = _checked(header[:_LENGTH], header[_LENGTH:], path)
            yield _checked(file.read(int.from_bytes(length, "little")), file.read(AFTER_RECORD), path)


def _checked(content: bytes, checksum: bytes, path: str) -> bytes:
    """Some bytes of a TFRecord file. Raises DamagedRecords where their masked CRC-32C is another one, as it is where
    the file ends too early."""
    import google_crc32c

    crc = google_crc32c.value(content)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    if masked.to_bytes(4, "little") != checksum:
        raise DamagedRecords(path)
    return content


def _tfrecord_at(place: Place) -> bytes:
    with open(place.path, "rb") as file:
        file.seek(place.position)
        return file.read(place.length)


def _array_records(path: str) -> Iterator[tuple[Place, bytes]]:
    _check_it_opens(path)
    reader = _array_reader(path)
    if not reader.ok():
        raise DamagedRecords(path)
    try:
        for number in range(reader.num_records()):
            (record,) = reader.read([number])
            yield Place(path, number, len(record)), record
    except RuntimeError as error:
        raise DamagedRecords(path) from error


def _array_record_at(place: Place) -> bytes:
    try:
        return _array_reader(place.path).read([place.position])[0]
    except (RuntimeError, IndexError) as error:
        raise OSError(f"{place.path} is damaged or missing") from error


def _array_reader(path: str):
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except ModuleNotFoundError as error:
        raise UserError(
            f"Expected the package array_record, to read {path}. Received: no such package. Install it, or prepare "
            "the data set as TFRecord files."
        ) from error
    return ArrayRecordReader(path, options="readahead_buffer_size:0")  # of one record, no others are read ahead


FORMATS = {
    "tfrecord": RecordFormat(_tfrecords, _tfrecord_at),
    "array_record": RecordFormat(_array_records, _array_record_at),
}
"""Name in TFDS -> format."""


@dataclasses.dataclass(frozen=True, eq=False)
class RecordSource:
    """Photos in files of one format; `places` says where each photo's record is."""

    places: dict[str, Place]
    format: RecordFormat = FORMATS["tfrecord"]

    def read(self, photo: str) -> bytes:
        place = self.places[photo]
        record = self.format.record_at(place)
        try:
            return value_of(features_of(record), "image")
        except (DecodeError, IndexError) as error:
            raise OSError(f"{place.path} has changed since its photos were listed, or is damaged") from error

    def stamp(self, photo: str) -> str:
        path, position, length = self.places[photo]
        return f"{Path(path).name} {position} {length}"

    def version(self, photo: str) -> FileVersion | None:
        path, position, length = self.places[photo]
        return file_version(path, f" {position} {length}")


def features_of(record: bytes) -> Mapping:
    """Name -> feature of a record that is a `tf.train.Example`."""
    from tensorflow_datasets.proto import tf_example_pb2  # takes a second, and this module is loaded for training too

    return tf_example_pb2.Example.FromString(record).features.feature  # pyright: ignore[reportAttributeAccessIssue]


def value_of(features: Mapping, key: str):
    """The one value of an image, a text or a label."""
    feature = features[key]
    return (feature.bytes_list.value or feature.int64_list.value)[0]
