"""Figures and tables of studies for the README, from their stored results: `python experiments/figures.py`.

A study's summary.csv and result.json, copied to experiments/results/NAME/, are all that it needs: it draws depths.svg
beside them, and shares.svg of a study with parts of the training photos, the same bytes each time, and prints the
README's lines.
"""

import importlib.resources
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ktl.cli.flags import Parser
from ktl.config.settings import StudyConfig
from ktl.files import write_atomically
from ktl.reporting.formatting import points

RESULTS = Path("experiments", "results")

HEADER = ("head", "frozen up to", "test top-1, %", "difference to `replaced`, points", "verdict")

LOOK = "svg { color: var(--ink); background: var(--surface); } svg * { stroke-linejoin: round; }"


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="?", type=Path, default=RESULTS, help=f"folder of folders; {RESULTS}")
    results = parser.parse_args().results
    folders = sorted(path.parent for path in results.glob("*/result.json"))
    if not folders:
        expected = "Expected folders with summary.csv and result.json"
        parser.exit(2, f"{parser.prog}: {expected}. Received: none in {results}\n")
    for folder in folders:
        print(*lines(folder), sep="\n")


def lines(folder: Path) -> Iterator[str]:
    """Draws a study's figures; the README's lines about it."""
    from ktl.reporting import study as report_study  # loads TensorFlow

    figures = {
        "depths": ("test top-1 by freeze depth", report_study.freezing),
        "shares": ("test top-1 by share of the training photos", report_study.shares),
    }
    result = json.loads((folder / "result.json").read_text())
    subject = report_study.StudySubject(
        config=StudyConfig.from_dict(result["settings"]),
        result=result,
        environment={},
        summary=report_study.read_summary(folder / "summary.csv"),
        runs=[],
    )
    for name, (alternative, section) in figures.items():
        if values := section(subject):
            path = folder / f"{name}.svg"
            write_atomically(path, standalone(values["figure"]))
            yield from (f"![{folder.name}: {alternative}]({path})", "")
    rows = sorted(result["best"], key=lambda row: -row["test_top1"]["estimate"])
    for cells in (HEADER, ["---"] * len(HEADER), *map(cells_of, rows)):
        yield f"| {' | '.join(cells)} |"
    yield ""


def cells_of(row: dict) -> tuple[str, ...]:
    names = (f"`{row['head']}`", f"`{row['freeze_depth']}`")
    return *names, spread(row["test_top1"]), spread(row["difference"], points), row["verdict"]


def tenths(fraction: float) -> str:
    """In percent, without the sign for it."""
    return f"{100 * fraction:.1f}"


def spread(interval: dict | None, form: Callable[[float], str] = tenths) -> str:
    """An estimate, with its bounds where they are known."""
    if interval is None:
        return ""
    estimate, low, high = (value if value is None else form(value) for value in interval.values())
    return estimate if low is None else f"{estimate} ({low} to {high})"


def standalone(svg: str) -> str:
    """A report's figure as a file of its own, with the report's colours, light and dark."""
    style = (importlib.resources.files("ktl") / "reporting" / "templates" / "style.css").read_text()
    colors = re.match(r":root .*?^\}\n@media .*?^\}\n", style, re.DOTALL | re.MULTILINE)[0]
    attributes, rest = svg.removeprefix("<svg").split(">", 1)
    return f'<svg xmlns="http://www.w3.org/2000/svg"{attributes}>\n<style>\n{colors}{LOOK}\n</style>{rest}\n'


if __name__ == "__main__":
    main()
