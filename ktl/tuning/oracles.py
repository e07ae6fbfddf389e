"""KerasTuner's oracles, made to survive a kill at any moment and the death of a worker.

What KerasTuner 1.4 leaves to chance, and `_Durable` does not: its files are written in place, so a kill may leave half
a file; a trial that was completed just before the kill is run again; the grid's own position is not saved at all; a
dead worker's trial is waited for without end; and three failures in a row end a search.
"""

import itertools
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from ktl.files import write_atomically

OBJECTIVE = keras_tuner.Objective("validation_top1", "max")

SILENCE = 60.0
"""Seconds without a sign of life after which a worker counts as dead."""

MOST_DEATHS = 3
"""Workers that one trial may take with it before it counts as failed."""


class _Durable:
    """Mixed into an oracle, before it.

    Attributes:
        on_trial_end: called with each trial that has ended, in the process that holds the oracle.
        exhausted: there is no more trial to give out, and none is running.
    """

    def __init__(self, **settings):
        super().__init__(objective=OBJECTIVE, max_consecutive_failed_trials=sys.maxsize, **settings)
        self.verbose = 0
        self.on_trial_end: Callable[[Trial], None] = lambda trial: None
        self.exhausted = False
        self._last_sign: dict[str, float] = {}  # of each worker, on the monotonic clock
        self._deaths: dict[str, int] = {}  # of each trial
        self._ran: dict[str, Trial] = {}  # by the worker that ran it when the state was saved

    @property
    def most_trials(self) -> int:
        """How many trials there can be, once the space is declared."""
        return min(self.max_trials, math.prod(len(hp.values) for hp in self.get_space().space))

    @keras_tuner.synchronized
    def create_trial(self, tuner_id):
        self._last_sign[tuner_id] = time.monotonic()
        self._bury_silent_workers()
        trial = super().create_trial(tuner_id)
        if trial.status == TrialStatus.STOPPED:
            if self.ongoing_trials:  # another worker may die, and this one has to be here for its trial
                self.tuner_ids.add(tuner_id)
                trial.status = TrialStatus.IDLE
            else:
                self.exhausted = True
        return trial

    @keras_tuner.synchronized
    def get_trial(self, trial_id):
        """The trial; a worker that asks for its own is alive."""
        for tuner_id, trial in self.ongoing_trials.items():
            if trial.trial_id == trial_id:
                self._last_sign[tuner_id] = time.monotonic()
        return super().get_trial(trial_id)

    @keras_tuner.synchronized
    def end_trial(self, trial):
        if trial.trial_id in self.end_order:
            return  # a worker that was taken for dead comes back with what another one has done meanwhile
        super().end_trial(trial)
        self._retry_queue = [name for name in self._retry_queue if name != trial.trial_id]  # nobody has to do it again
        self._save_trial(self.trials[trial.trial_id])
        self.save()  # once more: KerasTuner's own save still lists the trial as running
        self.on_trial_end(self.trials[trial.trial_id])

    @keras_tuner.synchronized
    def bury(self, tuner_id: str) -> None:
        """Gives a dead worker's trial to the next that asks, or ends it if it has taken too many with it."""
        self.tuner_ids.discard(tuner_id)
        self._last_sign.pop(tuner_id, None)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is None:
            return
        self._deaths[trial.trial_id] = self._deaths.get(trial.trial_id, 0) + 1
        if self._deaths[trial.trial_id] < MOST_DEATHS:
            self._retry_queue.append(trial.trial_id)
            self.save()
        else:
            trial.status = TrialStatus.FAILED
            trial.message = f"ended its process {MOST_DEATHS} times; out of memory?"
            self.ongoing_trials[tuner_id] = trial
            super().end_trial(trial)
            self.on_trial_end(trial)

    @keras_tuner.synchronized
    def workers_left(self) -> int:
        """Workers that have not been told to stop and are not silent."""
        self._bury_silent_workers()
        return len(self.tuner_ids)

    def _bury_silent_workers(self) -> None:
        now = time.monotonic()
        for tuner_id in [name for name, sign in self._last_sign.items() if now - sign > SILENCE]:
            self.bury(tuner_id)

    def save(self):
        write_atomically(self._get_oracle_fname(), json.dumps(self.get_state()))

    def _save_trial(self, trial):
        path = os.path.join(self._get_trial_dir(trial.trial_id), "trial.json")
        write_atomically(path, json.dumps(trial.get_state()))

    def set_state(self, state):
        super().set_state(state)
        self._ran = dict(self.ongoing_trials)

    def reload(self):
        super().reload()
        for tuner_id, trial in self._ran.items():  # its worker may live, and has SILENCE seconds to show it
            self._retry_queue.remove(trial.trial_id)
            self.ongoing_trials[tuner_id] = trial
            self.tuner_ids.add(tuner_id)
            self._last_sign[tuner_id] = time.monotonic()
        self.trials = dict(sorted(self.trials.items()))
        for trial_id in set(self.trials) - set(self.start_order):  # killed between two files: it never ran
            shutil.rmtree(self._get_trial_dir(trial_id))
            del self.trials[trial_id]
        ended = {TrialStatus.COMPLETED, TrialStatus.FAILED}
        self.ongoing_trials = {name: t for name, t in self.ongoing_trials.items() if t.status not in ended}
        self._retry_queue = [name for name in self._retry_queue if self.trials[name].status not in ended]
        self.end_order += [
            name for name in self.start_order if self.trials[name].status in ended and name not in self.end_order
        ]


