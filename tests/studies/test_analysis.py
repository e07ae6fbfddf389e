"""What runs come to, by hand and by formulas."""

import dataclasses

import numpy as np
import pytest

from ktl.errors import UserError
from ktl.evaluation.intervals import Interval, mean_interval, paired_difference
from ktl.studies.analysis import (
    Group,
    bad_photos_of,
    best_depths,
    difference_of,
    groups_of,
    merit,
    row_of,
    summary_of,
    try_row_of,
    tuned_by,
    verdict,
)
from ktl.studies.design import Tuned
from ktl.studies.records import Cell, CellRun


def made(head="kept", depth="all", *, rate=1e-3, scale=3.0, share=1.0, seed=0, **found) -> CellRun:
    return CellRun(Cell(head, depth, rate, scale, share, seed), **found)


def test_among_equals_the_lowest_validation_loss_is_chosen():
    runs = [made(validation_top1=0.9, validation_loss=loss) for loss in (0.5, 0.4)]
    assert max(runs, key=lambda run: merit([run])) is runs[1]
    assert merit(runs) > merit([made(validation_top1=0.9)]), "a run without a loss failed"
    thirds = [made(validation_top1=top1, validation_loss=1.0) for top1 in (0.1, 0.2, 0.3)]
    assert merit(thirds) == merit(thirds[::-1]), "the order counts"


def test_the_settings_of_the_first_try_are_taken_and_all_tries_listed():
    best = made(rate=3e-3, scale=10.0, validation_top1=0.7, validation_loss=1.0, epochs=5)
    other = made(rate=1e-3, scale=3.0, validation_top1=0.5, validation_loss=2.0, epochs=2)
    assert tuned_by([best, other]) == Tuned(3e-3, 10.0, 10.0)
    row = try_row_of(other, chosen=False)
    assert (row["learning_rate"], row["epochs"], row["validation_loss"], row["chosen"]) == (1e-3, 2, 2.0, 0)
    assert "correct" not in row


def test_a_head_that_learns_under_none_of_its_tries_is_one_line():
    tries = [made("replaced", rate=rate, failed="Expected a finite loss") for rate in (1e29, 1e30)]
    with pytest.raises(UserError, match=r"under which the head replaced learns. Received: .*1e\+29.*1e\+30"):
        tuned_by(tries)


def test_the_best_depth_is_that_of_the_highest_mean_with_all_photos():
    runs = [
        made(depth=depth, share=share, seed=seed, validation_top1=top1 + 0.01 * seed, validation_loss=1.0)
        for depth, share, top1 in (("a", 1.0, 0.5), ("b", 1.0, 0.6), ("c", 1.0, 0.55), ("a", 0.5, 0.9))
        for seed in (1, 0)
    ]
    assert best_depths(runs) == {"kept": "b"}
    groups = groups_of(runs)
    assert set(groups) == {
        Group("kept", "a", 1.0),
        Group("kept", "b", 1.0),
        Group("kept", "c", 1.0),
        Group("kept", "a", 0.5),
    }
    assert all([run.cell.seed for run in group] == [0, 1] for group in groups.values())


def test_a_run_that_diverged_has_no_speed():
    learned = made(validation_top1=1.0, correct=[1, 1], converged=4, seconds=8.0)
    diverged = made(correct=[0, 0], failed="Expected ...", seed=1)
    group = Group("kept", "all", 1.0)
    row = summary_of(group, {group: [learned, diverged]}, None, photos=9)
    assert (row.test_top1, row.converged, row.seconds, row.photos, row.seeds) == (0.5, 4.0, 8.0, 9, 2)
    row = summary_of(group, {group: [diverged, diverged]}, None, photos=9)
    assert (row.test_top1, row.converged, row.seconds) == (0.0, None, 0.0)


def test_a_part_is_compared_with_the_baseline_at_its_own_best_depth():
    generator = np.random.default_rng(0)
    runs = [
        made(head, depth, share=share, seed=seed, correct=generator.integers(2, size=30).tolist())
        for head, depth, share in (
            ("kept", "a", 1.0),
            ("replaced", "a", 1.0),
            ("kept", "a", 0.5),
            ("replaced", "b", 0.5),
        )
        for seed in range(3)
    ]
    groups = groups_of(runs)
    for share, depth in ((1.0, "a"), (0.5, "b")):
        row = summary_of(Group("kept", "a", share), groups, "b", photos=1)
        hits, baseline = (
            np.array([run.correct for run in groups[Group(head, at, share)]], bool)
            for head, at in (("kept", "a"), ("replaced", depth))
        )
        expected = paired_difference(hits, baseline)
        assert (row.difference, row.difference_low, row.difference_high) == dataclasses.astuple(expected)
        tests = mean_interval([float(one.mean()) for one in hits])
        assert (row.test_top1, row.test_low, row.test_high) == dataclasses.astuple(tests)
        assert row.verdict == verdict("kept", expected)
    assert summary_of(Group("kept", "a", 0.5), groups, None, photos=1).verdict == "not compared"
    row = summary_of(Group("replaced", "a", 1.0), groups, "b", photos=1)
    assert (row.difference, row.verdict) == (None, "the baseline")


def test_one_seed_shows_no_difference():
    runs, baseline = [made(correct=[1, 1, 1, 0])], [made("replaced", correct=[0, 0, 0, 0])]
    assert difference_of(runs, baseline) is None
    assert difference_of(runs, None) is None
    assert difference_of(2 * runs, 2 * baseline).estimate == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (None, "not compared"),
        (Interval(0.012, 0.008, 0.016), "gains 1.2 points (+0.8 to +1.6)"),
        (Interval(-0.02, -0.03, -0.01), "loses 2.0 points (-3.0 to -1.0)"),
        (Interval(0.012, -0.001, 0.02), "no difference shown"),
    ],
)
def test_the_verdict_is_plain(difference, words):
    assert verdict("kept", difference) == words


def test_the_replaced_layer_is_the_baseline():
    assert verdict("replaced", None) == "the baseline"


def test_a_row_of_the_table_has_no_lists():
    row = row_of(made(correct=[1, 0, 0, 0], validation_top1=0.5, epochs=7, history=[0.4, 0.5], bad_photos=["a"]))
    assert row["test_top1"] == 0.25
    assert (row["head"], row["epochs"], row["validation_top1"]) == ("kept", 7, 0.5)
    assert not any(isinstance(value, list | tuple) for value in row.values())


def test_a_photo_that_one_run_left_out_is_bad():
    assert bad_photos_of([made(bad_photos=["a", "b"]), made(), made(bad_photos=["b"])]) == {"a", "b"}
