"""What result.json of a study holds, and how it is made from the runs."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from ktl.data.dataset import Dataset
from ktl.data.duplicates import Duplicate, DuplicateCounts, unlike_others
from ktl.evaluation.intervals import IntervalJson
from ktl.models.backbones import Backbone
from ktl.studies.analysis import merit
from ktl.studies.conclusions import Conclusions
from ktl.studies.design import Place, Tuned, edges_of
from ktl.studies.probes import ProbeRow, behind_probes
from ktl.studies.records import CellRun, Part
from ktl.studies.zero_shot import Correspondence, ZeroShot, unnamed_classes
from ktl.training.few_photos import has_few_photos, warnings_of


class Settings(TypedDict):
    """The settings of a run that a study varies."""

    head: str
    freeze_depth: str
    learning_rate: float
    scale: float
    head_multiplier: float


class TunedRow(Settings):
    """The settings that validation chose for a head at a freeze depth with a part of the training photos.

    Attributes:
        share: of each class's training photos.
        shots: photos of each class; None where a share of them is used.
        edges: the settings whose value is the smallest or largest that was tried: a better one may lie beyond.
    """

    share: float
    shots: int | None
    edges: list[str]


class BestRow(Settings):
    """A head at the freeze depth that validation chose for it.

    Attributes:
        test_top1: mean over the seeds, with its 95 % interval.
        difference: to the baseline's test_top1, with the interval of `ktl.studies.comparison.Comparison`; None of the
            baseline itself, and where nothing can be said.
        p_value: of the difference, adjusted for the number of heads.
        smallest: true difference that such a study shows 4 times of 5.
        photos_needed: test photos that would show a difference of 1 point; None where no number is enough.
        verdict: the difference in plain words.
        limits: what the verdict leaves open, in plain words.
        choice: the part of the difference's standard error that is of the freeze depths which validation photos chose;
            None where it is not known and not in the interval.
    """

    test_top1: IntervalJson
    difference: IntervalJson | None
    p_value: float | None
    smallest: float | None
    photos_needed: int | None
    verdict: str
    limits: str
    choice: float | None


class Chosen(Settings):
    """The settings that are the best by validation.

    Attributes:
        cache: the setting with which a run of its own computes the same numbers.
        command: trains a run with these settings.
    """

    cache: str
    command: str


class HeadsWithoutDuplicates(TypedDict):
    """Scores on the test photos that look like no training or validation photo.

    Attributes:
        photos: how many these are.
        heads: head -> test top-1 on them, at its best freeze depth; empty where there are none.
    """

    photos: int
    heads: dict[str, IntervalJson]


class SynsetJson(TypedDict):
    """A class of ImageNet: its WordNet id and its usual name."""

    id: str
    name: str


class ZeroShotResult(TypedDict):
    """Scores of the untouched classification layer, on the test photos whose classes ImageNet has too.

    Attributes:
        classes: how many classes of the data set these are.
        dataset_classes: how many the data set has.
        photos: how many test photos are scored.
        top1: share of them for which the highest of all 1000 logits is of the photo's class.
        restricted_top1: the same among the logits of these classes alone.
        heads: head -> test top-1 on the same photos, at its best freeze depth.
        synsets: class -> the classes of ImageNet that it is.
    """

    classes: int
    dataset_classes: int
    photos: int
    top1: float
    restricted_top1: float
    heads: dict[str, IntervalJson]
    synsets: dict[str, list[SynsetJson]]


class EarlierResult(TypedDict):
    """What result.json of version 0.1 holds, as far as readers rely on it; see `StudyResult`."""

    settings: dict[str, Any]
    chosen: dict[str, Any]
    best: list[dict[str, Any]]
    seconds: float


class StudyResult(TypedDict):
    """What result.json holds.

    Attributes:
        settings: of the study.
        command: repeats the study.
        tuned: the settings of each head at each freeze depth, by validation.
        chosen: the best settings, by validation.
        best: each head at its best freeze depth.
        notice: what a reader must know of the data set; None if nothing.
        warnings: what a reader must know of the choices, and of heads that were trained badly, in lines.
        failed: name of a run that failed -> why.
        duplicates: test photos that are training or validation photos too.
        without_duplicates: what the heads reach without these.
        probes: linear probes of what the heads read.
        zero_shot: None where the backbone does not know the classes.
        seconds: since the last start.
    """

    settings: dict[str, Any]
    command: str
    tuned: list[TunedRow]
    chosen: Chosen
    best: list[BestRow]
    notice: str | None
    warnings: list[str]
    failed: dict[str, str]
    duplicates: DuplicateCounts
    without_duplicates: HeadsWithoutDuplicates
    zero_shot: ZeroShotResult | None
    probes: list[ProbeRow]
    seconds: float


def tuned_row(part: Part, place: Place, tuned: Tuned, *, pretrained: bool) -> TunedRow:
    """What validation chose for a head at a freeze depth, where pre-trained layers are trained or not."""
    return {
        "head": place.head,
        "freeze_depth": place.freeze_depth,
        "learning_rate": tuned.learning_rate,
        "scale": tuned.scale,
        "head_multiplier": tuned.head_multiplier,
        "share": part.share,
        "shots": part.shots,
        "edges": edges_of(tuned, place.head, pretrained=pretrained),
    }


def best_rows(conclusions: Conclusions) -> list[BestRow]:
    """One row for each head."""
    rows: list[BestRow] = []
    for head, group in conclusions.best.items():
        found = conclusions.answers[head]
        rows.append(
            {
                **_settings_of(conclusions.groups[group][0]),
                "test_top1": conclusions.tests[group].as_json(),
                "difference": found.difference.as_json() if found.difference else None,
                "p_value": found.p_value,
                "smallest": found.smallest,
                "photos_needed": found.photos_needed,
                "verdict": found.verdict,
                "limits": found.limits,
                "choice": found.choice,
            }
        )
    return rows


def chosen_run(conclusions: Conclusions) -> CellRun:
    """The first run of the head that is the best by validation."""
    return max((conclusions.groups[group] for group in conclusions.best.values()), key=merit)[0]


def chosen_of(run: CellRun, *, command: str) -> Chosen:
    """The settings of a run, and the command that trains one like it."""
    return {**_settings_of(run), "cache": run.cache, "command": command}


def values_of(run: CellRun, dataset: Dataset) -> dict[str, Any]:
    """Setting -> value with which `ktl.run` gives the same numbers: with few photos, without the refit that it has."""
    refit = {"refit": "off"} if has_few_photos(dataset) else {}
    return {**run.cell.values, "cache": run.cache, **refit}


def zero_shot_result(
    scores: ZeroShot | None, known: Correspondence, conclusions: Conclusions, *, dataset_classes: int
) -> ZeroShotResult | None:
    """Scores of the untouched classification layer, beside those of the heads on the same photos.

    Args:
        scores: of the test photos that the runs scored; None if none is of a known class.
        known: the classes that ImageNet has too.
        conclusions: of the runs.
        dataset_classes: how many classes the data set has.
    """
    if scores is None:
        return None
    heads = conclusions.tests_on(scores.chosen)
    return {
        "classes": len(known),
        "dataset_classes": dataset_classes,
        "photos": len(scores.chosen),
        "top1": scores.top1,
        "restricted_top1": scores.restricted_top1,
        "heads": {head: interval.as_json() for head, interval in heads.items()},
        "synsets": {
            name: [{"id": synset.id, "name": synset.name} for synset in synsets] for name, synsets in known.items()
        },
    }


def warnings_of_study(
    dataset: Dataset, backbone: Backbone, *, weights: str, probes: Sequence[ProbeRow], conclusions: Conclusions
) -> list[str]:
    """What a reader of a study must know before its numbers: a line each.

    Args:
        dataset: whose validation photos choose.
        backbone: whose classification layer is kept.
        weights: what it was built with.
        probes: of what the heads read.
        conclusions: of the runs.
    """
    unnamed = unnamed_classes(backbone, weights=weights)
    return [*warnings_of("study", dataset), *unnamed, *behind_probes(probes, conclusions)]


def heads_without(
    found: Sequence[Duplicate], photos: Sequence[str], conclusions: Conclusions
) -> HeadsWithoutDuplicates:
    """Scores of the heads on the test photos that look like no training or validation photo.

    Args:
        found: duplicates.
        photos: ids of the test photos that the runs scored.
        conclusions: of the runs.
    """
    kept = np.flatnonzero(unlike_others(found, photos))
    heads = conclusions.tests_on(kept) if len(kept) else {}
    return {"photos": len(kept), "heads": {head: interval.as_json() for head, interval in heads.items()}}


def _settings_of(run: CellRun) -> Settings:
    cell = run.cell
    return {
        "head": cell.head,
        "freeze_depth": cell.freeze_depth,
        "learning_rate": cell.learning_rate,
        "scale": cell.scale,
        "head_multiplier": cell.head_multiplier,
    }
