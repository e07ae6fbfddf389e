"""A search's trials: their order, the rows of their table, and the time that is left.

What is written of real trials is tested with whole searches.
"""

import csv
import dataclasses

import pytest

from ktl.config.settings import SearchConfig
from ktl.progress import LEAST_COST, Reporter
from ktl.tuning.oracles import new_oracle
from ktl.tuning.search_folder import SearchFolder
from ktl.tuning.trials import TimeEstimate, TrialRow, Trials, ranking

COSTS = {"early": 0.9, "late": 0.1, "all": 0.0}
HOUR = 3600


# The time that is left


def test_the_time_left_is_by_what_the_trials_compute():
    # A grid of 3 depths x 2 scales, the early ones done: left are 2 x (0.1 + LEAST_COST) of 2 x 0.9.
    left = TimeEstimate(COSTS, 6).seconds_left(["early", "early"], HOUR)
    assert left == pytest.approx(HOUR * (0.1 + LEAST_COST) / 0.9)


def test_trials_of_an_earlier_call_took_no_time_of_this_one():
    left = TimeEstimate(COSTS, 6, ended_before=2).seconds_left(["early", "early", "late"], HOUR)
    assert left == pytest.approx(HOUR * (0.1 + 2 * LEAST_COST) / 0.1)


@pytest.mark.parametrize("depths", [[], ["early", "early", "late", "late", "all", "all"]])
def test_nothing_is_known_before_the_first_trial_and_nothing_is_left_after_the_last(depths):
    assert TimeEstimate(COSTS, 6).seconds_left(depths, HOUR) is None


def test_where_the_depth_is_not_varied_all_trials_cost_the_same():
    assert TimeEstimate({}, 3).seconds_left(["any", "any"], HOUR) == pytest.approx(HOUR / 2)


# Order and rows


SCORES = {1.0: (0.5, 1.0), 3.0: (0.7, 2.0), 10.0: (0.7, 1.5), 30.0: (0.2, 0.1)}
"""Scale -> validation top-1 and loss."""


class Listener(Reporter):
    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


@pytest.fixture
def searched(tmp_path):
    """The trials of a grid of four scales, the last of which failed, and the lines that were told."""
    config = SearchConfig(dataset="x", space="scale=1,3,10,30")
    folder = SearchFolder(tmp_path / "out", config)
    space = {"scale": tuple(SCORES), "freeze_depth": ("all",)}
    oracle = new_oracle("grid", space, max_trials=50, epochs=1, seed=0, folder=folder.path)
    listener = Listener()
    trials = Trials(oracle, folder, names=("scale",), keep=1, costs={}, reporter=listener)
    oracle.on_trial_end = trials.tell_end
    for scale, (top1, loss) in SCORES.items():
        trial = oracle.create_trial("w")
        assert trial.hyperparameters.values["scale"] == scale
        if scale == 30:
            trial.status, trial.message = "FAILED", "Traceback\nout of memory\n"
        else:
            metrics = {"validation_top1": top1, "validation_loss": loss, "epochs": 2, "seconds": 4.5}
            oracle.update_trial(trial.trial_id, metrics)
            trial.status = "COMPLETED"
        oracle.end_trial(trial)
    return trials, listener.lines


def test_the_best_trial_has_the_highest_score_and_among_equals_the_lowest_loss(searched):
    trials, _ = searched
    ranked = [trial.hyperparameters.values["scale"] for trial in ranking(trials.oracle.trials.values())]
    assert ranked == [10.0, 3.0, 1.0]
    assert trials.ranked[0].trial_id == "02"


def test_the_best_trial_by_a_loss_has_the_lowest(searched):
    trials, _ = searched
    for trial in trials.oracle.trials.values():
        trial.score = trial.metrics.get_last_value("validation_loss") if trial.status == "COMPLETED" else None
    ranked = [trial.hyperparameters.values["scale"] for trial in ranking(trials.oracle.trials.values(), "log_loss")]
    assert ranked == [1.0, 10.0, 3.0]


def test_the_table_has_a_row_for_each_trial_the_best_first_and_the_failed_last(searched):
    trials, _ = searched
    with open(trials.folder.path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["scale"] for row in rows] == ["10.0", "3.0", "1.0", "30.0"]
    assert rows[0] == {
        "trial": "02",
        "scale": "10.0",
        "validation_top1": "0.7",
        "validation_top1_sd": "",
        "validation_loss": "1.5",
        "epochs": "2.0",
        "seconds": "4.5",
        "status": "completed",
        "reason": "",
    }
    assert (rows[3]["status"], rows[3]["reason"], rows[3]["validation_top1"]) == ("failed", "out of memory", "")


def test_a_row_has_the_varied_settings_after_the_trial_and_empty_cells_for_what_is_not_there():
    row = TrialRow("07", {"head": "kept", "scale": 3.0}, 0.5, None, None, 0.0, None, "running", "")
    assert list(row.cells.items()) == [
        ("trial", "07"),
        ("head", "kept"),
        ("scale", 3.0),
        ("validation_top1", 0.5),
        ("validation_top1_sd", ""),
        ("validation_loss", ""),
        ("epochs", 0.0),
        ("seconds", ""),
        ("status", "running"),
        ("reason", ""),
    ]
    others = dataclasses.replace(row, others={"validation_macro_f1": 0.25})
    assert list(others.cells.items()) == [*row.cells.items(), ("validation_macro_f1", 0.25)]


def test_each_end_is_told_with_the_best_so_far(searched):
    _, lines = searched
    assert [line.split("  about")[0] for line in lines] == [
        "trial 00  scale 1  validation 0.5000  best 0.5000",
        "trial 01  scale 3  validation 0.7000  best 0.7000",
        "trial 02  scale 10  validation 0.7000  best 0.7000",
        "trial 03  scale 30  failed: out of memory  best 0.7000",
    ]
    assert all("min left" in line for line in lines[:3])
    assert "min left" not in lines[3]


def test_the_statuses_and_the_reasons_are_counted(searched):
    trials, _ = searched
    assert trials.counts() == {"completed": 3, "failed": 1}
    assert trials.failures() == "1 failed: out of memory"
