"""The table of `experiments/recipes.py`: what each change is worth, and how sure that is.

A unit is a fold of a data set, its seeds taken together. The interval of a change is Student's over the differences of
the units to no change, so it has the noise of photos and trainings in it. Folds share training photos, which makes it a
little too narrow (Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 2003).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from scipy import stats

from ktl.evaluation.differences import holm_levels

COLUMNS = ("change", "head", "frozen up to")
COLUMNS_OF_ALL = ("change of top-1, points", "change of log loss, nats")

Scores = dict[tuple[str, int], np.ndarray]
"""Data set and fold -> top-1 in percent and log loss in nats, means over seeds."""


def table(found: Mapping) -> Iterator[str]:
    """Lines of Markdown.

    Args:
        found: `recipes.Trial` -> `recipes.Outcome`.
    """
    datasets = list(dict.fromkeys(trial.dataset for trial in found))
    yield _row([*COLUMNS, *(f"{Path(name).name}, top-1 in %" for name in datasets), *COLUMNS_OF_ALL])
    yield _row(["---"] * (len(COLUMNS) + len(datasets) + len(COLUMNS_OF_ALL)))
    for place, changes in by_place(found).items():
        shown = intervals_of(
            {name: differences(one, changes["none"]) for name, one in changes.items() if name != "none"}
        )
        for name, scores in changes.items():
            means = [np.mean([value[0] for (of, _), value in scores.items() if of == dataset]) for dataset in datasets]
            yield _row([name, *place, *(f"{mean:.1f}" for mean in means), *shown.get(name, ("", ""))])


def by_place(found: Mapping) -> dict[tuple[str, str], dict[str, Scores]]:
    """Head and freeze depth -> change -> scores."""
    seeds: dict[tuple, list] = {}
    for trial, outcome in found.items():
        loss = np.nan if outcome.log_loss is None else outcome.log_loss
        key = (trial.head, trial.freeze_depth), trial.change, (trial.dataset, trial.fold)
        seeds.setdefault(key, []).append((100 * outcome.top1, loss))
    places: dict[tuple[str, str], dict[str, Scores]] = {}
    for (place, change, unit), values in seeds.items():
        places.setdefault(place, {}).setdefault(change, {})[unit] = np.mean(values, axis=0)
    return places


def differences(scores: Scores, unchanged: Scores) -> np.ndarray:
    """float [units, 2]: of top-1 and of log loss."""
    return np.array([value - unchanged[unit] for unit, value in scores.items()])


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


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
