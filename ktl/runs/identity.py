"""What work began with: the photos of each split, and files that the settings name. dataset.json holds it."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ktl.data.dataset import Dataset
from ktl.files import digest

DECISIVE = ("photos", "splits", "files")
"""What may not change; `listed` only tells why it has."""


def identity_of(dataset: Dataset, files: Iterable[str]) -> dict[str, Any]:
    """How many photos each split has, a digest of which, one of which there are in all, and digests of the files."""
    members = [(split.name, split.photos, split.labels.tolist()) for split in dataset.splits]
    listed = sorted(pair for _, photos, labels in members for pair in zip(photos, labels, strict=True))
    return {
        "photos": {name: len(photos) for name, photos, _ in members},
        "splits": _digest_of(dataset.class_names, members),
        "listed": _digest_of(dataset.class_names, listed),
        "files": {path: digest(path) for path in files},
    }


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


def _digest_of(*values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()
