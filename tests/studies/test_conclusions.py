"""What made-up studies conclude."""

import numpy as np
import pytest
from made_up_answers import answers

from ktl.evaluation.intervals import accuracy_interval
from ktl.studies.comparison import Group, Pair, compare, noises_of
from ktl.studies.conclusions import conclude
from ktl.studies.records import Cell, CellRun

HEADS = ("kept", "kept_raw", "replaced")
BEST = {"kept": "a", "kept_raw": "b", "replaced": "b"}


def made(head, depth, seed, hits, *, share=1.0, shots=None) -> CellRun:
    cell = Cell(head, depth, 1e-3, 3.0, share, seed, shots=shots)
    top1 = 0.9 if depth == BEST[head] else 0.8
    return CellRun(cell, validation_top1=top1, validation_loss=1.0, correct=hits.astype(int).tolist())


@pytest.fixture(scope="module")
def runs() -> list[CellRun]:
    """Two depths with all photos; each head at its best depth, and at the baseline's, with a part and some shots."""
    generator = np.random.default_rng(0)
    found = []
    for part in ({}, {"share": 0.5}, {"shots": 4}):
        for depth in ("a", "b"):
            hits = answers(generator, heads=3, seeds=4, photos=200, gain=-1.0)
            for head, rows in zip(HEADS, hits, strict=True):
                if not part or depth in (BEST[head], BEST["replaced"]):
                    found += [made(head, depth, seed, row, **part) for seed, row in enumerate(rows)]
    return found


def test_heads_are_compared_at_their_best_depths(runs):
    found = conclude(runs)
    assert found.best == {head: Group(head, depth, 1.0) for head, depth in BEST.items()}
    pairs = {head: Pair(group, Group("replaced", "b", 1.0)) for head, group in found.best.items()}
    assert found.answers == compare(pairs, found.groups, choices={"kept": None, "kept_raw": None})
    assert found.answers["kept"].verdict.startswith("loses")
    assert found.answers["replaced"].verdict == "the baseline"


def test_the_table_has_all_photos_at_one_depth_and_parts_at_the_baselines_best(runs):
    found = conclude(runs)
    assert list(found.comparisons) == list(found.tests) == list(found.groups)
    whole = {group: Pair(group, Group("replaced", *group[1:])) for group in found.groups if group.whole}
    parts = {group: Pair(group, Group("replaced", "b", *group[2:])) for group in found.groups if not group.whole}
    assert len(whole) == 6
    assert len(parts) == 2 * 4
    assert found.comparisons == compare(whole, found.groups) | compare(parts, found.groups)


def test_a_family_is_wider_than_one_of_its_own(runs):
    """All photos at two depths are twice as many comparisons as two heads at their best ones."""
    found = conclude(runs)
    group = Group("kept_raw", "b", 1.0)
    (in_table, in_answer) = (found.comparisons[group].difference, found.answers["kept_raw"].difference)
    assert in_table.estimate == in_answer.estimate
    assert in_table.high - in_table.low >= in_answer.high - in_answer.low


def test_without_the_baseline_nothing_is_compared(runs):
    found = conclude([run for run in runs if run.cell.head != "replaced"])
    assert {one.verdict for one in [*found.answers.values(), *found.comparisons.values()]} == {"not compared"}


def test_heads_on_some_photos(runs):
    found, chosen = conclude(runs), np.arange(0, 200, 3)
    best = {group: found.groups[group] for group in found.best.values()}
    noises = noises_of(best, chosen)
    for head, interval in found.tests_on(chosen).items():
        hits = np.array([run.hits[chosen] for run in best[found.best[head]]])
        assert interval == accuracy_interval(hits, noise=noises[found.best[head]])
