"""Shards between this disk and a URL: copied here as far as there is room, and there once they are written."""

import collections
import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from ktl.features.names import PARTIAL
from ktl.features.shards import DamagedShard, Shard
from ktl.features.shards_at import ShardsAt, rows_claimed
from ktl.features.store import Entry, FeatureStore
from ktl.remote import download, joined_url

COPIES = 4
"""How many shards are copied here at a time."""

BACKLOG = 2
"""How many shards may wait for their copy to a URL: they are on this disk and cannot give way."""


def copies_wanted(store: FeatureStore, entry: Entry, ids: np.ndarray) -> dict[str, np.ndarray]:
    """The shards that `fetch` copies: those with rows of an entry which only its URL has, as many as have room beside
    the rows that are here; none of an entry without a URL. Name -> the ids of all its rows."""
    if entry.at is None:
        return {}
    held = sum(len(shard.ids) for shard in entry.shards_with(ids))
    wanted, rows = {}, store.limit_bytes // entry.row_bytes - held
    for name, of_shard in entry.at.shards_with(ids[entry.away(ids)]).items():
        rows -= len(of_shard)
        if rows < 0:
            break
        wanted[name] = of_shard
    return wanted


def fetch(
    store: FeatureStore, entry: Entry, ids: np.ndarray, *, progress: Callable[[int], None] = lambda done: None
) -> None:
    """Copies shards here, see `copies_wanted`; the rows of the others are read where they are.

    Each is checked, row by row, before it counts; a damaged one is told of, and its rows are missing then.

    Args:
        store: whose entry it is.
        entry: where the rows are to be.
        ids: the rows.
        progress: called with the number of rows that have come.

    Raises:
        UserError: the URL cannot be reached.
    """
    wanted = copies_wanted(store, entry, ids)
    if entry.at is None or not wanted:
        return
    store.make_room(sum(map(len, wanted.values())) * entry.row_bytes, keep=entry.shards_with(ids))
    came = 0
    with ThreadPoolExecutor(COPIES) as pool:
        copies = pool.map(_Fetching(store, entry, entry.at), wanted.keys(), wanted.values())
        try:
            for _, of_shard in zip(copies, wanted.values(), strict=True):
                came += int(np.isin(of_shard, ids).sum())
                progress(came)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            pool.shutdown(cancel_futures=True)
            store.tell(f"cache: no space left in {store.folder}; what has none is read at {store.place}")
    entry.refresh()


class _Fetching:
    """Copies one shard at a time, each as a claim: of several processes that want it, one does, and the others wait."""

    def __init__(self, store: FeatureStore, entry: Entry, at: ShardsAt):
        self._store, self._entry, self._at = store, entry, at

    def __call__(self, name: str, ids: np.ndarray) -> None:
        claims, path = self._store.claims, self._entry.folder / name
        with contextlib.ExitStack() as planning:
            planning.enter_context(claims.planning())
            self._entry.make()
            others = claims.living()
            claimed = [other for other, rows in others.items() if rows_claimed(rows, self._entry.key, ids)]
            if not claimed and not path.exists():
                with claims.taken({self._entry.key: ids}, planning.close) as claim:
                    self._copy(name, self._entry.folder / f"{claim}{PARTIAL}")
        for other in claimed:
            claims.wait(other)

    def _copy(self, name: str, partial: Path) -> None:
        try:
            download(joined_url(self._at.url, name), partial)
            Shard(partial, key=self._entry.key, row_bytes=self._entry.row_bytes).check()
            os.replace(partial, partial.with_name(name))
        except DamagedShard:
            self._at.pass_over(name)
        except FileNotFoundError:  # it was removed there just now
            self._at.pass_over(name, gone=True)
        finally:
            partial.unlink(missing_ok=True)


def lacking_at_url(entry: Entry) -> list[Shard]:
    """The shards of this disk with a row that the entry's URL does not have; none of an entry without one."""
    at = entry.at
    return [] if at is None else [shard for shard in list(entry.shards) if not at.has(shard.ids).all()]


class Sharing:
    """Copies shards to their entries' URL while others are computed; at the end of the block all of them are there."""

    def __init__(self):
        self._pool = ThreadPoolExecutor(1)
        self._copies: collections.deque[Future] = collections.deque()

    def __enter__(self) -> "Sharing":
        return self

    def written(self, entries: Sequence[Entry]) -> None:
        """Copies what entries have now and their URL does not, and waits while more than `BACKLOG` copies are to come.
        Raises Unreachable where a copy has failed."""
        for entry in entries:
            entry.refresh()
            for shard in lacking_at_url(entry):
                self._copies.append(self._pool.submit(_copy_there, entry, shard))
        while self._copies and (len(self._copies) > BACKLOG or self._copies[0].done()):
            self._copies.popleft().result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for copy in self._copies:
                copy.result()


def _copy_there(entry: Entry, shard: Shard) -> None:
    if entry.at is not None and not entry.at.has(shard.ids).all() and shard.path.exists():
        entry.at.add(shard.path, shard.index)
