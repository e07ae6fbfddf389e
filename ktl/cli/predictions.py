"""What `ktl predict` prints: a table, CSV, or a JSON object a line."""

import csv
import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator

from rich.table import Column, Table

from ktl.cli.flags import PORTIONS
from ktl.cli.runner import check_runner, runner_flags
from ktl.cli.tables import output_console, visible
from ktl.data.found import lines_of
from ktl.data.input_pipeline import LISTED_PHOTOS
from ktl.distributed.portions import all_portions, portion_of
from ktl.distributed.predictions import ListedPhotos
from ktl.errors import UserError, one_line
from ktl.inference.photos import expanded, find_photos, passed_over_at, place_of
from ktl.inference.predict import COLUMNS, Prediction, label_photos, row_of
from ktl.inference.predictor import Predictor
from ktl.progress import Reporter


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
        for line in lines_of(passed_over_at(place_of(name))):
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


def check_flags(options: Namespace) -> None:
    """Raises UserError where `ktl predict` was given no photos, or flags that exclude each other."""
    if bool(options.photos) == bool(options.list):
        received = "both" if options.photos else "neither"
        raise UserError(f"Expected photos, or a file of their names with `list`. Received: {received}")
    alone = [name for name in ("output", "shards", "shard", "runner") if getattr(options, name) is not None]
    if not options.list and alone:
        raise UserError(f"Expected `list` with `{alone[0]}`. Received: none")
    check_runner(options, needed_by=("runner_options",))
    if options.list and not options.output:
        raise UserError("Expected `output`, a folder for the predictions, with `list`. Received: none")
    if options.list and options.form != "table":
        raise UserError(f"Expected CSV files with `list`. Received: --{options.form}, which prints")


def write_predictions(predictor: Predictor, options: Namespace, *, reporter: Reporter) -> int:
    """Writes the portions of a list to CSV files, and says what was done; the exit code is that of the others."""
    count = (PORTIONS if options.runner else 1) if options.shards is None else options.shards
    portions = [portion_of(options.shard)] if options.shard else all_portions(count)
    places = {"model": options.model, "names": options.list, "output": options.output}
    work = ListedPhotos(predictor, **places)
    if options.runner:
        from ktl.distributed.beam import label_on_beam

        label_on_beam(**places, runner=options.runner, portions=count, options=runner_flags(options))
    bad = 0
    for portion in portions:
        done = work.label(portion, reporter=reporter)
        bad += done.bad_photos
        print(f"shard {portion}: {done.photos:,} photos, {done.bad_photos:,} cannot be read, in {done.path}")
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


def _print_table(predictions: Iterable[Prediction]) -> None:
    rows = [row_of(prediction) for prediction in predictions]
    columns = [
        Column(title.replace("_", " "), overflow="fold", justify="right" if "probability" in title else "left")
        for title in COLUMNS
    ]
    table = Table(*columns)
    for row in rows:
        table.add_row(*visible(*row))
    if rows:
        output_console().print(table)


def _print_csv(predictions: Iterable[Prediction]) -> None:
    # Made before the first photo: while a bar is shown on standard error, `sys.stdout` leads there.
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(map(row_of, predictions))


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
