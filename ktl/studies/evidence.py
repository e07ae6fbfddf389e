"""Which test photo each run of a study recognised, in one file that is small enough to commit and to read."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ktl.errors import UserError, unknown_name
from ktl.files import FORMAT_VERSION, read_json, reading, write_atomically
from ktl.models.heads import BASELINE
from ktl.studies.comparison import Comparison
from ktl.studies.conclusions import Conclusions, conclude
from ktl.studies.records import CellRun

FILE = "correct.json"

RECORDED = ("objective", "validation_top1", "validation_loss", "validation_score")
"""What validation chooses by, beside what was trained."""

HITS = ("correct", "validation_correct")
"""What has a digit for each photo; studies of earlier versions have no `validation_correct`."""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All that a study's intervals and verdicts follow from.

    Attributes:
        photos: ids of the test photos.
        labels: the class of each of them.
        runs: with which of these each recognised, and which of the validation photos; nothing else of them is there but
            what validation chooses by.
    """

    photos: Sequence[str]
    labels: Sequence[str]
    runs: Sequence[CellRun]

    @property
    def conclusions(self) -> Conclusions:
        """Every interval and verdict of the study."""
        return conclude(self.runs)

    def comparison(self, head: str, other: str) -> Comparison:
        """Two heads, each at the freeze depth that validation chose for it; a comparison of its own, whatever else the
        study compares.

        Args:
            head: one that the study has.
            other: another one, which takes the place of the baseline.

        Raises:
            UserError: the study lacks one of them, or they are one.
        """
        known = {run.cell.head for run in self.runs}
        for name in (head, other):
            if name not in known:
                raise unknown_name("a head of the study", name, sorted(known))
        if head == other:
            raise UserError(f"Expected two heads of the study. Received: {head}, twice")
        names = {head: head if head != BASELINE else other, other: BASELINE}
        pair = [
            dataclasses.replace(run, cell=dataclasses.replace(run.cell, head=names[run.cell.head]))
            for run in self.runs
            if run.cell.head in names
        ]
        return conclude(pair).answers[names[head]]

    def photos_of(self, classes: Mapping[str, Any]) -> np.ndarray:
        """Places of the photos of these classes."""
        return np.flatnonzero([label in classes for label in self.labels])


def write_evidence(folder: Path, evidence: Evidence) -> None:
    """Writes correct.json: a line for the test photos, one for their classes, and one a run, with 1 for a photo that it
    recognised and 0 for another, of the test photos (`correct`) and of the validation photos."""
    lines = [json.dumps(_row(run)) for run in evidence.runs]
    head = {"format_version": FORMAT_VERSION, "photos": list(evidence.photos), "labels": list(evidence.labels)}
    parts = [f'"{name}": {json.dumps(value)}' for name, value in head.items()]
    runs = '"runs": [\n{}\n]'.format(",\n".join(lines))
    write_atomically(folder / FILE, "{{\n{}\n}}\n".format(",\n".join([*parts, runs])))


def read_evidence(folder: str | Path) -> Evidence:
    """What `write_evidence` wrote into a study's folder.

    Raises:
        UserError: it is not there, as in a study of version 0.1 or one that has not ended.
    """
    path = Path(folder) / FILE
    try:
        found = read_json(path)
    except FileNotFoundError as error:
        raise UserError(f"Expected a study that has ended, by version 0.2 or later. Received: no {path}") from error
    with reading(path):
        return Evidence(found["photos"], found["labels"], [_run(row) for row in found["runs"]])


def recompute(folder: str | Path) -> Conclusions:
    """Every interval and verdict of a study's summary.csv and result.json, from its correct.json alone.

        ktl.studies.evidence.recompute("experiments/results/flowers17").answers["kept"].sentence

    Args:
        folder: the study's.

    Raises:
        UserError: there is no correct.json.
    """
    return read_evidence(folder).conclusions


def _row(run: CellRun) -> dict[str, Any]:
    recorded = {name: getattr(run, name) for name in RECORDED}
    hits = {name: getattr(run, name) for name in HITS}
    digits = {name: "".join(str(int(hit)) for hit in row) for name, row in hits.items() if row is not None}
    return {**dataclasses.asdict(run.cell), **recorded, **digits}


def _run(row: Mapping[str, Any]) -> CellRun:
    hits = {name: [int(hit) for hit in row[name]] for name in HITS if name in row}
    return CellRun.from_json({**row, **hits})
