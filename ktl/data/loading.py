"""Data sets by name: embedded digits, a folder of photos, a CSV file, or TensorFlow Datasets."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ktl.data.dataset import SPLIT_WORDS, Dataset, FileSource, MemorySource, Split, make_dataset
from ktl.data.images import SUFFIXES
from ktl.data.tfds import FACTS, load_from_tfds
from ktl.errors import UserError

__all__ = ["Dataset", "Split", "load_dataset"]

CSV_COLUMNS = (["path", "label"], ["path", "label", "split"])


def load_dataset(name: str, *, data_dir: str | None = None) -> Dataset:
    """A data set with its three splits; no photo is decoded, and none but `digits` is read as a whole.

    Args:
        name: `digits` (scikit-learn's, embedded), `caltech256`, a name that TensorFlow Datasets knows
            (`stanford_dogs`, `cifar10:3.0.2`), a folder (`train|validation|test/<class>/photo`, or `<class>/photo`), or
            a .csv file of `path,label[,split]` with paths relative to it. A folder named like one of the first three
            needs a slash: `./digits`.
        data_dir: for a name of TensorFlow Datasets, the folder that holds prepared data sets. None: TFDS' own.

    Returns:
        The official splits where they exist. A missing test or validation split is carved from train, stratified and
        always the same.

    Raises:
        UserError: no such data set, no way to fetch it, or a layout that cannot be understood.
    """
    if name == "digits":
        return _digits()
    if name in FACTS:
        return load_from_tfds(name, data_dir=data_dir)
    path = Path(os.path.expanduser(name))  # of no such user it is left as it is
    if path.suffix.lower() == ".csv":
        return _csv(path)
    if path.is_dir():
        return _folder(path)
    if name.startswith((".", "~")) or path.is_absolute() or name.endswith(os.sep):
        raise UserError(f"Expected a folder of photos or a .csv file. Received: {name}, which does not exist.")
    return load_from_tfds(name, data_dir=data_dir)


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    encoded = {f"digits/{index:04}.png": _png(image) for index, image in enumerate(grey)}
    split = Split("train", tuple(encoded), digits.target.astype(np.int32), MemorySource(encoded))
    class_names = tuple(str(name) for name in digits.target_names)
    return make_dataset("digits", {"train": split}, class_names=class_names, flip=False)


def _png(grey: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    return file.getvalue()


def _folder(root: Path) -> Dataset:
    folders = _folders(root)
    # A class may be called "train": then it holds photos, where a split holds folders.
    parts = [folder for folder in folders if folder.name.lower() in SPLIT_WORDS and _folders(folder)]
    rows = {}
    for folder in parts:
        split = SPLIT_WORDS[folder.name.lower()]
        if split in rows:
            raise UserError(f"Expected one {split} folder in {root}. Received: two, {folder.name} among them.")
        rows[split] = _class_photos(folder, root)
    if not parts:
        rows["train"] = _class_photos(root, root)
    return _from_rows(root.resolve().name, rows, FileSource(root), place=root)


def _class_photos(parent: Path, root: Path) -> list[tuple[str, str]]:
    """(path from the root, class) of every photo in the class folders of `parent`, in sorted order."""
    rows = []
    for folder in _folders(parent):
        files = (path for path in folder.iterdir() if not path.is_dir() and is_shown(path.name))
        photos = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
        if not photos:
            raise UserError(
                f"Expected photos ({', '.join(sorted(SUFFIXES))}) in each class folder. Received: none in {folder}"
            )
        rows += [(path.relative_to(root).as_posix(), folder.name) for path in photos]
    if not rows:
        raise UserError(
            f"Expected a folder of class folders with photos, or of train, validation and test. Received: {parent}, "
            "with no folder in it"
        )
    return rows


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and is_shown(path.name))


def is_shown(name: str) -> bool:
    """Whether a file or folder of that name is not one of the hidden or __MACOSX ones that file managers leave."""
    return not name.startswith(".") and name != "__MACOSX"


def _csv(path: Path) -> Dataset:
    rows: dict[str, list[tuple[str, str]]] = {}
    seen = set()
    for line, row in _csv_rows(path):
        photo, label, word = row["path"].strip(), row["label"].strip(), row.get("split", "train").strip()
        if not photo or not label:
            raise UserError(f"Expected a path and a label in each row. Received: line {line} of {path} without them.")
        if word.lower() not in SPLIT_WORDS:
            raise UserError(
                f"Expected split to be one of: {', '.join(SPLIT_WORDS)}. Received: {word!r} in line {line} of {path}"
            )
        if photo in seen:
            raise UserError(f"Expected each photo once. Received: {photo} again in line {line} of {path}")
        seen.add(photo)
        rows.setdefault(SPLIT_WORDS[word.lower()], []).append((photo, label))
    missing = [photo for photos in rows.values() for photo, _ in photos if not (path.parent / photo).is_file()]
    if missing:
        raise UserError(
            f"Expected paths relative to {path.parent}. Received: {len(missing)} that do not exist there: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        )
    return _from_rows(path.stem, rows, FileSource(path.parent), place=path)


def _csv_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """(line number, row) of each row; the byte order mark that spreadsheets write is no part of the first column."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else f"{error}"
        raise UserError(f"Expected a readable .csv file in UTF-8. Received: {path}: {reason}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="", strict=True)
    try:
        columns = [column.strip() for column in reader.fieldnames or ()]
        if columns not in CSV_COLUMNS:
            raise UserError(
                f"Expected the first line of {path} to be path,label or path,label,split. Received: {','.join(columns)}"
            )
        reader.fieldnames = columns
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        line = f"line {reader.line_num} or later of {path}"
        raise UserError(f"Expected comma-separated values. Received: {line}: {error}") from error
    long = next((line for line, row in rows if None in row), None)
    if long is not None:
        raise UserError(f"Expected {len(columns)} values in each row. Received: more in line {long} of {path}")
    return rows


def _from_rows(name: str, rows: Mapping[str, list[tuple[str, str]]], source: FileSource, *, place: Path) -> Dataset:
    """A data set of each split's (photo, class) rows; its classes are those of all splits, sorted."""
    if "train" not in rows:
        raise UserError(f"Expected training photos in {place}. Received: {', '.join(rows) or 'nothing'} only")
    class_names = tuple(sorted({label for part in rows.values() for _, label in part}))
    for text in (*class_names, *(photo for part in rows.values() for photo, _ in part)):
        if {"\n", "\r"} & set(text) or text != text.encode(errors="replace").decode():
            raise UserError(f"Expected names in UTF-8, of one line each. Received: {text!r} in {place}. Rename it")
    numbers = {label: number for number, label in enumerate(class_names)}
    splits = {
        split: Split(
            split,
            tuple(photo for photo, _ in part),
            np.array([numbers[label] for _, label in part], np.int32),
            source,
        )
        for split, part in rows.items()
    }
    return make_dataset(name, splits, class_names=class_names)
