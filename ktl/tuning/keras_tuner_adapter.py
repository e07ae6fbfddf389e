"""The adapter to KerasTuner: a search space as its choices, and what ktl needs beyond its documented interface.

Every private name of KerasTuner that ktl reads, calls or overrides is in this module, and
tests/tuning/test_keras_tuner_adapter.py lists them: a version of KerasTuner that lacks one fails there.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer

from ktl.files import write_atomically

TRIALS = "trials"
"""Name of KerasTuner's project, and so of its folder in a search's folder."""


class OpenOracle(keras_tuner.Oracle):
    """An oracle whose files are written atomically, and whose queue and folders have public names.

    Mixed into one of KerasTuner's oracles, before it.
    """

    def open_project(self, folder: Path) -> None:
        """Puts the oracle's files into `folder`/trials."""
        self._set_project_dir(str(folder), TRIALS)

    @property
    def state_file(self) -> Path:
        """The file of the oracle's own state."""
        return Path(self._get_oracle_fname())

    def trial_folder(self, trial_id: str) -> Path:
        """The folder of a trial; it is made if it is not there."""
        return Path(self._get_trial_dir(trial_id))

    @property
    def requeued(self) -> list[str]:
        """Ids of the trials that are given out again before any new one."""
        return self._retry_queue

    @requeued.setter
    def requeued(self, trial_ids: list[str]) -> None:
        self._retry_queue = trial_ids

    def was_tried(self, values: dict) -> bool:
        """Whether a trial has had these values."""
        return self._duplicate(values)

    def save(self):
        write_atomically(self.state_file, json.dumps(self.get_state()))

    def save_trial(self, trial: Trial) -> None:
        write_atomically(self.trial_folder(trial.trial_id) / "trial.json", json.dumps(trial.get_state()))

    def _save_trial(self, trial):
        self.save_trial(trial)


class OpenBayesianOracle(keras_tuner.oracles.BayesianOptimizationOracle):
    """KerasTuner's Bayesian oracle, whose random numbers can be seeded anew."""

    def restart_random_numbers(self, seed: int) -> None:
        """Starts the numbers from which the next proposal is searched."""
        self._random_state = np.random.RandomState(seed)

    def random_proposal(self) -> dict:
        """A status and values that no trial has had, if there are any."""
        return self._random_populate_space()


class OpenHyperbandOracle(keras_tuner.oracles.HyperbandOracle):
    """KerasTuner's Hyperband oracle with its plan.

    A bracket is a dict: `bracket_num`, and `rounds`, a list for each round of {"past_id": trial that goes on or None,
    "id": trial}.
    """

    @property
    def brackets(self) -> list[dict]:
        """Those that have begun and not ended."""
        return self._brackets

    def epochs_of(self, bracket: int, number: int) -> int:
        """Epochs that a trial has at the end of a bracket's round of this number."""
        return self._get_epochs(bracket, number)

    @property
    def planned_trials(self) -> int:
        """Trials of all rounds of all brackets of all iterations."""
        brackets = range(self._get_num_brackets())
        rounds = [(bracket, number) for bracket in brackets for number in range(self._get_num_rounds(bracket))]
        return int(self.hyperband_iterations) * sum(self._get_size(*place) for place in rounds)


class OpenTuner(keras_tuner.Tuner):
    """A tuner that keeps nothing itself: the oracle's files and the trials' are all there is.

    KerasTuner's own file of the tuner is empty, is written too late, and without it KerasTuner begins anew.

    Args:
        oracle: knows its space; in a process that is a worker, KerasTuner puts a client of the chief in its place.
        hypermodel: a `keras_tuner.HyperModel`, if the tuner needs one.
        folder: of the search.
        executions: runs a trial.
    """

    def __init__(self, oracle: OpenOracle, hypermodel=None, *, folder: Path, executions: int):
        super().__init__(
            oracle, hypermodel, directory=str(folder), project_name=TRIALS, executions_per_trial=executions
        )

    @property
    def is_worker(self) -> bool:
        """Whether the oracle is in another process, the chief."""
        return self._is_worker()

    def tensorboard_callbacks(self, logs: Path, trial: Trial, execution: int) -> list[keras.callbacks.Callback]:
        """A callback that logs a run of a trial; the trial's values are logged at once."""
        callbacks: list[keras.callbacks.Callback] = [keras.callbacks.TensorBoard(str(logs))]
        self._configure_tensorboard_dir(callbacks, trial, execution)
        return callbacks

    def search(self):
        """KerasTuner's loop, in which a trial may bring others along, see `claim`."""
        self.on_search_begin()
        while True:
            self.pre_create_trial()
            trial = self.oracle.create_trial(self.tuner_id)
            if trial.status == TrialStatus.STOPPED:
                break
            if trial.status != TrialStatus.IDLE:
                for each in self.claim(trial):
                    self.on_trial_begin(each)
                    self._try_run_and_update_trial(each)
                    self.on_trial_end(each)
        self.on_search_end()

    def claim(self, trial: Trial) -> Iterator[Trial]:
        """The trials to run after this one was created: here it alone."""
        yield trial

    def _populate_initial_space(self):
        """Nothing: the oracle knows its space. KerasTuner would build models to find it."""

    def save(self):
        """Nothing: there is nothing to save."""

    def _try_run_and_update_trial(self, trial, *args, **arguments):
        """A trial that failed keeps its reason. KerasTuner would print and keep a traceback, and try over a bug."""
        try:
            self._run_and_update_trial(trial, *args, **arguments)
            trial.status = TrialStatus.COMPLETED
        except keras_tuner.errors.FailedTrialError as error:
            trial.status, trial.message = TrialStatus.FAILED, str(error)


def declare(hp: keras_tuner.HyperParameters, space: Mapping[str, Sequence]) -> dict[str, Any]:
    """Declares a space on KerasTuner's hyperparameters, and returns the settings that they now stand for.

    Args:
        hp: gets a choice for each setting.
        space: name of a setting -> values.
    """
    return {name: hp.Choice(name, list(values), default=values[0]) for name, values in space.items()}


def serve_oracle(oracle: keras_tuner.Oracle, server) -> None:
    """Adds KerasTuner's service for an oracle to a `grpc.Server`: what its workers talk to."""
    protos.get_service_grpc().add_OracleServicer_to_server(OracleServicer(oracle), server)
