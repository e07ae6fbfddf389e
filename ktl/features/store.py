"""The feature store: what the frozen layers give for photos and views, on disk, shared by processes.

It only stores. What is computed, and whether that pays, is decided above it.
"""

import contextlib
import errno
import math
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ktl.features.claims import Claims
from ktl.features.digests import remove_memory
from ktl.features.folder import clear, files_of, make_entry, make_room, note_use, remove_file, used_bytes
from ktl.features.names import SHARD
from ktl.features.shards import ID, DamagedShard, Shard, open_shard
from ktl.features.shards_at import LostRows, ShardsAt
from ktl.folders import cache_folder
from ktl.names import is_url
from ktl.remote import joined_url, require_writable


def clear_folder(folder: Path, names: Collection[str] | None = None) -> int:
    """Removes the entries of these names from a cache folder, or everything of ktl's if None; the number of bytes.

    Others may read what they have open, and compute what they miss.
    """
    if not folder.is_dir():
        return 0
    claims = Claims(folder)
    with claims.planning():
        if names is None:
            remove_memory(folder)
        return clear(folder, names, busy=claims.busy())


class FeatureStore:
    """Features on disk, shared by runs, trials and processes.

    There is a folder for each prefix, named by everything that its numbers depend on but for the photos, and in it
    shards of rows, each found by its photo's bytes and its view. The shards used longest ago give way when new ones
    need their room.

    Args:
        folder: where they are; ktl's own in the user's cache folder if None, or if it is a URL: what is at that URL
            counts as there, and gets what is computed; this folder has copies of it, as many as have room, see
            `ktl.features.sharing`.
        limit_gib: the most that they take together, in GiB; half of the free disk if None.
        tell: is given a line where a file was damaged.

    Raises:
        OSError, RuntimeError: the folder cannot be made or written to, or there is none.
        UserError: something else is where ktl's own files go.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        limit_gib: float | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ):
        self.url = folder if is_url(folder) else None
        if self.url is not None:
            require_writable(self.url, argument="cache_dir")
        self.folder = Path(folder) if folder and not self.url else cache_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.folder))
        self.tell, self._entries = tell, {}
        self.claims = Claims(self.folder)
        with self.claims.planning():
            self.claims.living()  # removes what dead processes have left
        if limit_gib is None:
            limit_gib = (shutil.disk_usage(self.folder).free + used_bytes(self.folder)) / 2 / 2**30
        self.limit_bytes = int(limit_gib * 2**30)

    def entry(self, key: str, *, shape: Sequence[int], dtype: str, about: Mapping[str, Any]) -> "Entry":
        """The shards of one prefix, those that are there.

        Args:
            key: 32 hexadecimal digits that name everything that the numbers depend on.
            shape: of one row.
            dtype: of its numbers.
            about: what `ktl cache list` shows.
        """
        if key in self._entries:
            self._entries[key].refresh()
        else:
            url = self.url and joined_url(self.url, key)
            self._entries[key] = Entry(self.folder / key, tuple(shape), dtype, dict(about), self.tell, url=url)
        return self._entries[key]

    @property
    def place(self) -> Path | str:
        """What people call it: the folder, or the URL."""
        return self.url or self.folder

    def make_room(self, size: int, *, keep: Iterable[Shard]) -> None:
        """Removes what was used longest ago until so many bytes fit, or nothing but these shards is left."""
        paths = {shard.path for shard in keep}
        with self.claims.planning():
            make_room(self.folder, size=size, limit=self.limit_bytes, keep=paths, busy=self.claims.busy())

    def use(self, entry: "Entry", ids: np.ndarray, *, of: str) -> None:
        """Counts the shards of these rows as used now, by the data set of that name."""
        with self.claims.planning():
            entry.make()  # mends its mark
            note_use(entry.folder, of)
        for shard in entry.shards_with(ids):
            with contextlib.suppress(FileNotFoundError, PermissionError):  # removed just now; another user's
                os.utime(shard.path)


class Entry:
    """The shards of one prefix: what is there, by row ids.

    Attributes:
        shards: those of this disk.
        at: those at the store's URL; None without one.
    """

    def __init__(
        self,
        folder: Path,
        shape: tuple[int, ...],
        dtype: str,
        about: dict,
        tell: Callable[[str], None],
        *,
        url: str | None = None,
    ):
        self.folder, self.shape, self.dtype, self.about, self.tell = folder, shape, dtype, about, tell
        self.shards: list[Shard] = []
        self.at = ShardsAt(url, key=self.key, row_bytes=self.row_bytes, tell=tell) if url else None
        self.lock = threading.RLock()
        self._index()
        self.refresh()

    @property
    def key(self) -> str:
        """Names everything that the numbers depend on."""
        return self.folder.name

    @property
    def row_bytes(self) -> int:
        """Size of one row."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def make(self) -> None:
        """Makes the folder unless it is there. Raises UserError where something else has its name."""
        if not make_entry(self.folder, {**self.about, "shape": list(self.shape), "dtype": self.dtype}):
            self.tell(f"cache: {self.folder} had a damaged entry.json, which is mended")

    def refresh(self) -> None:
        """Looks again for what others have added and removed. A shard with a damaged index is removed."""
        if self.at:
            self.at.refresh()
        if self.folder.is_symlink():
            return  # `make` refuses it
        known = {shard.path: shard for shard in self.shards}
        found = [file.path for file in files_of(self.folder, SHARD)]
        if found == list(known):
            return
        self.shards = []
        for path in found:
            try:
                shard = known.get(path) or open_shard(path, key=self.key, row_bytes=self.row_bytes)
            except DamagedShard as damaged:
                self._remove(damaged.shard)
            except FileNotFoundError:
                continue
            else:
                self.shards.append(shard)
        self._index()

    def discard(self, shard: Shard) -> None:
        """Removes a damaged shard, and says so, unless that is done."""
        if shard in self.shards:
            self._remove(shard)
            self.shards.remove(shard)
            self._index()

    def find(self, ids: np.ndarray) -> np.ndarray:
        """Where rows are on this disk, [len(ids), 2]: the number of the shard and the row in it; -1 where none is."""
        if not len(self._ids):
            return np.full((len(ids), 2), -1)
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return np.where((self._ids[at] == ids)[:, None], self._places[at], -1)

    def shards_with(self, ids: np.ndarray) -> list[Shard]:
        """Those of this disk that have one of these rows."""
        return [self.shards[number] for number in np.unique(self.find(ids)[:, 0]) if number >= 0]

    def away(self, ids: np.ndarray) -> np.ndarray:
        """Which rows are not on this disk, bool [len(ids)]."""
        return self.find(ids)[:, 0] < 0

    def lacks(self, ids: np.ndarray) -> np.ndarray:
        """Which rows are not there, neither on this disk nor at the URL, bool [len(ids)]."""
        away = self.away(ids)
        return away & ~self.at.has(ids) if self.at else away

    def _remove(self, shard: Shard) -> None:
        is_there = os.path.lexists(shard.path)
        if is_there or not self.at:  # copies of what is at a URL give way without a word
            found = "was damaged and is removed" if is_there else "was removed by another command"
            then = f"what {self.at.url} lacks of its photos is" if self.at else "its photos are"
            self.tell(f"cache: {shard.path} {found}; {then} computed again")
        remove_file(shard.path)

    def _index(self) -> None:
        ids = np.concatenate([np.empty(0, ID), *(shard.ids for shard in self.shards)])
        numbers = np.repeat(np.arange(len(self.shards)), [len(shard.ids) for shard in self.shards])
        rows = np.concatenate([np.empty(0, int), *(np.arange(len(shard.ids)) for shard in self.shards)])
        order = np.argsort(ids, kind="stable")
        self._ids, self._places = ids[order], np.stack([numbers, rows], axis=1)[order]