class GridOracle(_Durable, keras_tuner.Oracle):
    """All combinations of the values, the last dimension fastest.

    KerasTuner's own grid keeps its position in memory alone; here it follows from the trials that there are.
    """

    def populate_space(self, trial_id):
        space = self.get_space().space
        tried = [trial.hyperparameters.values for trial in self.trials.values()]
        for combination in itertools.product(*(hp.values for hp in space)):
            values = {hp.name: value for hp, value in zip(space, combination, strict=True)}
            if values not in tried:
                return {"status": TrialStatus.RUNNING, "values": values}
        return {"status": TrialStatus.IDLE if self.ongoing_trials else TrialStatus.STOPPED, "values": None}


class RandomOracle(_Durable, keras_tuner.oracles.RandomSearchOracle):
    """KerasTuner's random search."""


class BayesianOracle(_Durable, keras_tuner.oracles.BayesianOptimizationOracle):
    """KerasTuner's Gaussian process, without trials that there have been, and the same ones after a kill."""

    def populate_space(self, trial_id):
        self._random_state = np.random.RandomState(self.seed + int(trial_id))  # KerasTuner does not save its own
        proposal = super().populate_space(trial_id)
        if proposal["values"] is not None and self._duplicate(proposal["values"]):
            return self._random_populate_space()
        return proposal


class HyperbandOracle(_Durable, keras_tuner.oracles.HyperbandOracle):
    """KerasTuner's Hyperband: many trials of few epochs, the best third of which goes on.

    Also in a space that is smaller than its plan, where KerasTuner ends as soon as there are no new values.
    """

    def populate_space(self, trial_id):
        proposal = super().populate_space(trial_id)
        if proposal["status"] != TrialStatus.STOPPED:
            return proposal
        for bracket in self._brackets:
            for number in range(1, len(bracket["rounds"])):
                best = self._best_of_short_round(*bracket["rounds"][number - 1 : number + 1])
                if best is not None:
                    bracket["rounds"][number].append({"past_id": best.trial_id, "id": trial_id})
                    return {"status": TrialStatus.RUNNING, "values": self._longer(best, bracket["bracket_num"], number)}
        return proposal

    def _best_of_short_round(self, past: list[dict], chosen: list[dict]) -> Trial | None:
        """The best that was not chosen yet of a round that has ended, if a third of it was not."""
        if len(chosen) >= math.ceil(len(past) / self.factor):
            return None
        taken = {info["past_id"] for info in chosen}
        left = [self.trials[info["id"]] for info in past if info["id"] not in taken]
        completed = [trial for trial in left if trial.status == TrialStatus.COMPLETED]
        return max(completed, key=lambda trial: trial.score, default=None)

    def _longer(self, trial: Trial, bracket: int, number: int) -> dict:
        """The values with which a trial goes on in a round, as KerasTuner writes them."""
        return {
            **trial.hyperparameters.values,
            "tuner/trial_id": trial.trial_id,
            "tuner/epochs": self._get_epochs(bracket, number),
            "tuner/initial_epoch": self._get_epochs(bracket, number - 1),
            "tuner/bracket": bracket,
            "tuner/round": number,
        }

    @property
    def most_trials(self) -> int:
        brackets = range(self._get_num_brackets())
        return self.hyperband_iterations * sum(
            self._get_size(bracket, number) for bracket in brackets for number in range(self._get_num_rounds(bracket))
        )


ORACLES = {
    "grid": lambda config: GridOracle(max_trials=config.max_trials, seed=config.seed + 1),
    "random": lambda config: RandomOracle(max_trials=config.max_trials, seed=config.seed + 1),
    "bayesian": lambda config: BayesianOracle(max_trials=config.max_trials, seed=config.seed + 1),
    "hyperband": lambda config: HyperbandOracle(max_epochs=config.epochs, seed=config.seed + 1),
}
"""Name -> builder from a `ktl.config.settings.SearchConfig`; to KerasTuner a seed of 0 is none."""
