"""The oracles without models: what they give out, what survives a kill, and what a lost worker costs."""

import itertools
import json
import os

import keras_tuner
import pytest

from ktl.tuning import oracles

SPACE = {"freeze_depth": ("none", "block", "all"), "scale": (1.0, 3.0, 10.0, 30.0)}
POINTS = [dict(zip(SPACE, values, strict=True)) for values in itertools.product(*SPACE.values())]

SETTINGS = {
    "grid": {"max_trials": 6},
    "random": {"max_trials": 6},
    "bayesian": {"max_trials": 5, "values": {"scale": tuple(float(i) for i in range(1, 21))}},
    "hyperband": {"epochs": 3},
}
"""Of these bayesian trials, the first three are random."""


class Killed(BaseException):
    """What no handler of an Exception stops."""


def open_oracle(name, folder, values=SPACE, **settings):
    """As a process that starts: continues what is in the folder."""
    return oracles.new_oracle(name, values, **{"max_trials": 50, "epochs": 15, "seed": 0, **settings}, folder=folder)


def score(values) -> float:
    """Highest for block and 11; no two are equal."""
    depth = SPACE["freeze_depth"].index(values.get("freeze_depth", "block"))
    return 0.9 - abs(values["scale"] - 11) / 100 - 0.1 * abs(depth - 1.1) + 0.001 * values.get("tuner/epochs", 0)


def complete(oracle, trial, status="COMPLETED") -> None:
    """What KerasTuner's tuner does when a trial has run."""
    if not oracle.get_trial(trial.trial_id).metrics.exists("validation_top1") and status == "COMPLETED":
        metrics = {"validation_top1": score(trial.hyperparameters.values), "validation_loss": 1.0}
        oracle.update_trial(trial.trial_id, metrics)
    trial.status = status
    oracle.end_trial(trial)


def work(oracle, *, most=None, worker="tuner0", status="COMPLETED") -> list[str]:
    """Runs trials, at most so many, until there are none; returns the ids in the order in which they ran."""
    ran = []
    while len(ran) != most:
        trial = oracle.create_trial(worker)
        if trial.status == "STOPPED":
            break
        ran.append(trial.trial_id)
        complete(oracle, trial, status)
    return ran


def points_of(oracle) -> list:
    return [(name, trial.hyperparameters.values) for name, trial in oracle.trials.items()]


def completed_on_disk(folder) -> set[str]:
    states = [json.loads(path.read_text()) for path in folder.glob("trials/trial_*/trial.json")]
    return {state["trial_id"] for state in states if state["status"] == "COMPLETED"}


# What is given out


def test_the_grid_is_every_combination_once_the_last_dimension_fastest(tmp_path):
    oracle = open_oracle("grid", tmp_path)
    assert len(work(oracle)) == len(POINTS)
    assert [values for _, values in points_of(oracle)] == POINTS
    assert oracle.exhausted


def test_the_grid_stops_at_the_most_trials(tmp_path):
    oracle = open_oracle("grid", tmp_path, max_trials=5)
    assert len(work(oracle)) == 5
    assert [values for _, values in points_of(oracle)] == POINTS[:5]


@pytest.mark.parametrize("name", ["grid", "random", "hyperband"])
def test_as_many_trials_are_expected_as_there_will_be(name, tmp_path):
    oracle = open_oracle(name, tmp_path, {"scale": tuple(float(k) for k in range(1, 60))}, max_trials=7, epochs=15)
    assert len(work(oracle)) == oracle.expected_trials
    small = open_oracle("grid", tmp_path / "small", {"scale": (1.0, 3.0)}, max_trials=7)
    assert len(work(small)) == small.expected_trials == 2


def test_no_random_combination_is_tried_twice(tmp_path):
    oracle = open_oracle("random", tmp_path, max_trials=10)
    work(oracle)
    tried = [tuple(values.values()) for _, values in points_of(oracle)]
    assert len(tried) == len(set(tried)) == 10
    assert {tuple(point.values()) for point in POINTS} >= set(tried)


