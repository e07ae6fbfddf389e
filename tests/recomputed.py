"""Whether a study's intervals and verdicts are those that follow from which photos its runs recognised."""

import csv
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ktl.studies.comparison import Comparison, Group
from ktl.studies.conclusions import Conclusions
from ktl.studies.evidence import read_evidence
from ktl.studies.results import best_rows

NUMBERS = ("p_value", "smallest", "photos_needed")
WORDS = ("verdict", "limits")

SAME = 1e-9
"""The largest relative difference: another processor, or version of NumPy, adds in another order."""


def assert_follows_from_its_photos(folder: Path) -> None:
    """What summary.csv and result.json have is what correct.json gives, up to rounding."""
    evidence = read_evidence(folder)
    found = evidence.conclusions
    with open(folder / "summary.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found.groups)
    for row in rows:
        expected = flat(said(found, group_of(row)))
        assert_same({name: cell_of(row[name]) for name in expected}, expected)
    result, best = json.loads((folder / "result.json").read_text()), best_rows(found)
    for row, one in zip(result["best"], map(flat, best), strict=True):
        assert_same({name: flat(row)[name] for name in one}, one)
    if result["zero_shot"]:
        heads = found.tests_on(evidence.photos_of(result["zero_shot"]["synsets"]))
        expected = flat({head: interval.as_json() for head, interval in heads.items()})
        assert_same(flat(result["zero_shot"]["heads"]), expected)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Words are equal, and numbers up to rounding."""
    numbers = {name for name, value in expected.items() if isinstance(value, int | float)}
    words = expected.keys() - numbers
    assert {name: found[name] for name in words} == {name: expected[name] for name in words}
    for name in numbers:
        assert found[name] == pytest.approx(expected[name], rel=SAME), name


def group_of(row: dict[str, str]) -> Group:
    """The group of a row of summary.csv."""
    return Group(row["head"], row["freeze_depth"], float(row["share"]), int(row["shots"]) if row["shots"] else None)


def said(found: Conclusions, group: Group) -> dict[str, Any]:
    """What a row of summary.csv says of a group."""
    comparison: Comparison = found.comparisons[group]
    difference = comparison.difference and dataclasses.astuple(comparison.difference)
    return {
        **dict(zip(("test_top1", "test_low", "test_high"), dataclasses.astuple(found.tests[group]), strict=True)),
        **dict(zip(("difference", "difference_low", "difference_high"), difference or 3 * [None], strict=True)),
        **{name: getattr(comparison, name) for name in (*NUMBERS, *WORDS)},
    }


def cell_of(text: str) -> float | str:
    """What a cell of summary.csv says."""
    try:
        return float(text)
    except ValueError:
        return text


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with what is nested under names such as `difference.low`, and "" for None, as in a table."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = flat(value) if isinstance(value, dict) else {"": "" if value is None else value}
        found |= {f"{name}.{key}".rstrip("."): each for key, each in inner.items()}
    return found
