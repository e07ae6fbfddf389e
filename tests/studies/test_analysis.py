"""What runs come to, by hand and by formulas."""

import pytest

from ktl.errors import UserError
from ktl.evaluation.intervals import Interval
from ktl.studies.analysis import (
    bad_photos_of,
    best_depths,
    groups_of,
    merit,
    row_of,
    summary_of,
    try_row_of,
    tuned_by,
)
from ktl.studies.comparison import Comparison, Group
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


def test_what_is_chosen_follows_the_objective():
    accurate = {"validation_top1": 0.9, "validation_loss": 0.5}
    careful = {"validation_top1": 0.8, "validation_loss": 0.3}
    for objective, scores, expected in (
        ("top1", (0.9, 0.8), 0),
        ("log_loss", (0.5, 0.3), 1),
        ("macro_f1", (0.4, 0.6), 1),
        ("macro_f1", (0.6, 0.6), 1),  # equals: the lower loss
    ):
        runs = [
            made(**found, objective=objective, validation_score=score)
            for found, score in zip((accurate, careful), scores, strict=True)
        ]
        assert max(runs, key=lambda run: merit([run])) is runs[expected], objective
        assert merit(runs) > merit([made(objective=objective, failed="Expected a finite loss")])


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
    test, comparison = Interval(0.5, 0.1, 0.9), Comparison("not compared")
    row = summary_of(group, [learned, diverged], test, comparison, photos=9)
    assert (row.test_top1, row.converged, row.seconds, row.photos, row.seeds) == (0.5, 4.0, 8.0, 9, 2)
    row = summary_of(group, [diverged, diverged], test, comparison, photos=9)
    assert (row.converged, row.seconds) == (None, 0.0)


def test_a_row_of_the_summary_has_what_is_concluded():
    runs = [made(validation_top1=top1, correct=[1, 0], converged=4, seconds=8.0) for top1 in (0.5, 0.7)]
    comparison = Comparison("no difference shown", Interval(0.01, -0.02, 0.04), 0.5, 0.05, 1000)
    row = summary_of(Group("kept", "all", 0.5), runs, Interval(0.5, 0.4, 0.6), comparison, photos=9)
    assert (row.head, row.freeze_depth, row.share, row.shots) == ("kept", "all", 0.5, None)
    assert (row.test_top1, row.test_low, row.test_high) == (0.5, 0.4, 0.6)
    assert (row.difference, row.difference_low, row.difference_high) == (0.01, -0.02, 0.04)
    assert (row.p_value, row.smallest, row.photos_needed) == (0.5, 0.05, 1000)
    assert f"{row.verdict}; {row.limits}" == comparison.sentence
    assert row.validation_top1 == pytest.approx(0.6)
    row = summary_of(Group("kept", "all", 0.5), runs, Interval(0.5, 0.4, 0.6), Comparison("words"), photos=9)
    assert (row.difference, row.p_value, row.smallest, row.verdict, row.limits) == (None, None, None, "words", "")


def test_a_row_of_the_table_has_no_lists():
    row = row_of(made(correct=[1, 0, 0, 0], validation_top1=0.5, epochs=7, history=[0.4, 0.5], bad_photos=["a"]))
    assert row["test_top1"] == 0.25
    assert (row["head"], row["epochs"], row["validation_top1"]) == ("kept", 7, 0.5)
    assert not any(isinstance(value, list | tuple) for value in row.values())


def test_a_photo_that_one_run_left_out_is_bad():
    assert bad_photos_of([made(bad_photos=["a", "b"]), made(), made(bad_photos=["b"])]) == {"a", "b"}
