"""What the runs of a study say: all intervals and verdicts, from which photos each run recognised. Pure."""

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np

from ktl.evaluation.intervals import Interval
from ktl.models.heads import BASELINE
from ktl.studies.analysis import best_depths, groups_of
from ktl.studies.choices import choices_of
from ktl.studies.comparison import Comparison, Group, Groups, Pair, accuracies_of, compare
from ktl.studies.records import CellRun


@dataclasses.dataclass(frozen=True)
class Conclusions:
    """What a study concludes.

    Attributes:
        groups: the runs that differ in their seed alone.
        tests: test top-1 of each group.
        comparisons: of each group with the baseline's: with all training photos at the same freeze depth, with a part
            of them at the one that is the baseline's best with all. Those with all photos are a family, those with
            parts another.
        best: head -> its group at the freeze depth that validation chose for it, with all training photos.
        answers: head -> the comparison of these with the baseline's, whose intervals are also for other validation
            photos, which might choose other depths; a family of its own.
    """

    groups: Groups
    tests: Mapping[Group, Interval]
    comparisons: Mapping[Group, Comparison]
    best: Mapping[str, Group]
    answers: Mapping[str, Comparison]

    def tests_on(self, photos: np.ndarray) -> dict[str, Interval]:
        """Head -> test top-1 on some of the test photos, at its best freeze depth."""
        found = accuracies_of({group: self.groups[group] for group in self.best.values()}, photos)
        return {head: found[group] for head, group in self.best.items()}


def conclude(runs: Collection[CellRun]) -> Conclusions:
    """Sums up the runs of a study, all of them with scored test photos."""
    groups = groups_of(runs)
    best = {head: Group(head, depth, share=1.0) for head, depth in best_depths(runs).items()}
    baseline = best.get(BASELINE)
    pairs = {head: Pair(group, baseline) for head, group in best.items()}
    answers = compare(pairs, groups, choices=choices_of(best, groups))
    comparisons: dict[Group, Comparison] = {}
    for whole in (True, False):
        family = [group for group in groups if group.whole == whole]
        comparisons |= compare({group: Pair(group, _counterpart(group, baseline)) for group in family}, groups)
    tests = accuracies_of(groups)
    return Conclusions(groups, tests, {group: comparisons[group] for group in groups}, best, answers)


def _counterpart(group: Group, baseline: Group | None) -> Group | None:
    if baseline is None:
        return None
    return group._replace(head=BASELINE, freeze_depth=group.freeze_depth if group.whole else baseline.freeze_depth)
