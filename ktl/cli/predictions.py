"""What `ktl predict` prints: a table, CSV, or a JSON object a line."""

import csv
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

from ktl.cli.console import output_console
from ktl.data.found import lines_of
from ktl.data.input_pipeline import LISTED_PHOTOS
from ktl.errors import UserError, one_line
from ktl.inference.photos import expanded, find_photos, passed_over_at
from ktl.inference.predict import Prediction, label_photos
from ktl.inference.predictor import Predictor
from ktl.progress import Reporter

COLUMNS = ("photo", "label", "probability", "runner_up", "runner_up_probability")


def print_predictions(
    predictor: Predictor, names: Iterable[str], *, form: str = "table", reporter: Reporter | None = None
) -> int:
    """Prints what a network says of photos on standard output, and names those that cannot be read.

    Args:
        predictor: from `ktl.inference.predictor.load_predictor`.
        names: see `ktl.inference.photos.find_photos`.
        form: of `FORMS`.
        reporter: is told of the progress, and of the photos that cannot be read.

    Returns:
        The exit code: 0, or 1 if there are photos that cannot be read.

    Raises:
        UserError: there are no photos, or none that can be read.
    """
    reporter = reporter or Reporter()
    names = expanded(names)
    for name in names:
        for line in lines_of(passed_over_at(Path(name))):
            reporter.message(line)
    photos, bad = find_photos(names), []
    # Rows that come one by one on a terminal are its progress, and a bar would be drawn over them.
    shown = Reporter() if form != "table" and sys.stdout.isatty() else reporter
    FORMS[form](_readable(label_photos(predictor, photos, reporter=shown), bad))
    if len(bad) == len(photos):
        listed = "; ".join(f"{_visible(photo.photo)} ({photo.reason})" for photo in bad[:LISTED_PHOTOS])
        more = "; ..." if len(bad) > LISTED_PHOTOS else ""
        raise UserError(f"Expected photos that can be read. Received: {len(bad)} that cannot: {listed}{more}")
    for photo in bad:
        reporter.message(one_line(f"{_visible(photo.photo)}: {photo.reason}"))
    return 1 if bad else 0


def _visible(name: str) -> str:
    return name if name.strip() else repr(name)


def _readable(predictions: Iterable[Prediction], bad: list[Prediction]) -> Iterator[Prediction]:
    """The predictions of photos that were read; `bad` gets the others."""
    for prediction in predictions:
        if prediction.reason is None:
            yield prediction
        else:
            bad.append(prediction)


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
