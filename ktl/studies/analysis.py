"""What the runs of a study come to: choices by validation, and means over seeds. Pure."""

import dataclasses
import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from ktl.errors import UserError
from ktl.evaluation.intervals import Interval
from ktl.studies.comparison import Comparison, Group
from ktl.studies.design import Tuned
from ktl.studies.records import CellRun

UNLISTED = ("objective", "history", "cache", "bad_photos", "correct", "validation_correct")
"""What run.json has of a run, and runs.csv does not."""


@dataclasses.dataclass(frozen=True)
class SummaryRow:
    """A row of summary.csv: the runs of a group. Numbers that are not known are None, or not a number.

    Attributes:
        head: a name in `ktl.models.heads.HEADS`.
        freeze_depth: as of a run.
        share: of the training photos.
        shots: training photos of each class, where so many were drawn; None where a share of them was.
        photos: how many training photos these are.
        seeds: how many runs.
        validation_top1: mean over the seeds.
        test_top1: mean over the seeds.
        test_low: the lower bound of its 95 % interval, for other seeds and other photos.
        test_high: the upper bound.
        difference: to the baseline's test_top1.
        difference_low: the lower bound of its interval, see `ktl.studies.comparison.Comparison`.
        difference_high: the upper bound.
        p_value: of the difference, adjusted for all of the family.
        smallest: true difference that such a study shows 4 times of 5.
        photos_needed: test photos that would show a difference of 1 point; None where no number is enough.
        verdict: the difference in plain words.
        limits: what the verdict leaves open, in plain words.
        converged: mean of the epochs to convergence, of the runs that did not fail.
        seconds: mean of the training times, of the runs that did not fail; 0 if all failed.
    """

    head: str
    freeze_depth: str
    share: float
    shots: int | None
    photos: int
    seeds: int
    validation_top1: float
    test_top1: float
    test_low: float
    test_high: float
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p_value: float | None
    smallest: float | None
    photos_needed: int | None
    verdict: str
    limits: str
    converged: float | None
    seconds: float


def merit(runs: Sequence[CellRun]) -> tuple[float, float]:
    """What is chosen by: the best mean of the objective's score, and among equals the lowest mean validation loss."""
    losses = [math.inf if run.validation_loss is None else run.validation_loss for run in runs]
    # Rounded: means of the same numbers in another order are equals.
    return round(float(np.mean([run.goodness for run in runs])), 9), -float(np.mean(losses))


def tuned_by(tries: Sequence[CellRun]) -> Tuned:
    """The settings of the first of these, the best by validation.

    Raises:
        UserError: the head learned under none of its tries.
    """
    best = tries[0]
    if best.validation_top1 <= 0:
        names = ", ".join(run.cell.name for run in tries)
        raise UserError(f"Expected settings under which the head {best.cell.head} learns. Received: none of {names}")
    return Tuned(best.cell.learning_rate, best.cell.scale, best.cell.head_multiplier)


def try_row_of(run: CellRun, *, chosen: bool) -> dict[str, Any]:
    """A row of tries.csv."""
    found = {"epochs": run.epochs, "validation_top1": run.validation_top1, "validation_loss": run.validation_loss}
    return {**dataclasses.asdict(run.cell), **found, "failed": run.failed, "chosen": int(chosen)}


def group_of(run: CellRun) -> Group:
    """What a run has in common with those of other seeds."""
    return Group(run.cell.head, run.cell.freeze_depth, run.cell.share, run.cell.shots)


def groups_of(runs: Iterable[CellRun]) -> dict[Group, list[CellRun]]:
    """Runs that differ in their seed alone, in the order of the seeds."""
    groups: dict[Group, list[CellRun]] = {}
    for run in sorted(runs, key=lambda run: run.cell.seed):
        groups.setdefault(group_of(run), []).append(run)
    return groups


def best_depths(runs: Iterable[CellRun]) -> dict[str, str]:
    """Head -> the freeze depth that validation chooses, by the runs with all training photos."""
    groups = groups_of(run for run in runs if group_of(run).whole)
    heads = dict.fromkeys(group.head for group in groups)
    return {
        head: max((group for group in groups if group.head == head), key=lambda g: merit(groups[g])).freeze_depth
        for head in heads
    }


def summary_of(
    group: Group, runs: Sequence[CellRun], test: Interval, comparison: Comparison, *, photos: int
) -> SummaryRow:
    """Sums up the runs of a group.

    Args:
        group: which runs.
        runs: these.
        test: their test top-1.
        comparison: with the baseline.
        photos: how many training photos the runs have.
    """
    difference = comparison.difference
    learned = [run for run in runs if not run.failed]  # a run that diverged has no speed
    return SummaryRow(
        *group,
        photos=photos,
        seeds=len(runs),
        validation_top1=float(np.mean([run.validation_top1 for run in runs])),
        test_top1=test.estimate,
        test_low=test.low,
        test_high=test.high,
        difference=difference.estimate if difference else None,
        difference_low=difference.low if difference else None,
        difference_high=difference.high if difference else None,
        p_value=comparison.p_value,
        smallest=comparison.smallest,
        photos_needed=comparison.photos_needed,
        verdict=comparison.verdict,
        limits=comparison.limits,
        converged=float(np.mean([run.converged for run in learned])) if learned else None,
        seconds=float(np.mean([run.seconds for run in learned])) if learned else 0.0,
    )


def row_of(run: CellRun) -> dict[str, Any]:
    """A row of runs.csv."""
    values = {name: value for name, value in run.to_json().items() if name not in UNLISTED}
    return {**values, "test_top1": run.test_top1}


def bad_photos_of(runs: Collection[CellRun]) -> set[str]:
    """Ids of the photos that any of the runs left out because they cannot be read."""
    return {photo for run in runs for photo in run.bad_photos}
