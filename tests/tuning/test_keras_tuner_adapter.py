"""The adapter to KerasTuner: the private names that it needs, and that no other module needs any."""

import ast
import configparser
import importlib.metadata
from pathlib import Path

import keras_tuner
import pytest
from packaging.requirements import Requirement
from support import REPOSITORY

from ktl.tuning import keras_tuner_adapter as adapter
from ktl.tuning.oracles import new_oracle

TUNING = REPOSITORY / "ktl" / "tuning"

PRIVATE_NAMES = {
    "oracle": {
        "_set_project_dir",
        "_get_oracle_fname",
        "_get_trial_dir",
        "_save_trial",
        "_retry_queue",
        "_duplicate",
    },
    "bayesian oracle": {"_random_state", "_random_populate_space"},
    "hyperband oracle": {"_brackets", "_get_epochs", "_get_size", "_get_num_rounds", "_get_num_brackets"},
    "tuner": {
        "_is_worker",
        "_configure_tensorboard_dir",
        "_populate_initial_space",
        "_run_and_update_trial",
        "_try_run_and_update_trial",
    },
}
"""All that ktl/tuning uses of KerasTuner's private names, and on what."""


@pytest.fixture
def kerastuners(tmp_path, monkeypatch):
    """KerasTuner's own object of each kind."""
    monkeypatch.chdir(tmp_path)
    objective = keras_tuner.Objective("score", "max")
    return {
        "oracle": keras_tuner.Oracle(objective=objective),
        "bayesian oracle": keras_tuner.oracles.BayesianOptimizationOracle(objective=objective),
        "hyperband oracle": keras_tuner.oracles.HyperbandOracle(objective=objective),
        "tuner": keras_tuner.Tuner(keras_tuner.Oracle(objective=objective), Empty()),
    }


class Empty(keras_tuner.HyperModel):
    """A hypermodel without a space."""

    def build(self, hp):
        return None


def private_names(tree: ast.AST, node: type, attribute: str) -> set[str]:
    names = {getattr(found, attribute) for found in ast.walk(tree) if isinstance(found, node)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def used_in(path: Path) -> set[str]:
    """Private names that a module reads, calls or defines as methods."""
    tree = ast.parse(path.read_text())
    return private_names(tree, ast.Attribute, "attr") | private_names(tree, ast.FunctionDef, "name")


@pytest.mark.parametrize("kind", PRIVATE_NAMES)
def test_the_installed_kerastuner_has_every_private_name_that_the_adapter_needs(kerastuners, kind):
    missing = sorted(name for name in PRIVATE_NAMES[kind] if not hasattr(kerastuners[kind], name))
    version = importlib.metadata.version("keras-tuner")
    assert not missing, (
        f"keras-tuner {version} lacks {', '.join(missing)} of its {kind}. Adapt ktl/tuning/keras_tuner_adapter.py, "
        "or lower the upper bound of keras-tuner in setup.cfg"
    )


def test_the_installed_kerastuner_has_the_service_that_workers_talk_to():
    service = adapter.OracleServicer
    missing = [name for name in ("CreateTrial", "UpdateTrial", "EndTrial", "GetTrial") if not hasattr(service, name)]
    assert not missing, f"keras-tuner's OracleServicer lacks {', '.join(missing)}"
    assert hasattr(adapter.protos.get_service_grpc(), "add_OracleServicer_to_server")


def test_these_are_all_the_private_names_of_the_adapter():
    assert used_in(TUNING / "keras_tuner_adapter.py") == set().union(*PRIVATE_NAMES.values())


@pytest.mark.parametrize("path", sorted(TUNING.glob("*.py")), ids=lambda path: path.name)
def test_no_other_module_uses_a_private_name_of_kerastuner(kerastuners, path):
    if path.name == "keras_tuner_adapter.py":
        return
    theirs = {name for thing in kerastuners.values() for name in dir(thing) if name.startswith("_")}
    assert not used_in(path) & theirs, "go through ktl/tuning/keras_tuner_adapter.py"
    assert "keras_tuner.src" not in path.read_text()


@pytest.mark.parametrize("package", ["tensorflow", "keras", "keras-tuner"])
def test_a_package_whose_private_names_are_used_has_an_upper_bound(package):
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    lines = [line for line in setup["options"]["install_requires"].splitlines() if line and not line.startswith("#")]
    bounds = {requirement.name: requirement.specifier for requirement in map(Requirement, lines)}
    assert {specifier.operator for specifier in bounds[package]} >= {">=", "<"}
    assert bounds[package].contains(importlib.metadata.version(package))


def test_kerastuner_gets_choices_of_these_values():
    values = {"freeze_depth": ("none", "all"), "scale": (1.0, 10.0, 30.0), "hidden_units": (0, 64)}
    hp = keras_tuner.HyperParameters()
    assert adapter.declare(hp, values) == {"freeze_depth": "none", "scale": 1.0, "hidden_units": 0}
    assert {choice.name: tuple(choice.values) for choice in hp.space} == values
    assert all(isinstance(choice, keras_tuner.engine.hyperparameters.Choice) for choice in hp.space)
    hp.values = {"freeze_depth": "all", "scale": 30.0, "hidden_units": 64}
    assert adapter.declare(hp, values) == hp.values


class Taking(adapter.OpenTuner):
    """Its first trial is given to another worker while it runs; the other one ends it meanwhile."""

    def __init__(self, oracle, folder):
        super().__init__(oracle, folder=folder, executions=1)
        self.ran, self.ended = [], []

    def run_trial(self, trial):
        self.ran.append(trial.trial_id)
        if len(self.ran) == 1:
            self.oracle.worker_lost(self.tuner_id)
            taken = self.oracle.create_trial("other")
            assert taken.trial_id == trial.trial_id
            raise adapter.TrialTaken
        if len(self.ran) == 2:
            self._end_as("other")
        return {"validation_top1": 0.5}

    def on_trial_end(self, trial):
        self.ended.append(trial.trial_id)
        super().on_trial_end(trial)

    def _end_as(self, worker):
        trial = self.oracle.ongoing_trials[worker]
        self.oracle.update_trial(trial.trial_id, {"validation_top1": 0.5})
        trial.status = "COMPLETED"
        self.oracle.end_trial(trial)


def test_a_worker_whose_trial_was_taken_goes_on_with_the_next_one(tmp_path):
    oracle = new_oracle("grid", {"scale": (1.0, 3.0, 10.0)}, max_trials=3, epochs=1, seed=0, folder=tmp_path)
    tuner = Taking(oracle, tmp_path)
    tuner.search()
    assert tuner.ended == tuner.ran[1:]
    assert sorted(tuner.ran) == sorted(oracle.end_order) == sorted(oracle.trials)
