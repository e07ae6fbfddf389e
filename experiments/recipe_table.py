"""The tables of `experiments/recipes.py`: what each change is worth, and how sure that is.

`python experiments/recipe_table.py FILE` prints the overviews again from the rows that were kept; docs/evidence.md has
those of experiments/results/recipes.csv.

A unit is a fold of a data set, its seeds taken together: the mean difference to no change over the seeds that both were
trained with. The interval of a change is Student's over the units, so it has the noise of photos and trainings in it.
Folds share training photos, which makes it a little too narrow (Nadeau and Bengio, "Inference for the Generalization
Error", Machine Learning 2003).
"""

import csv
import dataclasses
import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from changes import Place
from scipy import stats

from ktl.evaluation.differences import holm_levels
from ktl.files import write_atomically

COLUMNS = ("change", "head", "frozen up to")
COLUMNS_OF_ALL = ("change of top-1, points", "change of log loss, nats", "better on")

Unit = tuple[str, int]
"""Data set and fold."""

Scores = dict[Unit, dict[int, np.ndarray]]
"""Unit -> seed -> top-1 in percent and log loss in nats."""


@dataclasses.dataclass(frozen=True)
class Row(Place):
    """What a training gave for the fold that it has not seen.

    Attributes:
        top1: 0 to 1.
        log_loss: nats; NaN of a training that diverged.
    """

    top1: float
    log_loss: float

    @property
    def place(self) -> tuple:
        """What was trained."""
        return dataclasses.astuple(self)[:-2]


def add_to_csv(path: Path, rows: Iterable[Row]) -> None:
    """Writes the rows into a CSV file, in the place of those that it has of the same trainings."""
    known = {row.place: row for row in (read_csv(path) if path.exists() else ())}
    known |= {row.place: row for row in rows}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(Row))
    writer.writerows((*row.place, f"{row.top1:.6f}", f"{row.log_loss:.6f}") for row in known.values())
    write_atomically(path, text.getvalue())


def read_csv(path: Path) -> list[Row]:
    """The rows of such a file."""
    kinds = {"seed": int, "fold": int, "top1": float, "log_loss": float}
    with open(path, newline="", encoding="utf-8") as file:
        return [
            Row(**{name: kinds.get(name, str)(value) for name, value in row.items()}) for row in csv.DictReader(file)
        ]


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Lines of Markdown."""
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    yield _line([*COLUMNS, *(f"{name}, top-1 in %" for name in datasets), *COLUMNS_OF_ALL])
    yield _line(["---"] * (len(COLUMNS) + len(datasets) + len(COLUMNS_OF_ALL)))
    for place, changes in by_place(rows).items():
        compared = {name: differences(one, changes["none"]) for name, one in changes.items() if name != "none"}
        shown = intervals_of(compared)
        for name, scores in changes.items():
            means = [_mean(scores, dataset)[0] for dataset in datasets]
            better = [_difference(scores, changes["none"], one)[0] > 0 for one in datasets]
            told = (*shown[name], f"{sum(better)} of {len(datasets)}") if name in shown else ("", "", "")
            yield _line([name, *place, *(f"{mean:.1f}" for mean in means), *told])


def overview(rows: Sequence[Row], score: int) -> Iterator[str]:
    """Lines of Markdown: a change a line, head and freeze depth a column; what no change has on each data set, then the
    mean difference with its interval, and the difference on each data set.

    Args:
        rows: of all places.
        score: 0 for top-1 in points; 1 for log loss in nats.
    """
    places, datasets = by_place(rows), list(dict.fromkeys(row.dataset for row in rows))
    columns = {place: _column(changes, datasets, score) for place, changes in places.items()}
    yield _line(["change", *(f"`{head}`, frozen up to `{depth}`" for head, depth in places)])
    yield _line(["---"] * (1 + len(places)))
    for name in dict.fromkeys(name for column in columns.values() for name in column):
        yield _line([name, *(column.get(name, "") for column in columns.values())])


def _column(changes: Mapping[str, Scores], datasets: Sequence[str], score: int) -> dict[str, str]:
    """Change -> what the overview says of it at one place."""
    form = (".1f", ".3f")[score]
    compared = {name: differences(one, changes["none"]) for name, one in changes.items() if name != "none"}
    found = {"none": " / ".join(f"{_mean(changes['none'], one)[score]:{form}}" for one in datasets)}
    for name, intervals in intervals_of(compared).items():
        changed = [_difference(changes[name], changes["none"], one)[score] for one in datasets]
        found[name] = f"{intervals[score]}: {' / '.join(f'{value:+{form}}' for value in changed)}"
    return found


def by_place(rows: Iterable[Row]) -> dict[tuple[str, str], dict[str, Scores]]:
    """Head and freeze depth -> change -> scores."""
    places: dict[tuple[str, str], dict[str, Scores]] = {}
    for row in rows:
        scores = places.setdefault((row.head, row.freeze_depth), {}).setdefault(row.change, {})
        scores.setdefault((row.dataset, row.fold), {})[row.seed] = np.array([100 * row.top1, row.log_loss])
    return places


def _mean(scores: Scores, dataset: str) -> np.ndarray:
    return np.mean(
        [np.mean(list(seeds.values()), axis=0) for (of, _), seeds in scores.items() if of == dataset], axis=0
    )


def _difference(scores: Scores, unchanged: Scores, dataset: str) -> np.ndarray:
    """The mean over the units of a data set."""
    of_dataset = {unit: seeds for unit, seeds in scores.items() if unit[0] == dataset}
    return differences(of_dataset, unchanged).mean(axis=0)


def differences(scores: Scores, unchanged: Scores) -> np.ndarray:
    """float [units, 2]: of top-1 and of log loss, over the seeds that both have."""
    return np.array(
        [
            np.mean([seeds[seed] - unchanged[unit][seed] for seed in seeds.keys() & unchanged[unit].keys()], axis=0)
            for unit, seeds in scores.items()
        ]
    )


def intervals_of(changes: Mapping[str, np.ndarray]) -> dict[str, tuple[str, str]]:
    """Change -> its difference in top-1 and in log loss, each with an interval where there are two units or more.

    Together the intervals of all changes leave out a true difference in one table of twenty: Holm's procedure.
    """
    columns = [[values[:, what] for values in changes.values()] for what in (0, 1)]
    cells = [_cells(column, form) for column, form in zip(columns, ("+.1f", "+.3f"), strict=True)]
    return dict(zip(changes, zip(*cells, strict=True), strict=True))


def _cells(column: list[np.ndarray], form: str) -> Iterator[str]:
    for values, level in zip(column, holm_levels([p_value(values) for values in column]), strict=True):
        mean, half = values.mean(), half_width(values, level)
        if not np.isfinite(mean):
            yield "not finite"
        elif len(values) < 2:
            yield f"{mean:{form}}"
        else:
            yield f"{mean:{form}} ({mean - half:{form}} to {mean + half:{form}})"


def half_width(values: np.ndarray, level: float) -> float:
    """Of Student's interval of the mean, which leaves out the true one with this probability."""
    if len(values) < 2:
        return np.inf
    return float(stats.t.ppf(1 - level / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))


def p_value(values: np.ndarray) -> float:
    """Of Student's test that the true mean is 0; 1 where nothing can be said."""
    if len(values) < 2 or not np.isfinite(values).all() or not values.any():
        return 1.0
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return float(2 * stats.t.sf(abs(values.mean()) / error, len(values) - 1)) if error else 0.0


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    kept = read_csv(Path(sys.argv[1]))
    print(*overview(kept, 0), "", *overview(kept, 1), sep="\n")
