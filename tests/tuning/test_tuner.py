"""ktl's tuner where it does more than KerasTuner's own: trials that go on, Hyperband, TensorBoard."""

import contextlib
import csv
import json

import pytest
from support import Listener

import ktl
from ktl.files import read_csv
from ktl.training.checkpoint import best_epoch
from ktl.tuning.tuner import copy_once

pytestmark = pytest.mark.usefixtures("without_determinism_afterwards")


def test_a_copy_that_a_kill_has_left_unfinished_is_made_anew(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "state.json").write_text("{}")
    left = tmp_path / ".target-partial"
    left.mkdir()
    (left / "rest.npz").touch()
    copy_once(source, target)
    assert [path.name for path in target.iterdir()] == ["state.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


HYPERBAND = {
    "oracle": "hyperband",
    "space": "scale=1,3,10,30,100",
    "freeze_depth": "all",
    "patience": 0,
    "cache": "on",
}


class Bars(Listener):
    """Hears what is shown a bar for."""

    def __init__(self):
        super().__init__()
        self.tasks = []

    @contextlib.contextmanager
    def photos(self, task, total):
        self.tasks.append(task)
        yield lambda done: None


@pytest.fixture(scope="module")
def hyperband(tmp_path_factory, make_config):
    """A hyperband search with logs, thus one trial after another: its folder, its trials' states and its result."""
    folder, bars = tmp_path_factory.mktemp("hyperband") / "out", Bars()
    result = ktl.search(make_config(**HYPERBAND, tensorboard=True), output=folder, verbose=bars)
    assert not any("at once" in task for task in bars.tasks)
    states = [json.loads(path.read_text()) for path in folder.glob("trials/trial_*/trial.json")]
    return folder, {state["trial_id"]: state for state in states}, result


def history_of(folder, trial) -> list[dict]:
    state = folder / "trials" / f"trial_{trial}" / "seed-0" / "state.json"
    return json.loads(state.read_text())["history"]


def test_a_trial_has_as_many_epochs_as_hyperband_gave_it(hyperband):
    folder, trials, _ = hyperband
    assert {trial["status"] for trial in trials.values()} == {"COMPLETED"}
    epochs = {name: trial["hyperparameters"]["values"]["tuner/epochs"] for name, trial in trials.items()}
    assert set(epochs.values()) == {1, 3}
    for name, count in epochs.items():
        assert [row["epoch"] for row in history_of(folder, name)] == list(range(1, count + 1))


def test_a_promoted_trial_goes_on_where_the_other_one_was(hyperband):
    folder, trials, _ = hyperband
    promoted = {
        name: values["tuner/trial_id"]
        for name, trial in trials.items()
        if "tuner/trial_id" in (values := trial["hyperparameters"]["values"])
    }
    assert promoted
    for name, before in promoted.items():
        assert history_of(folder, name)[: len(history_of(folder, before))] == history_of(folder, before)


def test_a_trial_that_was_trained_in_two_parts_ends_as_one_that_was_not(hyperband, make_config, tmp_path):
    """To the last bit: optimizer, schedule and order go on too."""
    folder, trials, _ = hyperband
    name = next(name for name, trial in trials.items() if "tuner/trial_id" in trial["hyperparameters"]["values"])
    scale = trials[name]["hyperparameters"]["values"]["scale"]
    config = make_config(freeze_depth="all", patience=0, cache="on")
    ktl.run(config.run_config({"scale": scale}), output=tmp_path / "alone")
    with open(tmp_path / "alone" / "history.csv", newline="") as file:
        alone = list(csv.DictReader(file))
    for key in ("loss", "validation_loss", "validation_top1"):
        assert [row[key] for row in history_of(folder, name)] == [float(row[key]) for row in alone]


def test_a_score_is_that_of_the_best_epoch(hyperband):
    folder, trials, _ = hyperband
    for name, trial in trials.items():
        history = history_of(folder, name)
        assert trial["score"] == history[best_epoch(history) - 1]["validation_top1"]


def test_tensorboard_finds_scalars_and_hyperparameters_of_every_trial(hyperband):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    folder, trials, _ = hyperband
    for name, trial in trials.items():
        found, scalars = {}, set()
        for run in {path.parent for path in (folder / "tensorboard" / name).rglob("events.out.tfevents.*")}:
            events = EventAccumulator(str(run))
            events.Reload()
            scalars |= set(events.Tags()["scalars"] + events.Tags()["tensors"])
            for content in events.summary_metadata.values():
                if content.plugin_data.plugin_name == "hparams":
                    data = plugin_data_pb2.HParamsPluginData.FromString(content.plugin_data.content)
                    found |= {key: value.number_value for key, value in data.session_start_info.hparams.items()}
        assert found["scale"] == trial["hyperparameters"]["values"]["scale"]
        assert "epoch_top1" in scalars


# Trials that train a head alone, which are done at once

SPACE = "scale=1,10 learning_rate=0.01,1e30"


def rows_of(folder) -> dict:
    """(scale, learning rate) -> the other cells of its row in trials.csv but the time and the trial's number."""
    rows = read_csv(folder / "trials.csv")
    return {
        tuple(float(row[name]) for name in ("scale", "learning_rate")): {
            name: cell for name, cell in row.items() if name not in ("trial", "seconds", "scale", "learning_rate")
        }
        for row in rows
    }


def assert_same_rows(folder, other) -> None:
    ours, theirs = rows_of(folder), rows_of(other)
    assert ours.keys() == theirs.keys()
    for values, row in ours.items():
        for name, cell in row.items():
            expected = theirs[values][name]
            if name.startswith("validation_") and cell:
                assert float(cell) == pytest.approx(float(expected), rel=1e-5, abs=1e-6)
            else:
                assert cell == expected


@pytest.fixture(scope="module")
def at_once(make_config, tmp_path_factory):
    """A grid of heads with two seeds a trial: its settings, its folder and its result."""
    config = make_config(freeze_depth="all", space=SPACE, seeds=2, cache="on")
    folder, bars = tmp_path_factory.mktemp("at_once") / "out", Bars()
    result = ktl.search(config, output=folder, verbose=bars)
    assert "training 8 heads at once" in bars.tasks
    return config, folder, result


def test_trials_at_once_give_what_they_give_one_by_one(at_once, tmp_path, monkeypatch):
    config, folder, result = at_once
    monkeypatch.setattr("ktl.tuning.tuner.MOST_TRIALS", 1)
    bars = Bars()
    alone = ktl.search(config, output=tmp_path / "out", verbose=bars)
    assert not any("at once" in task for task in bars.tasks)
    assert_same_rows(folder, tmp_path / "out")
    assert result["trials"] == alone["trials"] == {"completed": 2, "failed": 2}
    assert result["best"]["settings"] == alone["best"]["settings"]
    assert result["test"]["top1"] == pytest.approx(alone["test"]["top1"])


def test_trials_at_once_that_were_killed_go_on_in_others(at_once, tmp_path, monkeypatch):
    """After a kill in the midst of writing down what the trials gave; the next process claims fewer at a time."""
    config, folder, result = at_once
    ended = []

    def interrupt(trials, trial):
        ended.append(trial.trial_id)
        if len(ended) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ktl.tuning.trials.Trials.tell_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ktl.search(config, output=tmp_path / "out")
    states = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("trials/trial_*/seed-*/state.json")}
    assert len(states) == 4, "the trials that diverged have none"
    monkeypatch.setattr("ktl.tuning.tuner.MOST_TRIALS", 2)
    again = ktl.search(config, output=tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in states} == states, "they are trained again"
    assert_same_rows(folder, tmp_path / "out")
    assert again["best"]["settings"] == result["best"]["settings"]


def test_trials_of_other_kinds_are_not_mixed(make_config, tmp_path):
    """Another head: each at once with its like."""
    space = "head=kept_raw,replaced learning_rate=0.01,0.003"
    bars = Bars()
    config = make_config(space=space, freeze_depth="all", epochs=1, cache="on")
    result = ktl.search(config, output=tmp_path / "out", verbose=bars)
    assert bars.tasks.count("training 2 heads at once") == 2
    assert result["trials"] == {"completed": 4}


def test_hyperbands_rounds_are_the_same_at_once_and_one_by_one(hyperband, make_config, tmp_path):
    folder, _, result = hyperband
    bars = Bars()
    at_once = ktl.search(make_config(**HYPERBAND), output=tmp_path / "out", verbose=bars)
    assert any("at once" in task for task in bars.tasks)
    tables = [
        sorted((row["scale"], row["epochs"], round(float(row["validation_loss"]), 5)) for row in read_csv(path))
        for path in (tmp_path / "out" / "trials.csv", folder / "trials.csv")
    ]
    assert tables[0] == tables[1]
    assert at_once["best"]["settings"] == result["best"]["settings"]
