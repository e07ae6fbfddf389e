"""The shards of one prefix that are at a URL, as files of the same names and content: who wrote them plays no part."""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ktl.features.folder import ENTRY_FILE
from ktl.features.names import NAME, SHARD
from ktl.features.shards import ID, read_index
from ktl.remote import READERS, RemoteFile, files_in, joined_url, read_part, upload

INDEX_BYTES = 2**16
"""The end of a shard that is read at once: the index of 2,048 rows is shorter."""

LIST_SECONDS = 5.0
"""How long a list of what is there is taken for true; who computes meanwhile what just came there does it twice."""


class ShardsAt:
    """What is at a URL of one prefix: the index of each shard is read once, and no row.

    Args:
        url: of the prefix.
        key: of the entry.
        row_bytes: size of a row.
        tell: is given a line where a shard is damaged; its rows count as missing.
    """

    def __init__(self, url: str, *, key: str, row_bytes: int, tell: Callable[[str], None]):
        self.url = url
        self._key, self._row_bytes, self._tell = key, row_bytes, tell
        self._shards: dict[str, np.ndarray] = {}  # name -> ids
        self._damaged: set[str] = set()
        self._listed = -LIST_SECONDS
        self._lock = threading.Lock()
        self._ids, self._names = np.empty(0, ID), np.empty(0, object)

    def refresh(self) -> None:
        """Looks for what others have added. Raises Unreachable."""
        with self._lock:
            if time.monotonic() - self._listed < LIST_SECONDS:
                return
            files = {file.name: file for file in files_in(self.url) if NAME.match(file.name)}
            new = [file for name, file in files.items() if name.endswith(SHARD) and name not in self._known]
            with ThreadPoolExecutor(READERS) as pool:
                indexes = list(pool.map(self._read_index, new))
            self._shards = {name: ids for name, ids in self._shards.items() if name in files}
            for file, index in zip(new, indexes, strict=True):
                if index is None:
                    self._ignore(file.name)
                else:
                    self._shards[file.name] = index["id"]
            self._listed = time.monotonic()
            self._index()

    def has(self, ids: np.ndarray) -> np.ndarray:
        """Which rows are there, bool [len(ids)]."""
        return np.isin(ids, self._ids)

    def shards_with(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """The shards that have these rows, as few as are needed: name -> the ids of all its rows."""
        at = np.searchsorted(self._ids, ids[self.has(ids)])
        return {name: self._shards[name] for name in dict.fromkeys(self._names[at])}

    def ignore(self, name: str) -> None:
        """Counts the rows of a shard as missing: it is damaged."""
        with self._lock:
            self._ignore(name)
            self._index()

    def add(self, path: Path, ids: np.ndarray) -> None:
        """Copies a shard of this disk there, and with the first one what tells people of them. Raises Unreachable."""
        if not self._shards and (path.parent / ENTRY_FILE).exists():
            upload(path.parent / ENTRY_FILE, joined_url(self.url, ENTRY_FILE))
        upload(path, joined_url(self.url, path.name))
        with self._lock:
            self._shards[path.name] = ids
            self._index()

    @property
    def _known(self) -> Collection[str]:
        return self._shards.keys() | self._damaged

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
            return np.empty(0, [("id", ID)])

    def _ignore(self, name: str) -> None:
        self._damaged.add(name)
        self._shards.pop(name, None)
        self._tell(f"cache: {joined_url(self.url, name)} is damaged; its photos are computed again. Remove it")

    def _index(self) -> None:
        ids = np.concatenate([np.empty(0, ID), *self._shards.values()])
        names = np.repeat(np.array(list(self._shards), object), [len(ids) for ids in self._shards.values()])
        order = np.argsort(ids, kind="stable")
        self._ids, self._names = ids[order], names[order]


def rows_claimed(rows: Mapping[str, np.ndarray], key: str, ids: np.ndarray) -> bool:
    """Whether a claim, the ids of each entry, has one of these rows of an entry."""
    return key in rows and bool(np.isin(ids, rows[key]).any())
