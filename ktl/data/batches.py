"""Batches of NumPy arrays by their number, and things that threads make ahead of whoever takes them."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from ktl.data.images import WORKERS, photo_threads

LOOK_AHEAD = 2
"""How many batches wait for whoever takes them; those that are being made come on top."""

Batch = tuple[np.ndarray, ...]
"""What a network reads, what it is to give, and how much that counts if not all count alike."""

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


class ArraySpec(NamedTuple):
    """The shape of an array, None where it differs from batch to batch, and its dtype's name."""

    shape: tuple[int | None, ...]
    dtype: str


@dataclasses.dataclass(frozen=True, eq=False)
class Batches(Sequence[Batch]):
    """Pairs (x, y) of arrays, or (x, y, weights), each made anew when it is asked for: as often as wanted, by several
    threads at a time.

    Neither Keras nor TensorFlow is needed: who trains wraps them for its backend. They are no `keras.utils.PyDataset`:
    of one, Keras' TensorFlow trainer makes the first two batches twice, to learn what is known here; with several
    workers, it makes all of them once more after the last; and it takes them from a generator, see `ktl.data.tf_data`.

    Attributes:
        length: how many there are.
        make: a batch, by its number from 0; a pure function.
        specs: of x and y, and weights if there are any.
        threads: how many make batches at a time while these are iterated over.
    """

    length: int
    make: Callable[[int], Batch]
    specs: tuple[ArraySpec, ...]
    threads: int = WORKERS

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number) -> Batch:
        if not 0 <= number < self.length:
            raise IndexError(number)
        return self.make(number)

    def __iter__(self) -> Iterator[Batch]:
        return made_ahead(self.make, range(self.length), threads=self.threads)


class Rows(Protocol):
    """What the frozen layers give for the photos of a split, read by rows, wherever they lie.

    Attributes:
        labels: int32 [photos].
        views: of each photo; a row is photo * views + view.
        shape: of one row.
        dtype: of all.
        nbytes: of all rows.
        at_url: whether rows are read at a URL.
    """

    labels: np.ndarray
    views: int
    shape: tuple[int, ...]
    dtype: Any

    @property
    def nbytes(self) -> int: ...

    @property
    def at_url(self) -> bool: ...

    def __len__(self) -> int:
        """Of the photos."""
        ...

    def read(self, rows: np.ndarray) -> Any:
        """[len(rows), *shape]"""
        ...


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RowBatches(Batches):
    """Batches that tell which rows they are of: who has all rows at hand needs no batch to be made.

    Attributes:
        source: has the rows.
        rows: of a batch, by its number: int64 [batch].
    """

    source: Rows
    rows: Callable[[int], np.ndarray]


def made_ahead(
    make: Callable[[_Given], _Made], given: Iterable[_Given], *, threads: int = WORKERS, waiting: int = LOOK_AHEAD
) -> Generator[_Made, None, None]:
    """`make` of each thing that is given, in order; several are made at a time, while the caller uses those before.

    What `make` raises is raised here, in its turn. The threads end with the iterator, also where it is dropped early.

    Args:
        make: is called by several threads.
        given: is read as far as things are made.
        threads: how many there are.
        waiting: how many things may wait for the caller.
    """
    rest = iter(given)
    with photo_threads(threads) as pool:
        ahead = collections.deque(pool.submit(make, each) for each in itertools.islice(rest, threads + waiting))
        while ahead:
            made = ahead.popleft().result()
            ahead.extend(pool.submit(make, each) for each in itertools.islice(rest, 1))
            yield made
