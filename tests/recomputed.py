"""Whether a study's intervals and verdicts are those that follow from which photos its runs recognised."""

import csv
import dataclasses
import json
from pathlib import Path

from ktl.studies.comparison import Comparison, Group
from ktl.studies.conclusions import Conclusions
from ktl.studies.evidence import read_evidence
from ktl.studies.results import best_rows

NUMBERS = ("p_value", "smallest", "photos_needed")
WORDS = ("verdict", "limits")


def assert_follows_from_its_photos(folder: Path) -> None:
    """What summary.csv and result.json have equals what correct.json gives, to the last digit."""
    evidence = read_evidence(folder)
    found = evidence.conclusions
    with open(folder / "summary.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found.groups)
    for row in rows:
        assert {name: row[name] for name in said(found, group_of(row))} == said(found, group_of(row))
    result, best = json.loads((folder / "result.json").read_text()), best_rows(found)
    assert [{name: row[name] for name in one} for row, one in zip(result["best"], best, strict=True)] == best
    if result["zero_shot"]:
        heads = found.tests_on(evidence.photos_of(result["zero_shot"]["synsets"]))
        assert result["zero_shot"]["heads"] == {head: interval.as_json() for head, interval in heads.items()}


def group_of(row: dict[str, str]) -> Group:
    """The group of a row of summary.csv."""
    return Group(row["head"], row["freeze_depth"], float(row["share"]), int(row["shots"]) if row["shots"] else None)


def said(found: Conclusions, group: Group) -> dict[str, str]:
    """What a row of summary.csv says of a group, as text."""
    comparison: Comparison = found.comparisons[group]
    difference = comparison.difference and dataclasses.astuple(comparison.difference)
    values = {
        **dict(zip(("test_top1", "test_low", "test_high"), dataclasses.astuple(found.tests[group]), strict=True)),
        **dict(zip(("difference", "difference_low", "difference_high"), difference or 3 * [None], strict=True)),
        **{name: getattr(comparison, name) for name in (*NUMBERS, *WORDS)},
    }
    return {name: "" if value is None else str(value) for name, value in values.items()}
