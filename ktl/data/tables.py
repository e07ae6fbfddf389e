"""Photos in a table of paths and labels: a CSV file or a data frame."""

import csv
import io
import numbers
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ktl.arguments import home_path_of
from ktl.data.identity import twins
from ktl.data.listing import Listing, list_rows
from ktl.data.split import SPLIT_WORDS, FileSource
from ktl.data.urls import PlacedSource, UrlSource
from ktl.errors import UserError, shown
from ktl.files import read_regular
from ktl.names import is_url
from ktl.remote import files_at, joined, name_of, parent_of, read_bytes

CSV_COLUMNS = (["path", "label"], ["path", "label", "split"])


class Frame(Protocol):
    """A table such as a DataFrame of pandas or Polars; no such package is needed here."""

    @property
    def columns(self) -> Iterable[Any]:
        """The names of the columns."""
        ...

    def __getitem__(self, column: Any, /) -> Iterable[Any]:
        """The values of a column."""
        ...


class _Entry(NamedTuple):
    """One row of a table, and what errors call it."""

    place: str
    photo: str
    label: str
    split: str


def list_csv(path: str | os.PathLike) -> Listing:
    """The photos of a CSV file, see `ktl.Dataset.from_csv`."""
    place = path if is_url(path) else home_path_of(path, argument="path")
    entries = (
        _Entry(f"line {line} of {place}", row["path"], row["label"], row.get("split", "train"))
        for line, row in _csv_rows(place)
    )
    if isinstance(place, str):
        return _list_entries(Path(name_of(place)).stem, entries, root=parent_of(place), place=place)
    return _list_entries(place.stem, entries, root=place.parent, place=f"{place}")


def list_dataframe(frame: Frame, *, root: str | os.PathLike) -> Listing:
    """The photos of a data frame, see `ktl.Dataset.from_dataframe`."""
    columns = getattr(frame, "columns", None)
    if columns is None:
        raise UserError(f"Expected frame to be a table with columns path and label. Received: {type(frame).__name__}")
    columns = list(columns)
    missing = [column for column in CSV_COLUMNS[0] if column not in columns]
    if missing:
        raise UserError(
            f"Expected frame to have columns path and label. Received: no {' and no '.join(missing)} among "
            f"{', '.join(map(str, columns)) or 'no columns'}"
        )
    twice = [column for column in CSV_COLUMNS[1] if columns.count(column) > 1]
    if twice:
        raise UserError(f"Expected frame to have each column once. Received: {twice[0]} twice")
    root = root if is_url(root) else home_path_of(root, argument="root")
    return _list_entries("dataframe", _frame_entries(frame, with_splits="split" in columns), root=root, place="frame")


def _frame_entries(frame: Frame, *, with_splits: bool) -> Iterator[_Entry]:
    paths, labels = list(frame["path"]), list(frame["label"])
    splits = list(frame["split"]) if with_splits else ["train"] * len(paths)
    for number, (photo, label, split) in enumerate(zip(paths, labels, splits, strict=True)):
        place = f"row {number} of frame"
        # A missing value is None, NaN or an object of its own; as a text it would become a class named "nan".
        if not isinstance(photo, str | os.PathLike):
            raise UserError(f"Expected each path to be a string or a Path. Received: {shown(photo)} in {place}")
        if not isinstance(label, str | numbers.Integral):
            raise UserError(
                f"Expected each label to be a string or a whole number. Received: {shown(label)} in {place}"
            )
        yield _Entry(place, os.fspath(photo), str(label), str(split))


# Long by all that a row can have wrong.
def _list_entries(name: str, entries: Iterable[_Entry], *, root: Path | str, place: str) -> Listing:
    """The listing of a table's rows; `root` is the folder, or its URL, that paths are relative to."""
    rows: dict[str, list[tuple[str, str]]] = {}
    files: dict[Path, tuple[os.stat_result, _Entry]] = {}
    urls: dict[str, _Entry] = {}
    missing, special = [], []
    for entry in entries:
        photo, label, word = entry.photo.strip(), entry.label.strip(), entry.split.strip()
        if not photo or not label:
            raise UserError(f"Expected a path and a label in each row. Received: {entry.place} without them.")
        if word.lower() not in SPLIT_WORDS:
            raise UserError(
                f"Expected split to be one of: {', '.join(SPLIT_WORDS)}. Received: {word!r} in {entry.place}"
            )
        rows.setdefault(SPLIT_WORDS[word.lower()], []).append((photo, label))
        file = joined(root, photo)
        if isinstance(file, str):
            if file in urls:
                raise _twice(entry, urls[file])
            urls[file] = entry
            continue
        try:
            status = file.stat()
        except (OSError, ValueError):  # the latter of a name with a zero byte
            missing.append(photo)
            continue
        if not stat.S_ISREG(status.st_mode):
            special.append(photo)
        elif file in files:
            raise _twice(entry, files[file][1])
        else:
            files[file] = status, entry
    remote = dict(zip((entry.photo.strip() for entry in urls.values()), files_at(list(urls)), strict=True))
    missing += [photo for photo, found in remote.items() if found is None]
    _refuse(missing, f"paths relative to {root}", "that do not exist there")
    _refuse(special, "photos that are regular files", "that are none")
    for again, first in twins((file, status) for file, (status, _) in files.items()):
        raise _twice(files[again][1], files[first][1])
    local = FileSource(Path() if isinstance(root, str) else root)
    at_urls = UrlSource({photo: found for photo, found in remote.items() if found})
    return list_rows(name, rows, PlacedSource(local, at_urls) if urls else local, place=place)


def _twice(entry: _Entry, first: _Entry) -> UserError:
    return UserError(
        f"Expected each photo once. Received: {entry.photo.strip()} in {entry.place} again, after {first.place}"
    )


def _refuse(photos: list[str], expected: str, reason: str) -> None:
    if photos:
        listed = f"{', '.join(photos[:3])}{', ...' if len(photos) > 3 else ''}"
        raise UserError(f"Expected {expected}. Received: {len(photos)} {reason}: {listed}")


def _csv_rows(path: Path | str) -> list[tuple[int, dict[str, str]]]:
    """(line number, row) of each row; the byte order mark that spreadsheets write is no part of the first column."""
    try:
        text = (read_bytes(path) if isinstance(path, str) else read_regular(path)).decode("utf-8-sig")
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
