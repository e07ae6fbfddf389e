"""Figures and tables of stored studies, for docs/results.md.

    python experiments/figures.py

What a study left in summary.csv and result.json, copied to experiments/results/NAME/, is all that it needs. It draws
depths.svg beside them, and shares.svg of a study with parts of the training photos, the same bytes each time, and
prints the Markdown of docs/results.md: for each stored study its figures, a table of its heads, and one of what they
reach with parts of the training photos. Those of version 0.1
are in experiments/results/0.1, which is its argument then; 3 seconds in all.
"""

import importlib.resources
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ktl.cli.flags import Parser
from ktl.errors import UserError
from ktl.files import write_atomically
from ktl.reporting.formatting import points

if TYPE_CHECKING:
    from ktl.reporting.study_subject import BestHead, Estimate, StudySubject

RESULTS = Path("experiments", "results")

DOCS = "docs"
"""Where the Markdown goes: links start there."""

HEADER = ("head", "frozen up to", "test top-1, %", "difference to `replaced`, points", "verdict")

PARTS_HEADER = ("training photos", *HEADER)

SMALLEST = "could have been shown, points"
"""Title of one more column; a study of version 0.1 does not know it."""

SIDE_BY_SIDE = (("kept_softened", "replaced_normalized"), ("kept_softmax_beside", "replaced_normalized"))
"""Heads that are compared with one another too: whether one that keeps the layer reaches one that does not."""

UNCOUNTED = "That other validation photos may choose other freeze depths is not counted in this table."
"""What is said of a study by a version that did not count it."""

LOOK = "svg { color: var(--ink); background: var(--surface); } svg * { stroke-linejoin: round; }"

FIGURES = {
    "depths": ("test top-1 by freeze depth", "freezing"),
    "shares": ("test top-1 by share of the training photos", "shares"),
}
"""Name of a file -> what it shows, and the report's section, of `ktl.reporting.study`, that has the figure."""


def main() -> None:
    parser = Parser(description="Figures and tables of stored studies, for docs/results.md.")
    parser.add_argument("results", nargs="?", type=Path, default=RESULTS, help=f"folder of folders; {RESULTS}")
    results = parser.parse_args().results
    folders = sorted(path.parent for path in results.glob("*/result.json"))
    try:
        if not folders:
            raise UserError(f"Expected folders with summary.csv and result.json. Received: none in {results}")
        for folder in folders:
            print(*lines(folder), sep="\n")
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def lines(folder: Path) -> Iterator[str]:
    """Draws a study's figures; gives the Markdown about it, line by line."""
    from ktl.reporting import study  # --help needs nothing heavy
    from ktl.reporting.study_subject import StudySubject, read_result

    subject = StudySubject(*read_result(folder))
    for name, (alternative, section) in FIGURES.items():
        if name == "depths" and len(subject.depths) == 1:
            continue  # a table says as much
        if values := getattr(study, section)(subject):
            path = folder / f"{name}.svg"
            write_atomically(path, standalone(values["figure"]))
            yield from (f"![{folder.name}: {alternative}]({os.path.relpath(path, DOCS)})", "")
    rows = sorted(subject.best.values(), key=lambda row: -row.test_top1.estimate)
    header = (*HEADER, SMALLEST) if subject.adjusted else HEADER
    for cells in (header, ["---"] * len(header), *map(cells_of, rows)):
        yield f"| {' | '.join(cells[: len(header)])} |"
    yield ""
    for pair in SIDE_BY_SIDE if subject.adjusted else ():
        if set(pair) <= subject.best.keys():
            yield from side_by_side(folder, *pair)
    if subject.adjusted and not subject.counts_choices:
        yield from (UNCOUNTED, "")
    if subject.adjusted:  # the docs have another account of version 0.1
        yield from parts_table(subject)


def side_by_side(folder: Path, first: str, second: str) -> Iterator[str]:
    """A line about two heads, from which photos each recognised."""
    from ktl.studies.evidence import read_evidence

    found = read_evidence(folder).comparison(first, second)
    if found.difference:
        yield f"`{first}` - `{second}`: {spread(found.difference, points)} points; {found.sentence}."
        yield ""


def parts_table(subject: "StudySubject") -> Iterator[str]:
    """The table of the heads with parts of the training photos, the fewest photos first."""
    from ktl.reporting.study_subject import WHOLE

    rows = [row for row in subject.summary if row.part != WHOLE]
    if rows:
        for cells in (PARTS_HEADER, ["---"] * len(PARTS_HEADER)):
            yield f"| {' | '.join(cells)} |"
        for row in sorted(rows, key=lambda row: (row.photos, -row.test.estimate)):
            difference = spread(row.difference, points) if row.difference else ""
            cells = (row.part_name, f"`{row.head}`", f"`{row.freeze_depth}`", spread(row.test), difference, row.verdict)
            yield f"| {' | '.join(cells)} |"
        yield ""


def cells_of(row: "BestHead") -> tuple[str, ...]:
    """The cells of a head's row in the table."""
    difference = spread(row.difference, points) if row.difference else ""
    smallest = "" if row.smallest is None else tenths(row.smallest)
    return f"`{row.head}`", f"`{row.freeze_depth}`", spread(row.test_top1), difference, row.verdict, smallest


def tenths(fraction: float) -> str:
    """In percent, without the sign for it."""
    return f"{100 * fraction:.1f}"


def spread(interval: "Estimate", form: Callable[[float], str] = tenths) -> str:
    """An estimate, with its bounds where they are known."""
    if interval.low is None or interval.high is None:
        return form(interval.estimate)
    return f"{form(interval.estimate)} ({form(interval.low)} to {form(interval.high)})"


def standalone(svg: str) -> str:
    """A report's figure as a file of its own, with the report's colours, light and dark."""
    style = (importlib.resources.files("ktl") / "reporting" / "templates" / "style.css").read_text()
    colors = re.findall(r"\A:root .*?^\}\n@media .*?^\}\n", style, re.DOTALL | re.MULTILINE)[0]
    attributes, rest = svg.removeprefix("<svg").split(">", 1)
    return f'<svg xmlns="http://www.w3.org/2000/svg"{attributes}>\n<style>\n{colors}{LOOK}\n</style>{rest}\n'


if __name__ == "__main__":
    main()
