"""What is told of a search's trials while it runs; what is written of them is tested with whole searches."""

import time
from types import SimpleNamespace

import pytest

from ktl.config.settings import SearchConfig
from ktl.progress import Reporter
from ktl.tuning.trials import LEAST_COST, TrialKeeper

COSTS = {"early": 0.9, "late": 0.1, "all": 0.0}


def keeper_after(seconds: float, depths: list[str], *, of: int, costs=COSTS, ended_before: int = 0) -> TrialKeeper:
    """That of a search of `of` trials, of which some at these depths have ended."""
    trials = {
        str(number): SimpleNamespace(hyperparameters=SimpleNamespace(values={"freeze_depth": depth}))
        for number, depth in enumerate(depths)
    }
    oracle = SimpleNamespace(trials=trials, end_order=list(trials), most_trials=of)
    keeper = TrialKeeper(SearchConfig(dataset="photos"), None, oracle, Reporter(), costs=costs)
    keeper.started, keeper.ended_before = time.perf_counter() - seconds, ended_before
    return keeper


def test_the_time_left_is_by_what_the_trials_compute():
    # A grid of 3 depths x 2 scales, the early ones done: left are 2 x (0.1 + LEAST_COST) of 2 x 0.9.
    minutes = 90 * (0.1 + LEAST_COST) / 0.9
    assert keeper_after(90 * 60, ["early", "early"], of=6)._time_left() == f"  about {minutes:.0f} min left"


def test_trials_of_an_earlier_call_took_no_time_of_this_one():
    minutes = 9 * (0.1 + 2 * LEAST_COST) / 0.1
    keeper = keeper_after(9 * 60, ["early", "early", "late"], of=6, ended_before=2)
    assert keeper._time_left() == f"  about {minutes:.0f} min left"


@pytest.mark.parametrize("depths", [[], ["early", "early", "late", "late", "all", "all"]])
def test_nothing_is_told_before_the_first_trial_and_after_the_last(depths):
    assert keeper_after(60, depths, of=6)._time_left() == ""


def test_where_the_depth_is_not_varied_all_trials_cost_the_same():
    assert keeper_after(600, ["any", "any"], of=3, costs={})._time_left() == "  about 5 min left"
