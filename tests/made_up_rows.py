"""Made-up features, each a function of its id: what the tests of several modules of the store share."""

import numpy as np

from ktl.features.filling import fill
from ktl.features.shards import row_ids

SHAPE = (2, 5)
ROW_BYTES = 40
KEY = "0123456789abcdef" * 2


def ids_of(numbers, codes=(0,)) -> np.ndarray:
    """Row ids of made-up photos; every seventh digest ends in a zero."""
    digests = [bytes([number // 256, number % 256]) * 7 + bytes([7, number % 7]) for number in numbers]
    return row_ids(digests, codes)


def rows_of(ids, key=KEY) -> np.ndarray:
    """Float32 [ids, *SHAPE]."""
    seeds = [[*row.ljust(20, b"\0"), *key.encode()] for row in ids.tolist()]
    return np.array([np.random.default_rng(seed).normal(size=SHAPE) for seed in seeds], "float32").reshape(-1, *SHAPE)


def entry_of(store, key=KEY):
    return store.entry(key, shape=SHAPE, dtype="float32", about={"layers": "made_up"})


def compute(entries, ids, part=10):
    """As a pass does, a few rows at a time."""
    for start in range(0, len(ids), part):
        chosen = ids[start : start + part]
        yield chosen, [rows_of(chosen, entry.key) for entry in entries]


def filled(store, ids, *keys, **arguments):
    """The entries, with these rows; the first of them."""
    entries = [entry_of(store, key) for key in keys or (KEY,)]
    fill(store, entries, ids, arguments.pop("compute", compute), **arguments)
    for entry in entries:
        entry.refresh()
    return entries[0]
