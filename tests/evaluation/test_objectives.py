"""Objectives: each turned so that more is better."""

import math

import pytest

from ktl.evaluation.metrics import SCORES
from ktl.evaluation.objectives import OBJECTIVES


def test_each_is_a_score_that_a_run_reports():
    assert set(OBJECTIVES) <= set(SCORES)


@pytest.mark.parametrize(
    ("name", "good", "bad", "direction"),
    [
        ("top1", 0.9, 0.1, "max"),
        ("mean_class_accuracy", 0.9, 0.1, "max"),
        ("macro_f1", 0.9, 0.1, "max"),
        ("log_loss", 0.1, 0.9, "min"),
    ],
)
def test_more_is_better_and_nothing_is_worse_than_a_network_that_knows_nothing(name, good, bad, direction):
    row = OBJECTIVES[name]
    assert row.goodness({row.column: good}) > row.goodness({row.column: bad}) > row.worst
    assert row.direction == direction
    assert row.worst in (0, -math.inf)
