"""Linear probes beside the heads of a study: what a new classifier alone reaches on what each head reads."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypedDict

import numpy as np

from ktl.evaluation.intervals import IntervalJson, accuracy_interval
from ktl.runs.probes import ProbeInput
from ktl.studies.conclusions import Conclusions
from ktl.studies.design import part_of
from ktl.studies.records import WHOLE, Part


class ProbeRow(TypedDict):
    """A linear probe: a logistic regression that has converged, with nothing else trained.

    Attributes:
        source: what it reads, see `ktl.models.heads.Head`.
        heads: the heads of the study that read the same.
        share: of each class's training photos.
        shots: photos of each class; None where a share of them is used.
        penalties: scikit-learn's C of each draw of the training photos, by cross-validation; one of all photos.
        converged: whether the solver ended by itself every time.
        validation_top1: mean over the draws.
        test_top1: mean over the draws.
    """

    source: str
    heads: list[str]
    share: float
    shots: int | None
    penalties: list[float]
    converged: bool
    validation_top1: float
    test_top1: IntervalJson


def probe_rows(
    inputs: Mapping[str, ProbeInput], parts: Iterable[Part], *, seeds: Sequence[int], without: Collection[str]
) -> list[ProbeRow]:
    """A row for each part of the training photos and each source.

    Args:
        inputs: source -> what is read.
        parts: of the training photos.
        seeds: of the runs, and so of the draws.
        without: bad photos.
    """
    return [_row(source, found, part, seeds, without) for part in parts for source, found in inputs.items()]


def behind_probes(rows: Iterable[ProbeRow], conclusions: Conclusions) -> list[str]:
    """A warning for each head that is behind a linear probe of what it reads, so that a comparison tells little of it.

    Such a head was trained too little, or its tries have found no good settings: with very few photos as much as
    the difference between two heads may come of that.

    Args:
        rows: from `probe_rows`.
        conclusions: of the study; a head counts at its best freeze depth, with the same part of the training photos.
    """
    found = []
    for row in rows:
        part, probe = Part(row["share"], row["shots"]), row["test_top1"]["estimate"] or 0.0
        for head in row["heads"]:
            group = conclusions.best[head]._replace(share=part.share, shots=part.shots)
            test = conclusions.tests[group]
            if test.high < probe:
                interval = f"{100 * test.low:.1f} to {100 * test.high:.1f}"
                found.append(
                    f"WARNING: {head} with {part.name} is at {100 * test.estimate:.1f} % ({interval}), a linear probe "
                    f"of the same input at {100 * probe:.1f} %. It was trained too little or tuned badly: do not rely "
                    "on what is said of it"
                )
    return found


def _row(source: str, found: ProbeInput, part: Part, seeds: Sequence[int], without: Collection[str]) -> ProbeRow:
    if part == WHOLE:
        probes = [found.fit(seed=seeds[0])]
    else:
        draws = (part_of(found.dataset, part, draw=seed, without=without) for seed in seeds)
        probes = [found.fit(draw, seed=seed) for seed, draw in zip(seeds, draws, strict=True)]
    validation, test = (np.array([found.hits(probe, split) for probe in probes]) for split in ("validation", "test"))
    return {
        "source": source,
        "heads": list(found.heads),
        "share": part.share,
        "shots": part.shots,
        "penalties": [probe.penalty for probe in probes],
        "converged": all(probe.converged for probe in probes),
        "validation_top1": float(validation.mean()),
        "test_top1": accuracy_interval(test).as_json(),
    }
