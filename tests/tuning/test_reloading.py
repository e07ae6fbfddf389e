"""A search that goes on with damaged files: each is one line that names the file, and nothing is lost."""

import json

import keras_tuner
import pytest
import support
from support import edit_json, one_line

from ktl.errors import DamagedError
from ktl.tuning.oracles import new_oracle

SPACE = {"freeze_depth": ("none", "all"), "scale": (1.0, 3.0, 10.0)}
LIMITS = {"max_trials": 9, "epochs": 9, "seed": 0}


def complete(oracle) -> None:
    trial = oracle.create_trial("tuner0")
    oracle.update_trial(trial.trial_id, {"validation_top1": 0.5, "validation_loss": 1.0})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


@pytest.fixture(params=["grid", "bayesian", "hyperband"])
def reopen(request, tmp_path):
    """Opens the oracle of a search that was stopped in its third trial."""

    def reopen(values=SPACE):
        return new_oracle(request.param, values, **LIMITS, folder=tmp_path)

    oracle = reopen()
    complete(oracle)
    complete(oracle)
    oracle.create_trial("tuner0")
    return reopen


def files_of(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*.json")}


def refusal(reopen, path) -> None:
    before = files_of(path.parents[1])
    with pytest.raises(DamagedError) as caught:
        reopen()
    line = one_line(caught)
    assert f"Expected {path} as ktl wrote it. Received: " in line
    assert line.endswith("Repeat the search with `overwrite`: it begins anew")
    assert files_of(path.parents[1]) == before


DAMAGES = {
    **support.DAMAGES,
    "other score": lambda content: content.replace(b"0.5", b"0.7").replace(b'"seed": 1', b'"seed": 2'),
    "gone": None,
}


@pytest.mark.parametrize("name", ["oracle.json", "trial_0/trial.json", "trial_2/trial.json"])
def test_a_damaged_file_is_named(reopen, tmp_path, name):
    path = next((tmp_path / "trials").glob(name.replace("trial_", "trial_*")))
    content = path.read_bytes()
    for damage in DAMAGES.values():
        path.unlink()
        if damage:
            path.write_bytes(damage(content))
        if not damage or path.read_bytes() != content:
            refusal(reopen, path)
    path.write_bytes(content)
    assert len(reopen().trials) == 3


@pytest.mark.parametrize(
    "edit",
    [
        {"score": "x"},
        {"score": None},
        {"score": float("nan")},
        {"status": "DONE"},
        {"status": None},
        {"trial_id": "7"},
        {"metrics": {"metrics": {}}},
        {"metrics": {"metrics": {"validation_top1": {"direction": "up", "observations": []}}}},
        {"hyperparameters": {"space": [], "values": {}}},
        {"hyperparameters": {"space": [], "values": {"scale": "x", "freeze_depth": "all"}}},
        {"hyperparameters": None},
    ],
    ids=str,
)
def test_an_edited_trial_is_named(reopen, tmp_path, edit):
    path = min((tmp_path / "trials").glob("trial_*/trial.json"))
    edit_json(path, **edit)
    refusal(reopen, path)


@pytest.mark.parametrize(
    "edit",
    [
        {"start_order": None},
        {"start_order": []},
        {"end_order": [["a"]]},
        {"run_times": {"0": "x"}},
        {"ongoing_trials": []},
        {"hyperparameters": {"space": [], "values": {}}},
        {"hyperparameters": {"space": [{"class_name": "Nothing", "config": {}}], "values": {}}},
        {"tried_so_far": 5},
        {"display": {}},
    ],
    ids=str,
)
def test_an_edited_oracle_is_named(reopen, tmp_path, edit):
    edit_json(tmp_path / "trials" / "oracle.json", **edit)
    refusal(reopen, tmp_path / "trials" / "oracle.json")


def test_a_trial_that_the_oracle_names_and_that_is_not_there_is_named(reopen, tmp_path):
    edit_json(tmp_path / "trials" / "oracle.json", retry_queue=["77"])
    refusal(reopen, tmp_path / "trials" / "trial_77" / "trial.json")


def test_the_files_say_their_format_and_are_kerastuners_own(reopen, tmp_path):
    for path in (tmp_path / "trials").rglob("*.json"):
        assert json.loads(path.read_text())["format_version"] == 1
    path = min((tmp_path / "trials").glob("trial_*/trial.json"))
    assert keras_tuner.engine.trial.Trial.load(str(path)).score == 0.5