def test_a_small_space_is_tried_to_its_end(tmp_path):
    """The Gaussian process proposes the best point again and again; what it has proposed is not run twice."""
    oracle = open_oracle("bayesian", tmp_path, {"scale": (1.0, 10.0, 11.0, 12.0, 30.0)}, max_trials=9)
    work(oracle)
    assert sorted(values["scale"] for _, values in points_of(oracle)) == [1.0, 10.0, 11.0, 12.0, 30.0]
    assert oracle.exhausted


@pytest.mark.slow
def test_bayesian_proposals_are_better_than_chance(tmp_path):
    """After three random points it finds the best of 99 within five more; chance would need dozens."""
    oracle = open_oracle("bayesian", tmp_path, {"scale": tuple(float(i) for i in range(1, 100))}, max_trials=8)
    work(oracle)
    tried = [values["scale"] for _, values in points_of(oracle)]
    assert min(abs(scale - 11) for scale in tried[3:]) <= 1 < min(abs(scale - 11) for scale in tried[:3])


def test_hyperband_promotes_the_best_of_each_round_with_more_epochs(tmp_path):
    oracle = open_oracle("hyperband", tmp_path, {**SPACE, "hidden_units": tuple(range(20))}, epochs=9)
    work(oracle)
    trials = oracle.trials
    promoted = {name: t for name, t in trials.items() if "tuner/trial_id" in t.hyperparameters.values}
    assert promoted
    for trial in promoted.values():
        values = trial.hyperparameters.values
        before = trials[values["tuner/trial_id"]]
        for name in ("scale", "freeze_depth", "hidden_units"):
            assert values[name] == before.hyperparameters.values[name]
        assert values["tuner/epochs"] > values["tuner/initial_epoch"] == before.hyperparameters.values["tuner/epochs"]
    assert max(t.hyperparameters.values["tuner/epochs"] for t in trials.values()) == 9
    # Bracket 2 of 9 epochs, factor 3: one epoch for all of the first round, the best of which go on.
    first = [t for t in trials.values() if t.hyperparameters.values["tuner/epochs"] == 1]
    chosen = {t.hyperparameters.values["tuner/trial_id"] for t in promoted.values()}
    best = sorted(first, key=lambda t: -t.score)
    assert {t.trial_id for t in first} & chosen == {
        t.trial_id for t in best[: len({t.trial_id for t in first} & chosen)]
    }


