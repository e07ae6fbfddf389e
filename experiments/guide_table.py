"""The table of `benchmark.py --sections guide --json FILE`: `python experiments/guide_table.py FILE...`.

docs/evidence.md has that of experiments/results/guide. A way's seeds are compared with the guide's same seeds, photo by
photo, so that an interval is for other seeds and other test photos; each is of one comparison, whatever others there
are. Seconds are the median CPU time of the processes, which hangs little on what else a machine does.
"""

import collections
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

from ktl.cli.flags import Parser
from ktl.errors import UserError
from ktl.stored import check_type

BASELINE = "keras_guide"

WAYS = {
    BASELINE: "Keras guide",
    "keras_guide_of_all": "Keras guide, on validation photos too, all epochs",
    "default_run": "default run",
    "chosen_head": "`--head auto`",
    "keras_fine_tuning": "Keras guide, then all layers at 1e-5",
    "timm_fine_tuning": "timm's fine-tuning",
}
"""Way of the section -> what the table calls it; others are left out."""

HEADER = (
    "data set",
    "way",
    "test top-1, %",
    "difference to the Keras guide, points",
    "validation top-1, %",
    "CPU seconds",
)


class Measured(TypedDict):
    """What the table has of a measurement; `correct` has a 0 or a 1 for each test photo."""

    round: int
    test_top1: float
    cpu_seconds: float
    validation_top1: NotRequired[float]
    correct: NotRequired[str]
    note: NotRequired[str]


Rows = Sequence[Measured]


def main() -> int:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    try:
        print(*table(parser.parse_args().files), sep="\n")
    except UserError as error:
        print(f"guide_table.py: {error}", file=sys.stderr)
        return 2
    return 0


def table(files: Sequence[Path]) -> Iterator[str]:
    """Lines of Markdown."""
    for cells in (HEADER, ["---"] * len(HEADER)):
        yield f"| {' | '.join(cells)} |"
    for file in files:
        dataset, ways = read(file)
        for way, rows in ways.items():
            yield f"| {dataset} | {' | '.join(cells_of(way, rows, ways.get(BASELINE, ())))} |"


def read(file: Path) -> tuple[str, dict[str, Rows]]:
    """Name of the data set, and way -> a row a seed.

    Raises:
        UserError: it is no such file.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        dataset, measured = Path(found["settings"]["dataset"]).name, found["measured"]
        scored = [row for row in measured if row["section"] == "guide" and row["way"] in WAYS and "test_top1" in row]
        for row in scored:
            check_type(row, Measured, path=file)
        if len({len(row["correct"]) for row in scored if "correct" in row}) > 1 or not scored:
            raise ValueError("no measurements, or of different test photos")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"Expected a file that benchmark.py --sections guide --json wrote. Received: {file}") from error
    ways = {way: [row for row in scored if row["way"] == way] for way in WAYS}
    return dataset, {way: rows for way, rows in ways.items() if rows}


def cells_of(way: str, rows: Rows, baseline: Rows) -> tuple[str, ...]:
    """A way's cells, but for the data set."""
    heads = collections.Counter(row.get("note", "unknown") for row in rows) if way == "chosen_head" else {}
    taken = ", ".join(f"`{head}` {count} of {len(rows)}" for head, count in heads.items())
    return (
        WAYS[way] + (f": {taken}" if taken else ""),
        spread([100 * row["test_top1"] for row in rows]),
        difference(rows, baseline) if way != BASELINE else "",
        spread([100 * row["validation_top1"] for row in rows if "validation_top1" in row]),
        f"{statistics.median(row['cpu_seconds'] for row in rows):.0f}",
    )


def spread(values: Sequence[float]) -> str:
    """The mean, and the standard deviation of several."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}" if values else ""


def difference(rows: Rows, baseline: Rows) -> str:
    """Of test top-1, with a 95 % interval where two seeds or more have both."""
    import numpy as np

    from ktl.evaluation.differences import paired_difference

    hits = [{row["round"]: row["correct"] for row in each if "correct" in row} for each in (rows, baseline)]
    both = sorted(hits[0].keys() & hits[1].keys())
    if len(both) < 2:
        return ""
    first, second = (np.array([[int(hit) for hit in each[seed]] for seed in both]) for each in hits)
    found = paired_difference(first, second).interval()
    return f"{100 * found.estimate:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


if __name__ == "__main__":
    sys.exit(main())
