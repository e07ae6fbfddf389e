"""The runs of a study as the cells of a table: which there are, and what they come to. Nothing here trains."""

import dataclasses
import itertools
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ktl.config.settings import StudyConfig
from ktl.data.dataset import Dataset, with_splits
from ktl.evaluation.intervals import Interval, mean_interval, paired_difference
from ktl.models.boundaries import Boundary, find_boundary
from ktl.models.heads import BASELINE, HEADS
from ktl.tuning.trials import LEAST_COST

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SCALES = (3.0, 10.0)
"""Four tries: without a scale all rates, with one the middle two rates at both scales."""

SHARE_SEED = 17
"""Fixed, so that a part of the training photos is the same one for every head and seed."""

UNLISTED = ("history", "cache", "bad_photos", "correct")
"""What run.json has of a run, and runs.csv does not."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        head: a name in `ktl.models.heads.HEADS`.
        freeze_depth: see `ktl.models.boundaries.find_boundary`.
        learning_rate: of the pre-trained layers, as of a run.
        scale: as of a run.
        share: of each class's training photos, 0 to 1.
        seed: as of a run.
    """

    head: str
    freeze_depth: str
    learning_rate: float
    scale: float
    share: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return "-".join(f"{value:g}" if isinstance(value, float) else f"{value}" for value in dataclasses.astuple(self))

    @property
    def values(self) -> dict:
        """The settings of a run that it stands for, but the seed."""
        return {name: getattr(self, name) for name in StudyConfig.VARIED}


def part_of(dataset: Dataset, share: float, *, without: Collection[str] = ()) -> Dataset:
    """The data set with a share of each class's training photos, at least one of each.

    A larger share has the photos of a smaller one, and more unless rounding gives both as many. Photos that are bad are
    to be left out.
    """
    labels = dataset.train.labels
    good = np.array([photo not in without for photo in dataset.train.photos])
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels[good]):
        members = np.random.default_rng([SHARE_SEED, label]).permutation(np.flatnonzero(good & (labels == label)))
        chosen[members[: max(1, round(share * len(members)))]] = True
    part = with_splits(dataset, {"train": dataset.train.take(np.flatnonzero(chosen))})
    return dataclasses.replace(part, whole=dataset)


def cost_of(cell: Cell, boundaries: tuple[Boundary, ...]) -> float:
    """What a run computes beside others, in forward passes over all training photos.

    Args:
        cell: the run.
        boundaries: of its head's network.
    """
    return cell.share * max(1 - find_boundary(boundaries, cell.freeze_depth).cost_share, LEAST_COST)


def verdict(head: str, difference: Interval | None) -> str:
    """A head's difference to the replaced layer in plain words."""
    if difference is None:
        return "the baseline" if head == BASELINE else "not compared"
    if not difference.excludes_zero:
        return "no difference shown"
    points, low, high = (100 * value for value in dataclasses.astuple(difference))
    return f"{'gains' if points > 0 else 'loses'} {abs(points):.1f} points ({low:+.1f} to {high:+.1f})"


def tuning_places(boundaries: Mapping[str, tuple[Boundary, ...]], depths: Sequence[str]) -> dict[tuple[str, str], str]:
    """Head and freeze depth -> the freeze depth at which its rate and scale are chosen.

    New layers alone want another scale than pre-trained layers under them. So a depth that leaves none of these to
    train is tuned there, and the others at the deepest one that leaves some to every head, or, where none does, to the
    head itself.

    Args:
        boundaries: of each head's network.
        depths: those that are compared.
    """

    def trains(head: str, depth: str) -> bool:
        return find_boundary(boundaries[head], depth) is not boundaries[head][-1]

    def place(head: str, depth: str) -> str:
        if not trains(head, depth):
            return "all"
        found = shared or [depth for depth in depths if trains(head, depth)]
        return max(found, key=lambda depth: find_boundary(boundaries[head], depth).depth)

    shared = [depth for depth in depths if all(trains(head, depth) for head in boundaries)]
    return {(head, depth): place(head, depth) for head in boundaries for depth in depths}


