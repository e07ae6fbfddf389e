"""Labels for photos: files, folders or a list of names in, one prediction a photo out."""

import collections
import dataclasses
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ktl.data.directory import is_shown
from ktl.data.images import PHOTO_SUFFIXES, BadPhoto, view_of
from ktl.data.input_pipeline import LISTED_PHOTOS, photo_threads
from ktl.errors import UserError
from ktl.inference.predictor import TOP_K, Classifier
from ktl.progress import Reporter

BATCH_SIZE = 64
"""Photos that the network sees at a time."""

BATCHES_AHEAD = 2
"""Batches that are decoded while the network has one: one that is ready next, and one to make up for large photos."""

STANDARD_INPUT = "-"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a network says of one photo.

    Attributes:
        photo: its name.
        top: (label, probability) of the `TOP_K` most probable classes, the best first; empty if it cannot be read.
        reason: why it cannot be read; else None.
    """

    photo: str
    top: tuple[tuple[str, float], ...] = ()
    reason: str | None = None


def predict(
    classifier: Classifier, photos: Sequence[str | Path], *, reporter: Reporter | None = None
) -> Iterator[Prediction]:
    """Labels photos in their order; the next ones are decoded while the network has a batch.

    Args:
        classifier: from `ktl.inference.predictor.load_classifier`.
        photos: files. At most (BATCHES_AHEAD + 1) * BATCH_SIZE views of them are in memory.
        reporter: is told of the progress.

    Yields:
        One for each photo, one that cannot be read too.
    """
    done = 0
    with photo_threads() as pool, (reporter or Reporter()).photos("photos", len(photos)) as progress:
        for batch in _decoded(photos, classifier.image_size, pool):
            yield from _classified(classifier, batch)
            done += len(batch)
            progress(done)


def top_classes(classifier: Classifier, probabilities: np.ndarray) -> tuple[tuple[str, float], ...]:
    """(label, probability) of the `TOP_K` most probable classes, the best first, from float32 [classes]."""
    best = np.argsort(-probabilities, kind="stable")[:TOP_K]
    return tuple((classifier.class_names[index], float(probabilities[index])) for index in best)


def find_photos(names: Iterable[str]) -> list[Path]:
    """The photos that names stand for: a file is itself, a folder is all photos at any depth of it, sorted.

    Args:
        names: `-` stands for the names on standard input, one a line.

    Raises:
        UserError: they stand for no photo.
    """
    names = [name for given in names for name in (_standard_input() if given == STANDARD_INPUT else [given])]
    photos = [photo for name in names for photo in _photos_at(Path(name))]
    if not photos:
        listed = ", ".join(names[:LISTED_PHOTOS]) or "no name"
        raise UserError(f"Expected photos, or folders with photos ({', '.join(PHOTO_SUFFIXES)}). Received: {listed}")
    return photos


def _decoded(
    photos: Sequence[str | Path], size: int, pool: ThreadPoolExecutor
) -> Iterator[list[tuple[str, np.ndarray | BadPhoto]]]:
    """Batches of (photo, view or why there is none); the next batches are in the pool when one is given out."""

    def submit(batch: Sequence[str | Path]) -> list[tuple[str, Future]]:
        return [(f"{photo}", pool.submit(_view_in, photo, size)) for photo in batch]

    batches = (photos[start : start + BATCH_SIZE] for start in range(0, len(photos), BATCH_SIZE))
    waiting = collections.deque(map(submit, itertools.islice(batches, BATCHES_AHEAD)))
    while waiting:
        waiting.extend(map(submit, itertools.islice(batches, 1)))
        yield [(photo, _result(future)) for photo, future in waiting.popleft()]


def _view_in(photo: str | Path, size: int) -> np.ndarray:
    try:
        encoded = Path(photo).read_bytes()
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise BadPhoto(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return view_of(encoded, size=size)


def _result(future: Future) -> np.ndarray | BadPhoto:
    try:
        return future.result()
    except BadPhoto as error:
        return error


def _classified(classifier: Classifier, batch: list[tuple[str, np.ndarray | BadPhoto]]) -> Iterator[Prediction]:
    views = [view for _, view in batch if isinstance(view, np.ndarray)]
    rows = iter(classifier.classify(np.stack(views)) if views else ())
    for photo, view in batch:
        if isinstance(view, BadPhoto):
            yield Prediction(photo, reason=f"{view}")
        else:
            yield Prediction(photo, top_classes(classifier, next(rows)))


def _standard_input() -> list[str]:
    return [os.fsdecode(line) for line in sys.stdin.buffer.read().splitlines() if line]


def _photos_at(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(
        photo
        for photo in path.rglob("*")
        if photo.suffix.lower() in PHOTO_SUFFIXES
        and photo.is_file()
        and all(is_shown(part) for part in photo.relative_to(path).parts)
    )
