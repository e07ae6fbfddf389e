"""The shards of one prefix that are at a URL, as files of the same names and content: who wrote them plays no part."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ktl.features.folder import ENTRY_FILE
from ktl.features.names import NAME, SHARD
from ktl.features.shards import INDEX, are_whole, read_index
from ktl.remote import READERS, RemoteFile, files_in, joined_url, read_part, read_parts, upload

INDEX_BYTES = 2**16
"""The end of a shard that is read at once: the index of 2,048 rows is shorter."""

LIST_SECONDS = 5.0
"""How long a list of what is there is taken for true; who computes meanwhile what just came there does it twice."""


class LostRows(Exception):
    """Rows at a URL that are gone, or not what was written; they count as missing from now on."""


class _Run(NamedTuple):
    """Rows that follow one another in a shard: its name, the first one's place in it, and what it says of each."""

    shard: str
    first: int
    index: np.ndarray

    def values(self, content: bytes, row_bytes: int) -> np.ndarray | None:
        """The rows in what was read, uint8 [rows, bytes of a row]; None if they are not what was written."""
        if len(content) != len(self.index) * row_bytes:
            return None
        rows = np.frombuffer(content, np.uint8).reshape(-1, row_bytes)
        return rows if are_whole(list(rows), self.index["id"], self.index["check"]) else None


class _Table:
    """The rows of shards, found by their ids; never changed."""

    def __init__(self, shards: Mapping[str, np.ndarray]):
        self.names = list(shards)
        self.rows = np.concatenate([np.empty(0, INDEX), *shards.values()])  # one shard after another
        self.starts = np.cumsum([0, *map(len, shards.values())])
        self._order = np.argsort(self.rows["id"], kind="stable")
        self._ids = self.rows["id"][self._order]

    def find(self, ids: np.ndarray) -> np.ndarray:
        """The number of each row, int64 [len(ids)]; -1 where there is none."""
        if not len(self._ids):
            return np.full(len(ids), -1)
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return np.where(self._ids[at] == ids, self._order[at], -1)

    def shards_of(self, rows: np.ndarray) -> np.ndarray:
        """The number of the shard that each row is in."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def runs_of(self, rows: np.ndarray) -> list[_Run]:
        """Rows, sorted and each once, as few runs."""
        shards = self.shards_of(rows)
        cuts = np.flatnonzero((np.diff(rows) != 1) | (np.diff(shards) != 0)) + 1
        return [
            _Run(self.names[number], int(run[0] - self.starts[number]), self.rows[run])
            for run, number in zip(np.split(rows, cuts), shards[[0, *cuts]], strict=True)
        ]


class ShardsAt:
    """What is at a URL of one prefix: the index of each shard is read once, and rows when they are asked for.

    Args:
        url: of the prefix.
        key: of the entry.
        row_bytes: size of a row.
        tell: is given a line where a shard is damaged; its rows count as missing.
    """

    def __init__(self, url: str, *, key: str, row_bytes: int, tell: Callable[[str], None]):
        self.url = url
        self._key, self._row_bytes, self._tell = key, row_bytes, tell
        self._shards: dict[str, np.ndarray] = {}  # name -> its index
        self._passed_over: set[str] = set()
        self._listed = -LIST_SECONDS
        self._lock = threading.RLock()
        self._table = _Table({})

    def refresh(self) -> None:
        """Looks for what others have added. Raises Unreachable."""
        with self._lock:
            if time.monotonic() - self._listed < LIST_SECONDS:
                return
            files = {file.name: file for file in files_in(self.url) if NAME.match(file.name)}
            known = self._shards.keys() | self._passed_over
            new = [file for name, file in files.items() if name.endswith(SHARD) and name not in known]
            with ThreadPoolExecutor(READERS) as pool:
                indexes = list(pool.map(self._read_index, new))
            self._shards = {name: index for name, index in self._shards.items() if name in files}
            for file, index in zip(new, indexes, strict=True):
                if index is None:
                    self.pass_over(file.name)
                else:
                    self._shards[file.name] = index
            self._listed = time.monotonic()
            self._table = _Table(self._shards)

    def has(self, ids: np.ndarray) -> np.ndarray:
        """Which rows are there, bool [len(ids)]."""
        return self._table.find(ids) >= 0

    def shards_with(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """The shards that have these rows, as few as are needed: name -> the ids of all its rows."""
        table = self._table
        rows = table.find(ids)
        numbers = dict.fromkeys(table.shards_of(rows[rows >= 0]).tolist())
        return {table.names[number]: table.rows["id"][slice(*table.starts[number : number + 2])] for number in numbers}

    def read(self, ids: np.ndarray) -> np.ndarray:
        """Rows, uint8 [len(ids), bytes of a row]; those that follow one another in a file are asked for as one part.

        Raises:
            LostRows: a row is missing, or is not what was written.
            Unreachable: the URL cannot be asked.
        """
        table = self._table
        rows, places = np.unique(table.find(ids), return_inverse=True)
        if not len(rows):
            return np.empty((0, self._row_bytes), np.uint8)
        if rows[0] < 0:
            raise LostRows
        runs, size = table.runs_of(rows), self._row_bytes
        parts = [
            (joined_url(self.url, run.shard), run.first * size, (run.first + len(run.index)) * size) for run in runs
        ]
        found = []
        for run, content in zip(runs, read_parts(parts), strict=True):
            values = None if isinstance(content, OSError) else run.values(content, size)
            if values is None:
                self.pass_over(run.shard, gone=isinstance(content, FileNotFoundError))
                raise LostRows
            found.append(values)
        return np.concatenate(found)[places]

    def pass_over(self, name: str, *, gone: bool = False) -> None:
        """Counts the rows of a shard as missing, and says so once: it is damaged, or gone."""
        with self._lock:
            if name not in self._passed_over:
                self._passed_over.add(name)
                self._shards.pop(name, None)
                what, do = ("is gone", "") if gone else ("is damaged", ". Remove it")
                self._tell(f"cache: {joined_url(self.url, name)} {what}; its photos are computed again{do}")
                self._table = _Table(self._shards)

    def add(self, path: Path, index: np.ndarray) -> None:
        """Copies a shard of this disk there, and with the first one what tells people of them. Raises Unreachable."""
        if not self._shards and (path.parent / ENTRY_FILE).exists():
            upload(path.parent / ENTRY_FILE, joined_url(self.url, ENTRY_FILE))
        upload(path, joined_url(self.url, path.name))
        with self._lock:
            self._shards[path.name] = index
            self._table = _Table(self._shards)

    def _read_index(self, file: RemoteFile) -> np.ndarray | None:
        size = file.size or 0
        start = max(0, size - INDEX_BYTES)
        try:
            end = read_part(file.url, start, size)
            return read_index(
                size,
                lambda offset: end[offset - start :] if offset >= start else read_part(file.url, offset, size),
                key=self._key,
                row_bytes=self._row_bytes,
            )
        except OSError:  # removed just now
            return np.empty(0, INDEX)


def rows_claimed(rows: Mapping[str, np.ndarray], key: str, ids: np.ndarray) -> bool:
    """Whether a claim, the ids of each entry, has one of these rows of an entry."""
    return key in rows and bool(np.isin(ids, rows[key]).any())