def tries_of(head: str) -> list[tuple[float, float]]:
    """Rate and scale of each try of a head."""
    if HEADS[head].normalization == "scaled_unit":
        return list(itertools.product(RATES[1:3], SCALES))
    return [(rate, SCALES[0]) for rate in RATES]


def merit(runs: Sequence[dict]) -> tuple[float, float]:
    """What is chosen by: the highest mean validation top-1, and among equals the lowest mean validation loss."""
    losses = [math.inf if run["validation_loss"] is None else run["validation_loss"] for run in runs]
    # Rounded: means of the same numbers in another order are equals.
    return round(float(np.mean([run["validation_top1"] for run in runs])), 9), -float(np.mean(losses))


def best_depth(found: Mapping[Cell, dict], head: str) -> str:
    """The freeze depth that validation chooses."""
    runs: dict[str, list] = {}
    for cell, run in found.items():
        if cell.head == head:
            runs.setdefault(cell.freeze_depth, []).append(run)
    return max(runs, key=lambda depth: merit(runs[depth]))


def groups_of(found: Mapping[Cell, dict]) -> dict[tuple[str, str, float], list[dict]]:
    """Runs that differ in their seed alone, in the order of the seeds, by head, freeze depth and share."""
    groups: dict[tuple[str, str, float], list] = {}
    for cell in sorted(found, key=lambda cell: cell.seed):
        groups.setdefault((cell.head, cell.freeze_depth, cell.share), []).append(found[cell])
    return groups


def difference_of(runs: list[dict], baseline: list[dict] | None) -> Interval | None:
    """To the baseline with the same seeds; None if it is the baseline, or there is none, or one seed tells nothing."""
    if baseline is None or runs is baseline or len(runs) < 2:
        return None
    return paired_difference(*(np.array([run["correct"] for run in group], bool) for group in (runs, baseline)))


def summary_of(
    group: tuple[str, str, float], groups: Mapping[tuple[str, str, float], list[dict]], best: str | None, *, photos: int
) -> dict:
    """A row of summary.csv.

    Args:
        group: of which runs; a head, a freeze depth and a share.
        groups: from `groups_of`.
        best: the baseline's best freeze depth, to be compared with on a part of the data: there each head has its best.
        photos: how many training photos the runs have.
    """
    head, depth, share = group
    runs = groups[group]
    tests = mean_interval([np.mean(run["correct"]) for run in runs])
    difference = difference_of(runs, groups.get((BASELINE, depth if share == 1 else best, share)))
    bounds = dataclasses.astuple(difference) if difference else ("", "", "")
    learned = [run for run in runs if not run["failed"]]  # one that diverged has no speed
    return {
        "head": head,
        "freeze_depth": depth,
        "share": share,
        "photos": photos,
        "seeds": len(runs),
        "validation_top1": float(np.mean([run["validation_top1"] for run in runs])),
        **dict(zip(("test_top1", "test_low", "test_high"), dataclasses.astuple(tests), strict=True)),
        **dict(zip(("difference", "difference_low", "difference_high"), bounds, strict=True)),
        "verdict": verdict(head, difference),
        "converged": float(np.mean([run["converged"] for run in learned])) if learned else "",
        "seconds": float(np.mean([run["seconds"] for run in learned])) if learned else 0.0,
    }


def row_of(run: dict) -> dict:
    """A row of runs.csv."""
    return {name: value for name, value in run.items() if name not in UNLISTED} | {
        "test_top1": float(np.mean(run["correct"]))
    }


def interval_json(interval: Interval | None) -> dict | None:
    """As JSON has it: null for what is unknown."""
    if interval is None:
        return None
    return {name: None if math.isnan(value) else value for name, value in dataclasses.asdict(interval).items()}
