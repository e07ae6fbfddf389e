"""Data sets of TensorFlow Datasets (TFDS): downloaded and prepared if needed, then read record by record.

TFDS reads its files from the beginning to the end. Training needs any photo at any time: every epoch has another order,
and may start in the middle. So one pass over the files notes each record's label and where it is; no photo is
decoded. Later, a photo is one seek and one read of its encoded bytes. Only the notes stay in memory. A data set that is
prepared needs no TensorFlow.
"""

import contextlib
import difflib
import importlib.util
import os
import re
import sys
import tarfile
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.extractor import ExtractError

from ktl.data.found import Found
from ktl.data.listing import Listing
from ktl.data.records import FORMATS, DamagedRecords, Place, RecordFormat, RecordSource, features_of, value_of
from ktl.data.split import SPLIT_WORDS, Split
from ktl.data.tfds_facts import FACTS, Facts
from ktl.errors import UserError, reason_of
from ktl.names import alike, composed

FILE_NAMES = ("image/filename", "image/file_name", "file_name", "filename")
EXTRAS = {"cv2": "cub"}
"""Python package that a builder needs -> our optional extra that installs it."""

WAYS_ON = (
    "Ways on: data_dir with the data set already prepared, a folder of photos as the data set, or the data set digits, "
    "which needs no network."
)
PROBE_SECONDS = 10

_NAME = re.compile(r"\w+(/[^:]+)?(:[\d.*]+)?")
"""name/config:version. A namespace such as huggingface: would ask a server, and has other file formats."""


def list_tfds(name: str, *, data_dir: str | os.PathLike | None) -> Listing:
    """The photos of a TFDS data set, see `ktl.Dataset.from_tfds`."""
    builder = _open_builder(name, data_dir)
    _check_features(name, builder.info.features)
    if not builder.is_prepared():
        _prepare(name, builder)
    file_format = getattr(builder.info.file_format, "value", "unknown")
    if file_format not in FORMATS:
        raise UserError(
            f"Expected {name} to be prepared as TFRecord or ArrayRecord files. Received: {file_format} files in "
            f"{builder.data_dir}. Prepare it again in TFDS' default file format."
        )
    facts = FACTS.get(builder.name, Facts())
    splits, class_names = _read_splits(name, builder, facts, FORMATS[file_format])
    remarks = tuple(f"{' and '.join(map(repr, group))} are different classes" for group in alike(class_names))
    return Listing(
        builder.name,
        splits,
        class_names,
        flip=facts.flip,
        notice=facts.notice,
        origin=builder.info.full_name,
        found=Found(remarks=remarks),
    )


def _open_builder(name: str, data_dir: str | os.PathLike | None):
    if re.match(r"caltech256\b", name):
        import ktl.data.caltech256  # noqa: F401  (registers the builder)
    if not _NAME.fullmatch(name):
        raise _unknown(name)
    try:
        return tfds.builder(name, data_dir=data_dir and os.path.expanduser(data_dir))
    except tfds.core.DatasetNotFoundError as error:
        raise _unknown(name) from error
    except (ValueError, AssertionError) as error:  # A version or a configuration that does not exist.
        raise UserError(
            f"Expected a version that TensorFlow Datasets has. Received: {name} ({reason_of(error)})"
        ) from error


def _unknown(name: str) -> UserError:
    known = {*FACTS, "digits", *tfds.list_builders(with_community_datasets=False)}
    near = difflib.get_close_matches(re.split("[:/]", name)[0], sorted(known), n=3)
    hint = f" Did you mean: {', '.join(near)}?" if near else ""
    return UserError(
        "Expected the data set to be digits, caltech256, a name that TensorFlow Datasets knows, a folder of photos, or "
        f"a .csv file. Received: {name}, which is none of them.{hint}"
    )


def _check_features(name: str, features) -> None:
    wanted = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    if not all(key in features and isinstance(features[key], kind) for key, kind in wanted.items()):
        raise UserError(
            "Expected a data set for image classification, with one image and one label. Received: "
            f"{name}, with {', '.join(features)}"
        )


