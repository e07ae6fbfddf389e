"""Labels for photos: files, folders or a list of names in; a table, CSV or JSON lines out."""

import collections
import csv
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.table import Column, Table
from rich.text import Text

from ktl.cli.console import output_console
from ktl.data.images import SUFFIXES, BadPhoto, view_of
from ktl.data.input_pipeline import LISTED_PHOTOS, photo_threads
from ktl.data.loading import is_shown
from ktl.errors import UserError
from ktl.inference.predictor import TOP_K, Classifier
from ktl.progress import Reporter

BATCH_SIZE = 64
"""Photos that the network sees at a time."""

BATCHES_AHEAD = 2
"""Batches that are decoded while the network has one: one that is ready next, and one to make up for large photos."""

STANDARD_INPUT = "-"

COLUMNS = ("photo", "label", "probability", "runner_up", "runner_up_probability")


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
        raise UserError(f"Expected photos, or folders with photos ({', '.join(sorted(SUFFIXES))}). Received: {listed}")
    return photos


def print_predictions(
    classifier: Classifier, names: Iterable[str], *, form: str = "table", reporter: Reporter | None = None
) -> int:
    """Prints what a network says of photos on standard output, and names those that cannot be read.

    Args:
        classifier: from `ktl.inference.predictor.load_classifier`.
        names: see `find_photos`.
        form: of `FORMS`.
        reporter: is told of the progress, and of the photos that cannot be read.

    Returns:
        The exit code: 0, or 1 if there are photos that cannot be read.

    Raises:
        UserError: there are no photos, or none that can be read.
    """
    reporter = reporter or Reporter()
    photos, bad = find_photos(names), []
    # Rows that come one by one on a terminal are its progress, and a bar would be drawn over them.
    shown = Reporter() if form != "table" and sys.stdout.isatty() else reporter
    FORMS[form](_readable(predict(classifier, photos, reporter=shown), bad))
    if len(bad) == len(photos):
        listed = "; ".join(f"{photo.photo} ({photo.reason})" for photo in bad[:LISTED_PHOTOS])
        more = "; ..." if len(bad) > LISTED_PHOTOS else ""
        raise UserError(f"Expected photos that can be read. Received: {len(bad)} that cannot: {listed}{more}")
    for photo in bad:
        reporter.message(f"{photo.photo}: {photo.reason}")
    return 1 if bad else 0


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


def _readable(predictions: Iterable[Prediction], bad: list[Prediction]) -> Iterator[Prediction]:
    """The predictions of photos that were read; `bad` gets the others."""
    for prediction in predictions:
        if prediction.reason is None:
            yield prediction
        else:
            bad.append(prediction)


def _standard_input() -> list[str]:
    return [os.fsdecode(line) for line in sys.stdin.buffer.read().splitlines() if line]


def _photos_at(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(
        photo
        for photo in path.rglob("*")
        if photo.suffix.lower() in SUFFIXES
        and photo.is_file()
        and all(is_shown(part) for part in photo.relative_to(path).parts)
    )


def _row(prediction: Prediction) -> tuple[str, ...]:
    """The values of `COLUMNS`."""
    best = [(label, f"{probability:.6f}") for label, probability in prediction.top[:2]]
    return (_printable(prediction.photo), *itertools.chain(*best), *("", "") * (2 - len(best)))


def _printable(name: str) -> str:
    """A file's name may be bytes in no encoding; what stands for those cannot be printed."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _print_table(predictions: Iterable[Prediction]) -> None:
    rows = [_row(prediction) for prediction in predictions]
    columns = [
        Column(title.replace("_", " "), overflow="fold", justify="right" if "probability" in title else "left")
        for title in COLUMNS
    ]
    table = Table(*columns)
    for row in rows:
        table.add_row(*map(Text, row))  # names with brackets are no markup
    if rows:
        output_console().print(table)


def _print_csv(predictions: Iterable[Prediction]) -> None:
    # Made before the first photo: while a bar is shown on standard error, `sys.stdout` leads there.
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(map(_row, predictions))


def _print_json(predictions: Iterable[Prediction]) -> None:
    """An object a line, so that millions need no memory and an interrupt leaves what is done."""
    output = sys.stdout
    for prediction in predictions:
        labels, probabilities = zip(*prediction.top, strict=True)
        row = {
            "photo": prediction.photo,
            "label": labels[0],
            "top_k_labels": labels,
            "top_k_probabilities": probabilities,
        }
        print(json.dumps(row), file=output)


FORMS = {"table": _print_table, "csv": _print_csv, "json": _print_json}
"""How predictions are printed."""
