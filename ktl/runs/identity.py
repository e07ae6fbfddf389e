"""What work began with: the photos of each split, and files that the settings name. dataset.json holds it."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ktl.copies import local_file
from ktl.data.dataset import Dataset
from ktl.files import digest

DECISIVE = ("photos", "splits", "files")
"""What may not change; `listed` only tells why it has."""


AT_A_TIME = 4096
"""Photos whose names are written at a time."""


def identity_of(dataset: Dataset, files: Iterable[str]) -> dict[str, Any]:
    """How many photos each split has, a digest of which, one of which there are in all, and digests of the files.

    Computed photo by photo: neither a copy of their names nor an order of all of them is made.
    """
    return {
        "photos": {split.name: len(split) for split in dataset.splits},
        "splits": _digest_of_splits(dataset),
        "listed": _digest_in_any_order(
            (photo, dataset.class_names[label])
            for split in dataset.splits
            for photo, label in zip(split.photos, split.labels, strict=True)
        ),
        "files": {path: _digest_of_file(path) for path in files},
    }


def _digest_of_file(place: str) -> str:
    with local_file(place, argument="files") as path:
        return digest(path)


def difference_between(
    recorded: Mapping[str, Any] | None, found: Mapping[str, Any], *, set_aside: Sequence[str]
) -> str | None:
    """What is not as it was, for an error; None where all is, or nothing was recorded.

    Args:
        recorded: an `identity_of` that was written down, by an earlier version too.
        found: that of now.
        set_aside: splits that ktl has drawn from the training photos.
    """
    if recorded is None or all(recorded.get(name) == found[name] for name in DECISIVE):
        return None
    if all(recorded.get(name) == found[name] for name in ("listed", "files")):
        drawn = f"; {' and '.join(set_aside)} are drawn by ktl, which may draw otherwise since an update"
        return f"the same photos and classes in other splits{drawn if set_aside else ''}"
    return f"others, of now {found['photos']} photos{''.join(f', {path}' for path in found['files'])}"


def _digest_of_splits(dataset: Dataset) -> str:
    """Of the `repr` of (class names, [(split's name, its photos, its labels), ...]), written in parts."""
    found = hashlib.sha256(f"({dataset.class_names!r}, [".encode())
    for number, split in enumerate(dataset.splits):
        one = "," if len(split) == 1 else ""  # as a tuple of one has it
        begin = f"{', ' * (number > 0)}({split.name!r}, ("
        for part in itertools.chain([begin], _parts(split.photos), [f"{one}), ["], _parts(split.labels), ["])"]):
            found.update(part.encode())
    found.update(b"])")
    return found.hexdigest()


def _parts(values: Sequence | np.ndarray) -> Iterator[str]:
    for start in range(0, len(values), AT_A_TIME):
        part = values[start : start + AT_A_TIME]
        yield ", " * (start > 0) + repr(part.tolist() if isinstance(part, np.ndarray) else list(part))[1:-1]


def _digest_in_any_order(values: Iterable[object]) -> str:
    """A digest of which values there are, and how often, in whatever order."""
    digests = (hashlib.sha256(repr(value).encode()).digest() for value in values)
    return f"{sum(map(int.from_bytes, digests)) % 2**256:064x}"
