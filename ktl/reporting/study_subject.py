"""What a study left in its folder, read as data."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ktl.data.duplicates import Duplicate, read_duplicates
from ktl.errors import UserError
from ktl.files import read_csv, read_json, reading
from ktl.reporting.formatting import short_name
from ktl.reporting.study_json import StudyJson, StudyRunJson
from ktl.runs.finished_run import Environment
from ktl.stored import check_type, read_record

VARIED = ("head", "freeze_depth", "learning_rate", "scale", "head_multiplier")
"""Settings of a run that a study varies."""

VERSION_0_1 = {"head_multiplier": 10.0}
"""What a study of version 0.1 did not vary, and how it trained by default."""

Part = tuple[float, int | None]
"""Share of the training photos, and photos of each class where so many were drawn."""

WHOLE: Part = (1.0, None)
"""All training photos."""

FILES = ("config.json", "result.json", "environment.json", "summary.csv", "runs")
"""What a study that has ended has."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean or a difference, and the bounds of its 95 % interval; these are None where one seed tells nothing."""

    estimate: float
    low: float | None
    high: float | None

    @classmethod
    def from_json(cls, value: Mapping[str, float | None]) -> "Estimate":
        """The estimate in a result.json: estimate, low and high."""
        return cls(value["estimate"] or 0.0, _known(value["low"]), _known(value["high"]))


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


@dataclasses.dataclass(frozen=True)
class BestHead:
    """A head at the freeze depth that validation chose.

    Attributes:
        head: its name.
        values: setting that the study varies -> its value here.
        test_top1: over the seeds.
        difference: of it to the baseline's; None if it is the baseline, or none is known.
        verdict: this in words.
        limits: what the verdict leaves open, in words.
        smallest: the smallest true difference that such a study shows; None where nothing can be said.
    """

    head: str
    values: Mapping[str, Any]
    test_top1: Estimate
    difference: Estimate | None
    verdict: str
    limits: str = ""
    smallest: float | None = None

    @property
    def freeze_depth(self) -> str:
        return self.values["freeze_depth"]


@dataclasses.dataclass(frozen=True)
class SummaryRow:
    """A row of summary.csv: means over the seeds of a head at a freeze depth with a share of the training photos.

    Attributes:
        head: its name.
        freeze_depth: up to where it was frozen.
        share: of the training photos, 0 to 1.
        shots: photos of each class where so many were drawn; else None.
        photos: how many these are.
        seeds: how many runs.
        validation_top1: 0 to 1.
        test: top-1, 0 to 1.
        difference: to the baseline's; None where it is not known.
        verdict: this in words.
        limits: what the verdict leaves open, in words.
        converged: epochs until a run was near its best; None where all runs failed.
        seconds: of a run's training.
    """

    head: str
    freeze_depth: str
    share: float
    shots: int | None
    photos: float
    seeds: float
    validation_top1: float
    test: Estimate
    difference: Estimate | None
    verdict: str
    limits: str
    converged: float | None
    seconds: float

    @property
    def part(self) -> Part:
        return self.share, self.shots

    @property
    def part_name(self) -> str:
        """What people call it."""
        return f"{100 * self.share:g} %" if self.shots is None else f"{self.shots} a class"


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """What a file run.json says of a run.

    Attributes:
        values: setting that the study varies, share or seed -> its value.
        failed: why the run failed; empty if it did not.
        history: validation top-1 of each epoch, 0 to 1.
        converged: epochs until it was near its best.
        epochs: that were trained.
        validation_top1: of the best epoch.
    """

    values: Mapping[str, Any]
    failed: str
    history: Sequence[float]
    converged: int
    epochs: int
    validation_top1: float


@dataclasses.dataclass(frozen=True)
class StudySubject:
    """A study that has ended.

    Attributes:
        result: what result.json holds.
        summary: the rows of summary.csv.
        environment: what environment.json holds.
        runs: of all that it compared.
        duplicates: what duplicates.csv holds.
    """

    result: dict[str, Any]
    summary: Sequence[SummaryRow]
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    runs: Sequence[StudyRun] = ()
    duplicates: Sequence[Duplicate] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """Setting -> its value."""
        return self.result["settings"]

    @property
    def adjusted(self) -> bool:
        """Whether intervals are for other photos too, and verdicts adjusted; those of version 0.1 are not."""
        return all("limits" in row for row in self.result["best"])

    @property
    def counts_choices(self) -> bool:
        """Whether the intervals of the answer are also for other validation photos; those of earlier versions are not,
        nor those of a study with another objective."""
        return all(row.get("choice") is not None for row in self.result["best"])

    @cached_property
    def best(self) -> dict[str, BestHead]:
        """Head -> what it is at the freeze depth that validation chose."""
        return {row["head"]: _best_head(row) for row in self.result["best"]}

    @property
    def best_depths(self) -> dict[str, str]:
        """Head -> the freeze depth that validation chose."""
        return {head: row.freeze_depth for head, row in self.best.items()}

    @cached_property
    def depths(self) -> list[str]:
        """Freeze depths from none to all; numbers by their size, and layers as the study has them."""
        ends = {"none": 0, "all": 2}
        names = dict.fromkeys(row.freeze_depth for row in self.summary)
        return sorted(names, key=lambda name: (ends.get(name, 1), int(name) if name.isdecimal() else 0))

    @cached_property
    def rows(self) -> dict[tuple[str, str, Part], SummaryRow]:
        """(head, freeze depth, part of the training photos) -> its row of the summary."""
        return {(row.head, row.freeze_depth, row.part): row for row in self.summary}

    def runs_at_best(self, head: str) -> list[StudyRun]:
        """A head's runs at its best depth, with all training photos, by seed.

        A study that was stopped may have runs at a rate that its tries would not choose again: they do not count.
        """
        wanted = {**self.best[head].values, "share": 1, "shots": None}
        runs = [run for run in self.runs if wanted.items() <= run.values.items()]
        return sorted(runs, key=lambda run: run.values["seed"])