@pytest.mark.parametrize("points", [2, 5, 10, 14, 16, 25])
def test_hyperband_lets_the_best_go_on_where_the_space_is_smaller_than_its_plan(tmp_path, points):
    oracle = open_oracle("hyperband", tmp_path, {"scale": tuple(float(i) for i in range(1, points + 1))}, epochs=9)
    work(oracle)
    assert oracle.exhausted
    rounds = {}  # (bracket, number) -> what was tried
    for trial in oracle.trials.values():
        values = trial.hyperparameters.values
        rounds.setdefault((values["tuner/bracket"], values["tuner/round"]), []).append(trial)
    tried = sum(len(trials) for (_, number), trials in rounds.items() if number == 0)
    assert min(points, 17) - 2 <= tried <= 17  # its plan is 9 + 5 + 3; KerasTuner draws until it draws in vain 20 times
    for (bracket, number), trials in rounds.items():
        values = [trial.hyperparameters.values["scale"] for trial in trials]
        assert len(set(values)) == len(values)
        if number < bracket:
            following = [trial.hyperparameters.values for trial in rounds[bracket, number + 1]]
            assert len(following) >= -(-len(trials) // 3)
            best = sorted(trials, key=lambda trial: -trial.score)[: len(following)]
            assert {values["tuner/trial_id"] for values in following} == {trial.trial_id for trial in best}


@pytest.mark.parametrize("name", ["bayesian", "hyperband"])
def test_by_a_loss_the_lowest_are_looked_for(tmp_path, name):
    """The loss is the square of the distance to a scale of 11."""
    values = {"scale": tuple(float(i) for i in range(1, 60))}
    trials = {"bayesian": 6, "hyperband": 20}[name]
    oracle = open_oracle(name, tmp_path, values, max_trials=trials, epochs=9, objective="log_loss")
    assert (oracle.objective.name, oracle.objective.direction) == ("validation_loss", "min")
    rounds = {}
    while (trial := oracle.create_trial("tuner0")).status != "STOPPED":
        found = trial.hyperparameters.values
        oracle.update_trial(trial.trial_id, {"validation_loss": (found["scale"] - 11) ** 2, "validation_top1": 0.5})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        rounds.setdefault((found.get("tuner/bracket"), found.get("tuner/round")), []).append(found["scale"])
    if name == "bayesian":
        (scales,) = rounds.values()
        assert min(abs(scale - 11) for scale in scales[3:]) <= 1
    else:
        first, second = (sorted(rounds[2, number], key=lambda scale: abs(scale - 11)) for number in (0, 1))
        assert second == first[: len(second)]


@pytest.mark.parametrize("name", ["random", "bayesian", "hyperband"])
def test_a_seed_gives_the_same_trials_each_time_and_another_one_others(tmp_path, name):
    """Also seed 0, which KerasTuner takes for none."""
    found = []
    for index, seed in enumerate((0, 0, 1)):
        settings = {**SETTINGS[name], "seed": seed}
        if name == "bayesian":
            settings["max_trials"] = 4  # one that is not random: each takes a second
        oracle = open_oracle(name, tmp_path / str(index), **settings)
        work(oracle)
        found.append(points_of(oracle))
    assert found[0] == found[1] != found[2]


# Kills


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The trials of each oracle that nobody kills."""
    found = {}
    for name, settings in SETTINGS.items():
        oracle = open_oracle(name, tmp_path_factory.mktemp(name), **settings)
        work(oracle)
        found[name] = points_of(oracle)
    return found


@pytest.fixture
def clock(monkeypatch):
    """The oracles' clock, moved by hand."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(oracles, "time", clock)
    return clock


def test_a_chief_that_starts_again_leaves_a_trial_to_the_worker_that_may_still_run_it(tmp_path, clock):
    """Two processes in one trial's folder would remove each other's checkpoints."""
    before = open_oracle("grid", tmp_path)
    first, second = before.create_trial("a"), before.create_trial("b")
    complete(before, second)
    third = before.create_trial("b")
    oracle = open_oracle("grid", tmp_path)
    assert oracle.active_workers() == 2
    new = oracle.create_trial("c")
    assert new.trial_id not in {first.trial_id, second.trial_id, third.trial_id}
    assert oracle.create_trial("a").trial_id == first.trial_id  # started again under its own name
    clock.now += oracles.HEARTBEAT_TIMEOUT - 1
    for running in (first, new):  # b has no heartbeat
        oracle.get_trial(running.trial_id)
    clock.now += 2
    assert oracle.create_trial("d").trial_id == third.trial_id


@pytest.mark.parametrize("name", SETTINGS)
def test_a_new_process_after_any_number_of_trials_goes_on_with_the_same_ones(tmp_path, undisturbed, name):
    for done in (3, 4) if name == "bayesian" else range(len(undisturbed[name]) + 1):
        first = work(open_oracle(name, tmp_path / str(done), **SETTINGS[name]), most=done)
        oracle = open_oracle(name, tmp_path / str(done), **SETTINGS[name])
        second = work(oracle)
        assert first + second == [trial for trial, _ in undisturbed[name]]
        assert points_of(oracle) == undisturbed[name]


@pytest.mark.parametrize("name", ["grid", "random", pytest.param("bayesian", marks=pytest.mark.slow), "hyperband"])
def test_a_kill_at_any_file_loses_and_repeats_nothing_that_was_done(tmp_path, monkeypatch, undisturbed, name):
    """The n-th file is not put into place, for every n."""
    expected = undisturbed[name]
    replace = os.replace
    files_each = 7  # of a trial: two when it starts, one with its metrics, four when it ends
    for call in range(23 if name == "bayesian" else 1, len(expected) * files_each + 1):
        folder, calls = tmp_path / str(call), []

        def killed(*arguments, calls=calls, call=call):
            calls.append(arguments)
            if len(calls) == call:
                raise Killed
            return replace(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr("ktl.files.os.replace", killed)
            oracle = open_oracle(name, folder, **SETTINGS[name])
            with pytest.raises(Killed):
                work(oracle)
        done = completed_on_disk(folder)
        oracle = open_oracle(name, folder, **SETTINGS[name])
        assert {trial for trial in oracle.trials if oracle.trials[trial].status == "COMPLETED"} == done
        ran = work(oracle)
        assert not done & set(ran)
        assert len(ran) + len(done) == len(expected)
        assert points_of(oracle) == expected
        assert sorted(oracle.end_order) == sorted(trial for trial, _ in expected)
        assert {trial.status for trial in oracle.trials.values()} == {"COMPLETED"}
    # There were no more files than that.
    with monkeypatch.context() as patch:
        counted = []
        patch.setattr("ktl.files.os.replace", lambda *arguments: (counted.append(1), replace(*arguments)))
        work(open_oracle(name, tmp_path / "count", **SETTINGS[name]))
    assert len(counted) == len(expected) * files_each


def test_a_second_kill_in_the_same_trial_changes_nothing(tmp_path):
    for _ in range(3):
        assert open_oracle("grid", tmp_path).create_trial("tuner0").trial_id == "00"
    oracle = open_oracle("grid", tmp_path)
    work(oracle)
    assert [values for _, values in points_of(oracle)] == POINTS


# Failures


@pytest.mark.parametrize("name", ["grid", "random", "bayesian"])
def test_ten_failures_in_a_row_do_not_end_the_search(tmp_path, name):
    oracle = open_oracle(name, tmp_path, max_trials=11)
    assert len(work(oracle, most=10, status="FAILED")) == 10
    assert len(work(oracle)) == 1
    statuses = [trial.status for trial in oracle.trials.values()]
    assert statuses == ["FAILED"] * 10 + ["COMPLETED"]


def test_a_failed_trial_is_not_run_again_after_a_kill(tmp_path):
    work(open_oracle("grid", tmp_path), most=3, status="FAILED")
    assert work(open_oracle("grid", tmp_path))[0] == "03"


# Workers


def test_every_end_is_told_once(tmp_path):
    oracle = open_oracle("grid", tmp_path)
    ended = []
    oracle.on_trial_end = lambda trial: ended.append((trial.trial_id, trial.status, trial.score))
    ran = work(oracle)
    assert ended == [(name, "COMPLETED", score(values)) for name, values in zip(ran, POINTS, strict=True)]


def test_two_workers_never_have_the_same_trial(tmp_path):
    oracle = open_oracle("grid", tmp_path)
    while not oracle.exhausted:
        trials = [oracle.create_trial(worker) for worker in ("a", "b")]
        running = [trial for trial in trials if trial.status == "RUNNING"]
        assert len({trial.trial_id for trial in running}) == len(running)
        for trial in running:
            complete(oracle, trial)
    assert [values for _, values in points_of(oracle)] == POINTS


def test_the_trial_of_a_worker_without_heartbeats_is_requeued(tmp_path, clock):
    oracle = open_oracle("grid", tmp_path)
    lost = oracle.create_trial("a")
    clock.now += oracles.HEARTBEAT_TIMEOUT - 1
    assert oracle.create_trial("b").trial_id != lost.trial_id
    complete(oracle, oracle.ongoing_trials["b"])
    clock.now += 2
    assert oracle.create_trial("b").trial_id == lost.trial_id
    complete(oracle, oracle.ongoing_trials["b"])
    work(oracle, worker="b")
    assert [values for _, values in points_of(oracle)] == POINTS
    assert sorted(oracle.end_order) == sorted(oracle.trials)
    assert oracle.exhausted
    assert oracle.active_workers() == 0


def test_asking_for_its_trial_is_a_workers_heartbeat(tmp_path, clock):
    oracle = open_oracle("grid", tmp_path)
    kept = oracle.create_trial("a")
    for _ in range(10):
        clock.now += oracles.HEARTBEAT_TIMEOUT / 2
        oracle.get_trial(kept.trial_id)
    assert oracle.create_trial("b").trial_id != kept.trial_id
    assert oracle.active_workers() == 2


def test_a_trial_that_has_cost_three_workers_fails_with_its_reason(tmp_path):
    oracle = open_oracle("grid", tmp_path)
    ended = []
    oracle.on_trial_end = lambda trial: ended.append(trial.trial_id)
    fatal = oracle.create_trial("a")
    for lost in range(oracles.MAX_LOST_WORKERS):
        assert not ended
        assert oracle.create_trial("a").trial_id == fatal.trial_id
        oracle.worker_lost("a")
        assert oracle.trials[fatal.trial_id].status == ("RUNNING" if lost < 2 else "FAILED")
    assert ended == [fatal.trial_id]
    assert "3 times" in fatal.message
    assert "memory" in fatal.message
    assert fatal.trial_id not in work(oracle)
    again = open_oracle("grid", tmp_path)
    assert again.trials[fatal.trial_id].message == fatal.message
    assert work(again) == []
    assert oracle.exhausted
    assert again.exhausted


def test_a_worker_that_is_lost_without_a_trial_costs_nothing(tmp_path):
    oracle = open_oracle("grid", tmp_path)
    oracle.worker_lost("nobody")
    work(oracle, most=1)
    oracle.worker_lost("tuner0")
    work(oracle)
    assert [values for _, values in points_of(oracle)] == POINTS


@pytest.mark.parametrize("taken_over", [False, True], ids=["nobody has it", "another has it"])
def test_a_worker_that_counted_as_lost_comes_back_and_nothing_is_counted_twice(tmp_path, clock, taken_over):
    oracle = open_oracle("grid", tmp_path)
    ended = []
    oracle.on_trial_end = lambda trial: ended.append(trial.trial_id)
    slow = oracle.create_trial("a")
    clock.now += oracles.HEARTBEAT_TIMEOUT + 1
    assert oracle.active_workers() == 0
    if taken_over:
        assert oracle.create_trial("b").trial_id == slow.trial_id
    late = keras_tuner.engine.trial.Trial(slow.hyperparameters, slow.trial_id)  # as it comes from another process
    complete(oracle, late)
    if taken_over:
        complete(oracle, keras_tuner.engine.trial.Trial(slow.hyperparameters, slow.trial_id))
    assert ended == [slow.trial_id]
    for worker in ("a", "b"):
        ran = work(oracle, worker=worker, most=len(POINTS))
        assert slow.trial_id not in ran
    assert sorted(ended) == sorted(oracle.end_order) == [trial for trial, _ in points_of(oracle)]
    assert [values for _, values in points_of(oracle)] == POINTS
    assert {trial.status for trial in oracle.trials.values()} == {"COMPLETED"}
    assert oracle.exhausted


@pytest.mark.parametrize("name", ["grid", "random", "bayesian"])
def test_nobody_is_told_to_stop_while_a_trial_runs(tmp_path, name):
    """Its worker may be lost, and then another has to be there."""
    oracle = open_oracle(name, tmp_path, max_trials=3)
    running = oracle.create_trial("a")
    for _ in range(2):
        complete(oracle, oracle.create_trial("b"))
    assert oracle.create_trial("b").status == "IDLE"
    assert not oracle.exhausted
    oracle.worker_lost("a")
    assert oracle.create_trial("b").trial_id == running.trial_id
    assert oracle.create_trial("c").status == "IDLE"
    complete(oracle, oracle.ongoing_trials["b"])
    assert oracle.active_workers() == 2
    assert [oracle.create_trial(worker).status for worker in ("b", "c")] == ["STOPPED", "STOPPED"]
    assert oracle.exhausted
    assert oracle.active_workers() == 0
