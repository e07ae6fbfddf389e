"""How far the heads' differences hang on the freeze depths that validation photos chose for them. Pure."""

from collections.abc import Iterable, Mapping

import numpy as np

from ktl.evaluation.choice import choice_noise, choose, drawn_again
from ktl.evaluation.random_effects import NO_NOISE, Noise
from ktl.models.heads import BASELINE
from ktl.studies.analysis import merit
from ktl.studies.comparison import Group, Groups, hits_of
from ktl.studies.records import CellRun


def choices_of(best: Mapping[str, Group], groups: Groups) -> dict[str, Noise | None]:
    """Head -> what another choice of its freeze depth, and of the baseline's, would change of their difference.

    None where nothing tells: which validation photos were recognised was not written down, as in earlier versions, or
    something else than their number chose.

    Args:
        best: head -> its group at the freeze depth that validation chose.
        groups: from `ktl.studies.analysis.groups_of`; those with all training photos are what was chosen from.
    """
    others = [head for head in best if head != BASELINE]
    candidates = {group: runs for group, runs in groups.items() if group.whole}
    if BASELINE not in best or len(candidates) == len(best):  # nothing to compare, or to choose
        return dict.fromkeys(others, NO_NOISE)
    if not all(map(_tells, candidates.values())):
        return dict.fromkeys(others, None)
    tests = _tests_chosen_again(candidates)
    photos = len(candidates[best[BASELINE]][0].validation_hits)
    measured = {head: hits_of(groups[group]).mean() for head, group in best.items()}
    return {
        head: choice_noise(tests[head] - tests[BASELINE], measured=measured[head] - measured[BASELINE], photos=photos)
        for head in others
    }


def _tells(runs: Iterable[CellRun]) -> bool:
    """Whether these runs can be chosen by again."""
    return all(run.validation_correct is not None and run.objective == "top1" for run in runs)


def _tests_chosen_again(candidates: Groups) -> dict[str, np.ndarray]:
    """Head -> test top-1 at the freeze depth that each new draw of the validation photos chooses."""
    heads = np.array([group.head for group in candidates])
    scores = drawn_again(np.array([np.mean([run.validation_hits for run in runs], 0) for runs in candidates.values()]))
    losses = np.array([-merit(runs)[1] for runs in candidates.values()])
    tests = np.array([hits_of(runs).mean() for runs in candidates.values()])
    rows = {head: np.flatnonzero(heads == head) for head in dict.fromkeys(heads.tolist())}
    return {head: tests[own][choose(scores[:, own], losses[own])] for head, own in rows.items()}