def is_study(folder: Path) -> bool:
    """Whether it is a study's folder, also of a study that has not ended, which has no summary yet."""
    return (folder / "summary.csv").exists() or ((folder / "config.json").exists() and (folder / "runs").is_dir())


def read(folders: Sequence[Path]) -> tuple[str, StudySubject]:
    """Title and subject of the page of one study."""
    (folder,) = folders
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing:
        raise UserError(f"Expected a study that has ended. Received: {folder}, without {', '.join(missing)}")
    result, summary = read_result(folder)
    runs = [_read_run(path) for path in sorted((folder / "runs").glob("*/run.json"))]
    counted = sum(int(row.seeds) for row in summary)
    if len(runs) < counted:
        raise UserError(f"Expected a study with {counted} files runs/*/run.json. Received: {folder}, with {len(runs)}")
    pairs = read_duplicates(folder / "duplicates.csv") if (folder / "duplicates.csv").exists() else ()
    subject = StudySubject(result, summary, read_record(folder / "environment.json", Environment), runs, pairs)
    return f"Study: {short_name(subject.settings['dataset'])}, {short_name(subject.settings['backbone'])}", subject


def read_result(folder: Path) -> tuple[dict[str, Any], list[SummaryRow]]:
    """What a folder's result.json holds, and the rows of its summary.csv.

    Raises:
        UserError: an earlier version than 0.1 wrote them.
    """
    result = read_json(folder / "result.json")
    if isinstance(result.get("tuned"), dict):
        raise UserError(f"Expected a study of this version of ktl. Received: {folder}, tuned at one freeze depth")
    check_type(result, StudyJson, path=folder / "result.json")
    with reading(folder / "summary.csv"):
        return result, [_summary_row(row) for row in read_csv(folder / "summary.csv")]


def _best_head(row: Mapping[str, Any]) -> BestHead:
    return BestHead(
        head=row["head"],
        values=_varied(row),
        test_top1=Estimate.from_json(row["test_top1"]),
        difference=Estimate.from_json(row["difference"]) if row["difference"] else None,
        verdict=row["verdict"],
        limits=row.get("limits", ""),
        smallest=row.get("smallest"),
    )


def _summary_row(row: Mapping[str, str]) -> SummaryRow:
    def known(name: str) -> float | None:
        return None if row[name] in ("", "nan") else float(row[name])

    difference, low, high = map(known, ("difference", "difference_low", "difference_high"))
    return SummaryRow(
        head=row["head"],
        freeze_depth=row["freeze_depth"],
        share=float(row["share"]),
        shots=int(row["shots"]) if row.get("shots") else None,
        photos=float(row["photos"]),
        seeds=float(row["seeds"]),
        validation_top1=float(row["validation_top1"]),
        test=Estimate(float(row["test_top1"]), known("test_low"), known("test_high")),
        difference=None if difference is None else Estimate(difference, low, high),
        verdict=row["verdict"],
        limits=row.get("limits", ""),
        converged=known("converged"),
        seconds=float(row["seconds"]),
    )


def _read_run(path: Path) -> StudyRun:
    with reading(path):
        recorded = read_record(path, StudyRunJson)
        return _study_run(recorded)


def _study_run(recorded: Mapping[str, Any]) -> StudyRun:
    numbers = {name: recorded[name] for name in ("failed", "history", "converged", "epochs", "validation_top1")}
    values = {**_varied(recorded), "share": recorded["share"], "shots": recorded.get("shots"), "seed": recorded["seed"]}
    return StudyRun(values, **numbers)


def _varied(recorded: Mapping[str, Any]) -> dict[str, Any]:
    return {name: recorded[name] if name in recorded else VERSION_0_1[name] for name in VARIED}