class Features:
    """What the frozen layers give for one split: rows on this disk, and those at the store's URL that are not, which
    are read there. What is neither here nor there any more is computed again.

    Args:
        labels: int32 [photos].
        ids: of the rows, [photos * views], one photo's views after another; the store has all of them.
        views: views of each photo.
        entry: where the rows are.
        mend: computes what is missing; False where that cannot be.
    """

    def __init__(self, *, labels: np.ndarray, ids: np.ndarray, views: int, entry: Entry, mend: Callable[[], bool]):
        self.labels, self.views = labels, views
        self.shape, self.dtype = entry.shape, entry.dtype
        self._ids, self._entry, self._compute = ids, entry, mend
        self._here = list(entry.shards), entry.find(ids)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """Of all rows."""
        return len(self._ids) * self._entry.row_bytes

    @property
    def at_url(self) -> bool:
        """Whether rows are read at a URL."""
        return bool((self._here[1][:, 0] < 0).any())

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The features of some rows (photo * views + view), [len(rows), *shape]. What is damaged is computed again.

        Raises:
            OSError: it cannot be computed, the disk is full.
            Unreachable: the store's URL cannot be asked.
        """
        out = np.empty((len(rows), *self.shape), self.dtype)
        while True:
            try:
                self._read(rows, out)
                return out
            except DamagedShard as damaged:
                self._mend(damaged.shard)
            except LostRows:
                self._mend(None)

    def _read(self, rows: np.ndarray, out: np.ndarray) -> None:
        shards, places = self._here
        numbers, places = places[rows].T
        for number in np.unique(numbers[numbers >= 0]):
            chosen = np.flatnonzero(numbers == number)
            shards[number].read(places[chosen], [out[index] for index in chosen])
        away = np.flatnonzero(numbers < 0)
        if len(away):
            assert self._entry.at is not None  # without a URL all rows are here
            out[away] = self._entry.at.read(self._ids[rows[away]]).view(self.dtype).reshape(-1, *self.shape)

    def _mend(self, shard: Shard | None) -> None:
        with self._entry.lock:
            if shard is not None:
                self._entry.discard(shard)
            while self._entry.lacks(self._ids).any():  # more than once if another process needs the room at once
                if not self._compute():
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._entry.folder))
            self._here = list(self._entry.shards), self._entry.find(self._ids)
