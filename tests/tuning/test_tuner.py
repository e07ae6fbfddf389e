"""ktl's tuner where it does more than KerasTuner's own: trials that go on, Hyperband, TensorBoard."""

import csv
import json

import pytest

import ktl
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


@pytest.fixture(scope="module")
def hyperband(tmp_path_factory, make_config):
    """A hyperband search with logs: its folder and its trials' states."""
    folder = tmp_path_factory.mktemp("hyperband") / "out"
    config = make_config(oracle="hyperband", space="scale=1,2,3,5,10,20,30,50,100", patience=0, tensorboard=True)
    ktl.search(config, output=folder)
    states = [json.loads(path.read_text()) for path in folder.glob("trials/trial_*/trial.json")]
    return folder, {state["trial_id"]: state for state in states}


def history_of(folder, trial) -> list[dict]:
    state = folder / "trials" / f"trial_{trial}" / "seed-0" / "state.json"
    return json.loads(state.read_text())["history"]


def test_a_trial_has_as_many_epochs_as_hyperband_gave_it(hyperband):
    folder, trials = hyperband
    assert {trial["status"] for trial in trials.values()} == {"COMPLETED"}
    epochs = {name: trial["hyperparameters"]["values"]["tuner/epochs"] for name, trial in trials.items()}
    assert set(epochs.values()) == {1, 3}
    for name, count in epochs.items():
        assert [row["epoch"] for row in history_of(folder, name)] == list(range(1, count + 1))


def test_a_promoted_trial_goes_on_where_the_other_one_was(hyperband):
    folder, trials = hyperband
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
    folder, trials = hyperband
    name = next(name for name, trial in trials.items() if "tuner/trial_id" in trial["hyperparameters"]["values"])
    scale = trials[name]["hyperparameters"]["values"]["scale"]
    ktl.run(make_config(patience=0).run_config({"scale": scale, "cache": "on"}), output=tmp_path / "alone")
    with open(tmp_path / "alone" / "history.csv", newline="") as file:
        alone = list(csv.DictReader(file))
    for key in ("loss", "validation_loss", "validation_top1"):
        assert [row[key] for row in history_of(folder, name)] == [float(row[key]) for row in alone]


def test_a_score_is_that_of_the_best_epoch(hyperband):
    folder, trials = hyperband
    for name, trial in trials.items():
        history = history_of(folder, name)
        assert trial["score"] == history[best_epoch(history) - 1]["validation_top1"]


def test_tensorboard_finds_scalars_and_hyperparameters_of_every_trial(hyperband):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    folder, trials = hyperband
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
