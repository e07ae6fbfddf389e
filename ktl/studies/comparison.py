"""Heads against the baseline: how far apart, how sure that is, and what could have been shown. Pure.

A study's comparisons are three families: the heads at their best freeze depths; all heads at all depths with all
training photos; and all comparisons with parts of these. In each family together, where there is no difference, one is
said to be shown in 5 of 100 studies at most (Holm).
"""

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from ktl.evaluation.differences import LEAST_PHOTOS, Difference, holm_adjusted, holm_levels, paired_difference
from ktl.evaluation.intervals import Interval, accuracy_interval
from ktl.evaluation.random_effects import LEAST_SEEDS, NO_NOISE, Noise, pooled_noise
from ktl.models.heads import BASELINE
from ktl.studies.records import CellRun

POINT = 0.01
"""The difference for which the test photos that it needs are told."""

BASELINE_VERDICT = "the baseline"
NOT_COMPARED = "not compared"
NOT_SHOWN = "no difference shown"
NOT_COUNTED = "that other validation photos may choose other freeze depths is not counted"

Key = TypeVar("Key", bound=Hashable)


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


class Pair(NamedTuple):
    """A group, and the baseline's that it is compared with; None where there is none."""

    group: Group
    baseline: Group | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A head against the baseline.

    Attributes:
        verdict: in plain words.
        difference: of test top-1 to the baseline's; its interval is that of the level at which Holm's procedure tests
            it. None where nothing can be said.
        p_value: how likely it is by chance, adjusted for the family by Holm; None where nothing can be said.
        smallest: the smallest true difference that such a study shows 4 times of 5, at that level.
        photos_needed: how many test photos would show a difference of 1 point; None where no number is enough.
        choice: the part of the standard error that is of the freeze depths which validation photos chose; 0 where they
            chose none, None where it is not known and not in the interval.
    """

    verdict: str
    difference: Interval | None = None
    p_value: float | None = None
    smallest: float | None = None
    photos_needed: int | None = None
    choice: float | None = 0.0

    @property
    def limits(self) -> str:
        """What the verdict leaves open, in plain words: what could have been shown, and what is not counted."""
        return "; ".join(filter(None, (self._showable, "" if self.choice is not None else NOT_COUNTED)))

    @property
    def _showable(self) -> str:
        """What could have been shown; empty where a difference is shown, or nothing can be said."""
        if self.verdict != NOT_SHOWN or self.smallest is None:
            return ""
        if self.smallest >= 1:
            return "this study is too small to show any difference"
        words = f"this study could have shown {100 * self.smallest:.1f} points or more"
        if self.smallest <= POINT:
            return words
        if self.photos_needed is None:
            missing = "validation photos or seeds" if self.choice else "seeds"
            return f"{words}; for 1 point more {missing} would be needed"
        return f"{words}; about {_rounded(self.photos_needed):,} test photos would be needed for 1 point"

    @property
    def sentence(self) -> str:
        """The verdict with its limits."""
        return "; ".join(filter(None, (self.verdict, self.limits)))


def hits_of(runs: Sequence[CellRun], photos: np.ndarray | None = None) -> np.ndarray:
    """bool [seeds, photos]: which test photos were recognised, all of them or these."""
    hits = np.array([run.hits for run in runs])
    return hits if photos is None else hits[:, photos]


def noises_of(groups: Groups, photos: np.ndarray | None = None) -> dict[Group, Noise]:
    """What is known of the seed noise of each group, from it, its head at other depths and other heads at its depth."""
    variances = {
        group: float(np.var(hits_of(runs, photos).mean(axis=1), ddof=1))
        for group, runs in groups.items()
        if len(runs) > 1
    }
    noises = {}
    for group, own in variances.items():
        alike = [other for other in variances if other[2:] == group[2:] and len(groups[other]) == len(groups[group])]
        pools = [
            [variances[other] for other in alike if other.head == group.head],
            [variances[other] for other in alike if other.freeze_depth == group.freeze_depth],
        ]
        noises[group] = pooled_noise(own, pools, seeds=len(groups[group]))
    return noises


def accuracies_of(groups: Groups, photos: np.ndarray | None = None) -> dict[Group, Interval]:
    """Test top-1 of each group, on all test photos or these."""
    noises = noises_of(groups, photos)
    return {group: accuracy_interval(hits_of(runs, photos), noise=noises.get(group)) for group, runs in groups.items()}


def compare(
    pairs: Mapping[Key, Pair], groups: Groups, *, choices: Mapping[Key, Noise | None] | None = None
) -> dict[Key, Comparison]:
    """The comparisons of one family.

    Args:
        pairs: what is compared with what.
        groups: from `ktl.studies.analysis.groups_of`; more than the pairs, for what they tell of the seed noise.
        choices: what other choices of freeze depths would change, from `ktl.studies.choices.choices_of`. Of what is not
            in it, nothing is known where the two depths differ; else none was chosen.
    """
    noises = noises_of(groups)
    unknown = {key: _unknown(pair, groups) for key, pair in pairs.items()}
    known = {key: pair for key, pair in pairs.items() if not unknown[key]}
    noise_of_choice = {key: (choices or {}).get(key, _unchosen(pair)) for key, pair in known.items()}
    differences = {key: _difference(pair, groups, noises, noise_of_choice[key]) for key, pair in known.items()}
    values = [difference.p_value for difference in differences.values()]
    levels = zip(differences.items(), holm_adjusted(values), holm_levels(values), strict=True)
    found = {
        key: _comparison(difference, p_value, level, choice=noise_of_choice[key])
        for (key, difference), p_value, level in levels
    }
    return {key: found[key] if key in found else Comparison(unknown[key]) for key in pairs}


def verdict_of(difference: Interval) -> str:
    """A difference in plain words."""
    if not difference.excludes_zero:
        return NOT_SHOWN
    points, low, high = (100 * value for value in dataclasses.astuple(difference))
    return f"{'gains' if points > 0 else 'loses'} {abs(points):.1f} points ({low:+.1f} to {high:+.1f})"


def _unknown(pair: Pair, groups: Groups) -> str:
    """Why nothing can be said of a difference; empty if something can."""
    if pair.group.head == BASELINE:
        return BASELINE_VERDICT
    if pair.baseline is None or pair.baseline not in groups:
        return NOT_COMPARED
    seeds, photos = hits_of(groups[pair.group]).shape
    if seeds < 2:
        return "nothing can be said of one seed"
    if photos < LEAST_PHOTOS:
        return f"nothing can be said of {photos} test photo{'s' if photos > 1 else ''}"
    return ""


def _unchosen(pair: Pair) -> Noise | None:
    """Of a pair of which no choice is known: at the same freeze depth there was none."""
    return NO_NOISE if pair.baseline is not None and pair.group.freeze_depth == pair.baseline.freeze_depth else None


def _difference(pair: Pair, groups: Groups, noises: Mapping[Group, Noise], choice: Noise | None) -> Difference:
    assert pair.baseline is not None
    first, second = (hits_of(groups[group]) for group in (pair.group, pair.baseline))
    noise = noises[pair.group] + noises[pair.baseline] if len(first) < LEAST_SEEDS else None
    return paired_difference(first, second, noise=noise, choice=choice or NO_NOISE)


def _comparison(difference: Difference, p_value: float, level: float, *, choice: Noise | None) -> Comparison:
    interval = difference.interval(level)
    smallest, needed = difference.smallest(level), difference.photos_for(POINT, level)
    of_choice = None if choice is None else math.sqrt(choice.variance)
    return Comparison(verdict_of(interval), interval, p_value, smallest, needed, of_choice)


def _rounded(count: int) -> int:
    """Up to two digits that are not zero."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return math.ceil(count / unit) * unit
