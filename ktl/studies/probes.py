"""Linear probes beside the heads of a study: what a new classifier alone reaches on what each head reads."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypedDict

import numpy as np

from ktl.evaluation.intervals import IntervalJson, accuracy_interval
from ktl.runs.probes import ProbeInput
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
