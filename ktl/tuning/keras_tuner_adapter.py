"""The adapter to KerasTuner: a search space as its choices, and what ktl needs beyond its documented interface.

Every private name of KerasTuner that ktl reads, calls or overrides is in this module, and
tests/tuning/test_keras_tuner_adapter.py lists them: a version of KerasTuner that lacks one fails there.
"""

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import keras
import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer

from ktl.files import damaged, reading, write_json
from ktl.stored import read_record

TRIALS = "trials"
"""Name of KerasTuner's project, and so of its folder in a search's folder."""


TRIAL_JSON = "trial.json"
"""File of a trial's state, in the trial's folder."""


class _Observation(TypedDict):
    value: list[float]
    step: int


class _MetricState(TypedDict):
    direction: str
    observations: list[_Observation]


class _MetricsState(TypedDict):
    metrics: dict[str, _MetricState]


class _SpaceState(TypedDict):
    space: list[dict[str, Any]]
    values: dict[str, Any]


class TrialState(TypedDict):
    """What trial.json holds."""

    trial_id: str
    hyperparameters: _SpaceState
    metrics: _MetricsState
    score: float | None
    best_step: int | None
    status: str
    message: str | None


class _Place(TypedDict):
    past_id: str | None
    id: str


class _Bracket(TypedDict):
    bracket_num: int
    rounds: list[list[_Place]]


class OracleState(TypedDict):
    """What oracle.json holds; the last ones are of some oracles alone."""

    ongoing_trials: dict[str, str]
    hyperparameters: _SpaceState
    start_order: list[str]
    end_order: list[str]
    run_times: dict[str, int]
    retry_queue: list[str]
    seed: int
    seed_state: int
    tried_so_far: list[str]
    id_to_hash: dict[str, str | None]
    display: dict[str, Any]
    num_initial_points: NotRequired[int | None]
    alpha: NotRequired[float]
    beta: NotRequired[float]
    hyperband_iterations: NotRequired[int]
    max_epochs: NotRequired[int]
    min_epochs: NotRequired[int]
    factor: NotRequired[int]
    brackets: NotRequired[list[_Bracket]]
    current_bracket: NotRequired[int]
    current_iteration: NotRequired[int]


class OpenOracle(keras_tuner.Oracle):
    """An oracle whose files are written atomically and checked, and whose queue and folders have public names.

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
        write_json(self.state_file, self.get_state())

    def save_trial(self, trial: Trial) -> None:
        write_json(self.trial_folder(trial.trial_id) / TRIAL_JSON, trial.get_state())

    @property
    def trial_files(self) -> list[Path]:
        """The files of the trials that there are."""
        return sorted(self.state_file.parent.glob(f"trial_*/{TRIAL_JSON}"))

    def reload(self):
        """Goes on where the oracle that wrote the files was.

        Raises:
            DamagedError: a file is not as it was written, or not there.
        """
        for path in self.trial_files:
            state = read_record(path, TrialState)
            with reading(path):
                trial = Trial.from_state(state)
                if path.parent.name != f"trial_{trial.trial_id}":
                    raise ValueError(f"trial {trial.trial_id}")
            self.trials[trial.trial_id] = trial
        state = read_record(self.state_file, OracleState)
        for trial_id in trials_named_in(state):
            if trial_id not in self.trials:
                raise damaged(self.state_file.parent / f"trial_{trial_id}" / TRIAL_JSON, "no such file")
        with reading(self.state_file):
            self.set_state(state)
        self.requeued += [trial.trial_id for trial in self.ongoing_trials.values()]
        self.ongoing_trials = {}

    def _save_trial(self, trial):
        self.save_trial(trial)


def trials_named_in(state: Mapping[str, Any]) -> Iterator[str]:
    """Ids of the trials that an oracle's state names."""
    yield from state["ongoing_trials"].values()
    for name in ("start_order", "end_order", "retry_queue"):
        yield from state[name]
    for bracket in state.get("brackets", ()):
        for place in (place for places in bracket["rounds"] for place in places):
            yield from (place[name] for name in ("past_id", "id") if place[name] is not None)


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


class TrialTaken(BaseException):
    """Raised in a worker's main thread: its trial was given to another worker, and it is to ask for a new one. Not an
    Exception: KerasTuner would take it for a bad trial."""


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
                with contextlib.suppress(TrialTaken), contextlib.closing(self.claim(trial)) as claimed:
                    for each in claimed:
                        self.on_trial_begin(each)
                        self._try_run_and_update_trial(each)
                        self.on_trial_end(each)
        self.on_search_end()

    def claim(self, trial: Trial) -> Generator[Trial]:
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
