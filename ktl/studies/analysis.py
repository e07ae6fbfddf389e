"""What the runs of a study come to: choices by validation, means over seeds, differences and verdicts. Pure."""

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ktl.errors import UserError
from ktl.evaluation.intervals import Interval, mean_interval, paired_difference
from ktl.models.heads import BASELINE
from ktl.studies.design import Tuned
from ktl.studies.records import CellRun

UNLISTED = ("history", "cache", "bad_photos", "correct")
"""What run.json has of a run, and runs.csv does not."""


class Group(NamedTuple):
    """What runs that differ in their seed alone have in common."""

    head: str
    freeze_depth: str
    share: float
    shots: int | None = None

    @property
    def whole(self) -> bool:
        """Whether all training photos are used."""
        return self.share == 1 and self.shots is None


Groups = Mapping[Group, Sequence[CellRun]]


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
        test_low: the lower bound of its 95 % interval.
        test_high: the upper bound.
        difference: to the baseline's test_top1.
        difference_low: the lower bound of its 95 % interval.
        difference_high: the upper bound.
        verdict: the difference in plain words.
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
    verdict: str
    converged: float | None
    seconds: float


def merit(runs: Sequence[CellRun]) -> tuple[float, float]:
    """What is chosen by: the highest mean validation top-1, and among equals the lowest mean validation loss."""
    losses = [math.inf if run.validation_loss is None else run.validation_loss for run in runs]
    # Rounded: means of the same numbers in another order are equals.
    return round(float(np.mean([run.validation_top1 for run in runs])), 9), -float(np.mean(losses))


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


def difference_of(runs: Sequence[CellRun], baseline: Sequence[CellRun] | None) -> Interval | None:
    """The difference of test top-1 to the baseline with the same seeds.

    None if the runs are the baseline, or there is none, or there is one seed, which tells nothing.
    """
    if baseline is None or runs is baseline or len(runs) < 2:
        return None
    return paired_difference(*(np.array([run.hits for run in group]) for group in (runs, baseline)))


def verdict(head: str, difference: Interval | None) -> str:
    """A head's difference to the baseline in plain words."""
    if difference is None:
        return "the baseline" if head == BASELINE else "not compared"
    if not difference.excludes_zero:
        return "no difference shown"
    points, low, high = (100 * value for value in dataclasses.astuple(difference))
    return f"{'gains' if points > 0 else 'loses'} {abs(points):.1f} points ({low:+.1f} to {high:+.1f})"


def summary_of(group: Group, groups: Groups, baseline_depth: str | None, *, photos: int) -> SummaryRow:
    """Sums up the runs of a group.

    Args:
        group: which runs.
        groups: from `groups_of`.
        baseline_depth: the baseline's best freeze depth, which a part of the data is compared with, since there each
            head has its best depth alone; None if the baseline is not in the study.
        photos: how many training photos the runs have.
    """
    runs = groups[group]
    compared = group.freeze_depth if group.whole else baseline_depth
    baseline = None if compared is None else groups.get(group._replace(head=BASELINE, freeze_depth=compared))
    tests = mean_interval([run.test_top1 for run in runs])
    difference = difference_of(runs, baseline)
    learned = [run for run in runs if not run.failed]  # a run that diverged has no speed
    return SummaryRow(
        *group,
        photos=photos,
        seeds=len(runs),
        validation_top1=float(np.mean([run.validation_top1 for run in runs])),
        test_top1=tests.estimate,
        test_low=tests.low,
        test_high=tests.high,
        difference=difference.estimate if difference else None,
        difference_low=difference.low if difference else None,
        difference_high=difference.high if difference else None,
        verdict=verdict(group.head, difference),
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