def _prepare(name: str, builder) -> None:
    _check_tensorflow(name, builder)
    _check_manual_download(name, builder)
    _check_connection(name, builder)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # TFDS announces downloads on standard output, where results go.
            builder.download_and_prepare()
    except ImportError as error:
        raise _missing_package(name, error) from error
    except (OSError, tfds.download.DownloadError) as error:
        raise _not_fetched(name, error) from error
    except (NonMatchingChecksumError, ExtractError, tarfile.TarError) as error:
        raise UserError(
            f"Expected intact archives of {name}. Received: {reason_of(error)}. Delete the damaged file in "
            f"{_downloads(builder)} and repeat."
        ) from error


def _check_tensorflow(name: str, builder) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"Expected {name} to be prepared already, which needs TensorFlow. Received: no TensorFlow, and nothing in "
            f"{builder.data_dir}. Prepare it where TensorFlow is installed; data_dir says where it is then."
        )


def _check_manual_download(name: str, builder) -> None:
    folder = _downloads(builder) / "manual"
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not (folder.is_dir() and any(folder.iterdir())):
        raise UserError(
            f"Expected files that only you can download for {name}. Received: none in {folder}. "
            f"{' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())}"
        )


def _check_connection(name: str, builder) -> None:
    """Asks each host once: TFDS itself would try to reach one for minutes before it fails."""
    import requests

    if any(path.is_file() for path in _downloads(builder).rglob("*")):
        return  # Downloaded before, perhaps completely: then preparing needs no network.
    hosts = {urllib.parse.urlsplit(url).netloc: url for url in builder.url_infos or () if url.startswith("http")}
    for url in hosts.values():
        try:
            requests.head(url, timeout=PROBE_SECONDS)
        except requests.RequestException as error:
            raise _not_fetched(name, error) from error


def _not_fetched(name: str, error: Exception) -> UserError:
    url = getattr(getattr(error, "request", None), "url", None)
    return UserError(
        f"Expected {name} to be prepared, or to be fetched{f' from {url}' if url else ''}. Received: "
        f"{reason_of(error)}. {WAYS_ON}"
    )


def _missing_package(name: str, error: ImportError) -> UserError:
    cause = error
    while cause.__cause__ is not None and not getattr(cause, "name", None):
        cause = cause.__cause__
    package = getattr(cause, "name", None) or reason_of(error)
    fix = f"pip install 'ktl[{EXTRAS[package]}]'" if package in EXTRAS else f"Install {package}"
    return UserError(f"Expected the packages that preparing {name} needs. Received: no {package}. {fix} and repeat.")


def _downloads(builder) -> Path:
    return Path(builder.data_dir_root) / "downloads"


def _read_splits(
    name: str, builder, facts: Facts, record_format: RecordFormat
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The splits and the names of the classes, from one pass over the records."""
    class_names = dict(enumerate(builder.info.features["label"].names))
    source = RecordSource({}, record_format)
    splits = {}
    for word, info in builder.info.splits.items():
        if word not in SPLIT_WORDS:
            continue
        split = SPLIT_WORDS[word]
        files, labels, places = [], [], []
        for place, example in _records(name, info.filepaths, record_format):
            files.append(next((value_of(example, key).decode() for key in FILE_NAMES if key in example), None))
            labels.append(value_of(example, "label"))
            places.append(place)
            if facts.class_name:
                class_names[labels[-1]] = value_of(example, facts.class_name).decode()
        if len(places) != info.num_examples:
            raise _damaged(name, f"{len(places):,} of the {info.num_examples:,} photos of {word} in {builder.data_dir}")
        if min(labels, default=-1) < 0:
            continue  # Some challenges publish test photos without labels.
        named = None not in files and len(set(files)) == len(files)
        photos = tuple(f"{split}/{file}" for file in (files if named else range(len(files))))
        source.places.update(zip(photos, places, strict=True))
        splits[split] = Split(split, photos, np.array(labels, np.int32), source)
    if "train" not in splits:
        raise UserError(f"Expected {name} to have a train split. Received: {', '.join(builder.info.splits) or 'none'}")
    return splits, tuple(map(composed, class_names.values()))


def _records(name: str, paths, record_format: RecordFormat) -> Iterator[tuple[Place, Mapping]]:
    for path in map(str, paths):
        try:
            for place, record in record_format.records(path):
                yield place, features_of(record)
        except DamagedRecords as error:
            raise _damaged(name, f"a damaged or missing {path}") from error


def _damaged(name: str, received: str) -> UserError:
    return UserError(
        f"Expected the prepared files of {name} to be whole. Received: {received}. Delete the folder that they are in "
        "and prepare the data set again."
    )
