"""Filling a store: what is missing is computed shard by shard, by as many processes as want it, each shard by one."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from ktl.features.shards import ShardWriter
from ktl.features.sharing import BACKLOG, Sharing, lacking_at_url
from ktl.features.store import Entry, FeatureStore

SHARD_ROWS, SHARD_BYTES = 2048, 2**30
"""The most that a shard has: what a killed process computes again, and what one process computes for the others."""

Compute = Callable[[Sequence[Entry], np.ndarray], Iterator[tuple[np.ndarray, Sequence[np.ndarray]]]]
"""From entries and row ids to those ids in parts, each with its rows [ids, ...] for every entry."""


class _Claimed(NamedTuple):
    """What this process computes next: rows that the same entries lack."""

    entries: list[Entry]
    ids: np.ndarray


def fill(
    store: FeatureStore,
    entries: Sequence[Entry],
    ids: np.ndarray,
    compute: Compute,
    *,
    shard_rows: int = SHARD_ROWS,
    progress: Callable[[int], None] = lambda done: None,
    waiting: Callable[[], None] = lambda: None,
) -> None:
    """Computes the rows that entries lack, each shard of all of them in one pass, and shares the work with others.

    Args:
        store: where they go.
        entries: of the store.
        ids: the rows that all of them are to have.
        compute: see `Compute`.
        shard_rows: the most that a shard has.
        progress: called with the number of ids that were missing and are there.
        waiting: called once if all that is missing is being computed by other processes.

    Raises:
        OSError: the disk is full; whole shards stay.
        UserError: something else has an entry's name, or the store's URL cannot be reached.
    """
    missing, waiting = _missing(entries, ids), functools.cache(waiting)
    if not len(missing):
        return
    _make_room(store, entries, ids, shard_rows)
    with Sharing() as sharing:
        while True:
            with contextlib.ExitStack() as planning:
                planning.enter_context(store.claims.planning())
                others = store.claims.living()
                claimed, left = _plan(entries, missing, list(others.values()), shard_rows)
                done = len(missing) - left
                progress(done)
                if claimed is not None:
                    rows = {entry.key: claimed.ids for entry in claimed.entries}
                    with store.claims.taken(rows, planning.close) as name:
                        _write(name, claimed, compute, progress=lambda count, done=done: progress(done + count))
            if not left:
                return
            if claimed is None:
                waiting()
                store.claims.wait(next(name for name, rows in others.items() if _is_wanted(rows, entries)))
                continue
            sharing.written(claimed.entries)
            if store.url:
                _make_room(store, entries, missing, shard_rows)


def _is_wanted(rows: Mapping[str, np.ndarray], entries: Sequence[Entry]) -> bool:
    """Whether a claim, the ids of each entry, is for one of these entries."""
    return any(entry.key in rows for entry in entries)


def working_bytes(row_bytes: Sequence[int], *, shard_rows: int = SHARD_ROWS) -> int:
    """The most that computing takes of this disk where what is computed goes to a URL: the shards that wait for their
    copy, and those that are written.

    Args:
        row_bytes: size of a row of each entry.
        shard_rows: the most that a shard has.
    """
    return (BACKLOG + len(row_bytes)) * _rows_a_shard(row_bytes, shard_rows) * max(row_bytes)


def _rows_a_shard(row_bytes: Sequence[int], shard_rows: int) -> int:
    return min(shard_rows, max(1, SHARD_BYTES // max(row_bytes)))


def _missing(entries: Sequence[Entry], ids: np.ndarray) -> np.ndarray:
    """The ids of rows that entries lack, each once, in the order in which photos are read."""
    ids, first = np.unique(ids, return_index=True)
    ids = ids[np.argsort(first)]
    return ids[np.any([entry.lacks(ids) for entry in entries], axis=0)]


def _make_room(store: FeatureStore, entries: Sequence[Entry], ids: np.ndarray, shard_rows: int) -> None:
    """Makes room for all rows that entries lack, beside those that they have; where what is computed goes to a URL, for
    the shards of one pass beside those that are not there yet."""
    if store.url:
        row_bytes = [entry.row_bytes for entry in entries]
        size = min(len(ids), _rows_a_shard(row_bytes, shard_rows)) * sum(row_bytes)
        keep = [shard for entry in entries for shard in lacking_at_url(entry)]
    else:
        size = sum(int(entry.lacks(ids).sum()) * entry.row_bytes for entry in entries)
        keep = [shard for entry in entries for shard in entry.shards_with(ids)]
    store.make_room(size, keep=keep)


def _plan(
    entries: Sequence[Entry], ids: np.ndarray, claims: Sequence[dict[str, np.ndarray]], shard_rows: int
) -> tuple[_Claimed | None, int]:
    """What is to be computed by this process, None where others do all of it; and how many ids are not there yet."""
    for entry in entries:
        entry.make()
        entry.refresh()
    lacks = np.array([entry.lacks(ids) for entry in entries])
    left = int(lacks.any(axis=0).sum())
    for number, entry in enumerate(entries):
        for claim in claims:
            if entry.key in claim:
                lacks[number] &= ~np.isin(ids, claim[entry.key])
    free = np.flatnonzero(lacks.any(axis=0))
    if not len(free):
        return None, left
    pattern = lacks[:, free[0]]
    same = free[(lacks[:, free] == pattern[:, None]).all(axis=0)]
    chosen = [entry for entry, wanted in zip(entries, pattern, strict=True) if wanted]
    most = _rows_a_shard([entry.row_bytes for entry in chosen], shard_rows)
    return _Claimed(chosen, ids[same[:most]]), left


def _write(name: str, claimed: _Claimed, compute: Compute, *, progress: Callable[[int], None]) -> None:
    """Computes a shard of each entry and writes it."""
    with contextlib.ExitStack() as files:
        writers = []
        for entry in claimed.entries:
            writers.append(ShardWriter(entry.folder, name=name, key=entry.key, row_bytes=entry.row_bytes))
            files.callback(writers[-1].close)
        pool = files.enter_context(futures.ThreadPoolExecutor(1))  # writes while the next batch computes
        written, done = pool.submit(lambda: None), 0
        for ids, values in compute(claimed.entries, claimed.ids):
            written.result()
            written = pool.submit(_append_all, writers, ids, values)
            done += len(ids)
            progress(done)
        written.result()
        for writer in writers:
            writer.finish()


def _append_all(writers: Sequence[ShardWriter], ids: np.ndarray, values: Sequence[np.ndarray]) -> None:
    for writer, value in zip(writers, values, strict=True):
        writer.append(ids, value)
