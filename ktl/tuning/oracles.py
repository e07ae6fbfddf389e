"""KerasTuner's oracles, made to survive a kill at any moment and the loss of a worker.

What KerasTuner 1.4 leaves to chance, and `DurableOracle` does not: its files are written in place, so a kill may leave
half a file; a trial that was completed just before the kill is run again; the grid's own position is not saved at all;
a lost worker's trial is waited for without end; and three failures in a row end a search.
"""

import itertools
import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from ktl.evaluation.objectives import OBJECTIVES
from ktl.files import damaged
from ktl.tuning.keras_tuner_adapter import OpenBayesianOracle, OpenHyperbandOracle, OpenOracle, declare
from ktl.tuning.reloading import reload

HEARTBEAT_TIMEOUT = 60.0
"""Seconds without a heartbeat after which a worker counts as lost."""

MAX_LOST_WORKERS = 3
"""Workers that may be lost with one trial; with the last of them the trial fails."""

_MORE = "+"
"""Between the id of a tuner and the number of a trial that it has besides its first: KerasTuner knows one trial of each
tuner."""

ENDED = {TrialStatus.COMPLETED, TrialStatus.FAILED}


class DurableOracle(OpenOracle):
    """Mixed into one of KerasTuner's oracles, before it.

    Attributes:
        on_trial_end: called with each trial that has ended, in the process that holds the oracle.
        exhausted: there is no more trial to give out, and none is running.
        promotes_trials: a later trial may go on with what any earlier one has trained.
        looks_back: what it proposes depends on what the trials before it gave, so that they have to end first.
    """

    promotes_trials = False
    looks_back = False

    def __init__(self, **settings):
        super().__init__(max_consecutive_failed_trials=sys.maxsize, **settings)
        self.verbose = 0
        self.on_trial_end: Callable[[Trial], None] = lambda trial: None
        self.exhausted = False
        self._heartbeats: dict[str, float] = {}  # when each worker was heard of last, on the monotonic clock
        self._lost_workers: dict[str, int] = {}  # how many each trial has cost
        self._ran: dict[str, Trial] = {}  # by the worker that ran it when the state was saved
        self._claims = 0  # trials beyond the first that tuners of this process have had at once

    @property
    def expected_trials(self) -> int:
        """How many trials there will be, once the space is declared."""
        points = math.prod(len(hp.values) for hp in self.get_space().space)
        return min(self.max_trials or points, points)

    @keras_tuner.synchronized
    def create_trial(self, tuner_id):
        self._heartbeats[tuner_id] = time.monotonic()
        self._find_lost_workers()
        trial = super().create_trial(tuner_id)
        if trial.status == TrialStatus.STOPPED:
            if self.ongoing_trials:  # another worker may be lost, and this one has to be here for its trial
                self.tuner_ids.add(tuner_id)
                trial.status = TrialStatus.IDLE
            else:
                self.exhausted = True
        if _MORE in tuner_id:  # nobody who has to be told to stop
            self.tuner_ids.discard(tuner_id)
        return trial

    def create_another(self, tuner_id: str) -> Trial:
        """One more trial for a tuner of this process that has one already: one to run, if its status says so."""
        self._claims += 1
        return self.create_trial(f"{tuner_id}{_MORE}{self._claims}")

    @keras_tuner.synchronized
    def get_trial(self, trial_id):
        """The trial; for the worker that runs it, asking is a heartbeat."""
        for tuner_id, trial in self.ongoing_trials.items():
            if trial.trial_id == trial_id:
                self._heartbeats[tuner_id] = time.monotonic()
        return super().get_trial(trial_id)

    @keras_tuner.synchronized
    def end_trial(self, trial):
        if trial.trial_id in self.end_order:
            return  # a worker that counted as lost comes back with what another one has done meanwhile
        super().end_trial(trial)
        self.requeued = [name for name in self.requeued if name != trial.trial_id]  # nobody has to do it again
        self.save_trial(self.trials[trial.trial_id])
        self.save()  # once more: KerasTuner's own save still lists the trial as running
        self.on_trial_end(self.trials[trial.trial_id])

    @keras_tuner.synchronized
    def worker_lost(self, tuner_id: str) -> None:
        """Requeues a lost worker's trial, or fails it if it has cost too many workers."""
        self.tuner_ids.discard(tuner_id)
        self._heartbeats.pop(tuner_id, None)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is None:
            return
        self._lost_workers[trial.trial_id] = self._lost_workers.get(trial.trial_id, 0) + 1
        if self._lost_workers[trial.trial_id] < MAX_LOST_WORKERS:
            self.requeued.append(trial.trial_id)
            self.save()
        else:
            trial.status = TrialStatus.FAILED
            trial.message = f"ended its process {MAX_LOST_WORKERS} times; out of memory?"
            self.ongoing_trials[tuner_id] = trial
            super().end_trial(trial)
            self.on_trial_end(trial)

    @keras_tuner.synchronized
    def active_workers(self) -> int:
        """Workers that were not told to stop and are not lost."""
        self._find_lost_workers()
        return len(self.tuner_ids)

    def _find_lost_workers(self) -> None:
        now = time.monotonic()
        for tuner_id in [name for name, seen in self._heartbeats.items() if now - seen > HEARTBEAT_TIMEOUT]:
            self.worker_lost(tuner_id)

    def set_state(self, state):
        super().set_state(state)
        # Several at once are of a process that was alone, and is gone.
        self._ran = {name: trial for name, trial in self.ongoing_trials.items() if _MORE not in name}

    def reload(self):
        super().reload()
        for tuner_id, trial in self._ran.items():  # its worker may live, and has the timeout to show it
            self.requeued.remove(trial.trial_id)
            self.ongoing_trials[tuner_id] = trial
            self.tuner_ids.add(tuner_id)
            self._heartbeats[tuner_id] = time.monotonic()
        self.trials = dict(sorted(self.trials.items()))
        begun = set(self.trials) - set(self.start_order)
        if len(begun) > 1:
            raise damaged(self.state_file, f"a `start_order` without {', '.join(sorted(begun))}")
        for trial_id in begun:  # killed between two files: it never ran
            shutil.rmtree(self.trial_folder(trial_id))
            del self.trials[trial_id]
        self.ongoing_trials = {name: t for name, t in self.ongoing_trials.items() if t.status not in ENDED}
        self.requeued = [name for name in self.requeued if self.trials[name].status not in ENDED]
        self.end_order += [
            name for name in self.start_order if self.trials[name].status in ENDED and name not in self.end_order
        ]


class GridOracle(DurableOracle):
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


class RandomOracle(DurableOracle, keras_tuner.oracles.RandomSearchOracle):
    """KerasTuner's random search."""


class BayesianOracle(DurableOracle, OpenBayesianOracle):
    """KerasTuner's Gaussian process, which never proposes a trial twice, and proposes the same ones after a kill."""

    looks_back = True

    def populate_space(self, trial_id):
        self.restart_random_numbers(self.seed + int(trial_id))  # KerasTuner does not save where they are
        proposal = super().populate_space(trial_id)
        if proposal["values"] is not None and self.was_tried(proposal["values"]):
            return self.random_proposal()
        return proposal


class HyperbandOracle(DurableOracle, OpenHyperbandOracle):
    """KerasTuner's Hyperband: many trials of few epochs, the best third of which goes on.

    Also in a space that is smaller than its plan, where KerasTuner ends as soon as there are no new values.
    """

    promotes_trials = True

    def populate_space(self, trial_id):
        proposal = super().populate_space(trial_id)
        if proposal["status"] != TrialStatus.STOPPED:
            return proposal
        for bracket in self.brackets:
            for number in range(1, len(bracket["rounds"])):
                best = self._best_of_short_round(*bracket["rounds"][number - 1 : number + 1])
                if best is not None:
                    bracket["rounds"][number].append({"past_id": best.trial_id, "id": trial_id})
                    return {"status": TrialStatus.RUNNING, "values": self._longer(best, bracket["bracket_num"], number)}
        return proposal

    def _best_of_short_round(self, past: list[dict], chosen: list[dict]) -> Trial | None:
        """The best trial of a round that was not chosen yet, if less than a third of the round was chosen."""
        if len(chosen) >= math.ceil(len(past) / self.factor):
            return None
        taken = {info["past_id"] for info in chosen}
        left = [self.trials[info["id"]] for info in past if info["id"] not in taken]
        completed = [trial for trial in left if trial.status == TrialStatus.COMPLETED]
        best = max if self.objective.direction == "max" else min
        return best(completed, key=lambda trial: trial.score, default=None)

    def _longer(self, trial: Trial, bracket: int, number: int) -> dict:
        """The values with which a trial goes on in a round, as KerasTuner writes them."""
        return {
            **trial.hyperparameters.values,
            "tuner/trial_id": trial.trial_id,
            "tuner/epochs": self.epochs_of(bracket, number),
            "tuner/initial_epoch": self.epochs_of(bracket, number - 1),
            "tuner/bracket": bracket,
            "tuner/round": number,
        }

    @property
    def expected_trials(self) -> int:
        return self.planned_trials


ORACLES: dict[str, Callable[..., DurableOracle]] = {
    "grid": lambda *, max_trials, epochs, **common: GridOracle(max_trials=max_trials, **common),
    "random": lambda *, max_trials, epochs, **common: RandomOracle(max_trials=max_trials, **common),
    "bayesian": lambda *, max_trials, epochs, **common: BayesianOracle(max_trials=max_trials, **common),
    "hyperband": lambda *, max_trials, epochs, **common: HyperbandOracle(max_epochs=epochs, **common),
}
"""Name -> builder; what all take is `objective` and `seed`."""


def new_oracle(
    name: str,
    values: Mapping[str, Sequence],
    *,
    max_trials: int,
    epochs: int,
    seed: int,
    objective: str = "top1",
    folder: Path | None = None,
) -> DurableOracle:
    """An oracle that knows its space, and goes on where the one that wrote its files was.

    Args:
        name: of ORACLES.
        values: the search space, name -> values.
        max_trials: the most trials; hyperband follows its own plan.
        epochs: the most epochs of a trial, which hyperband needs.
        seed: of what is drawn.
        objective: what trials are compared by, a name in `ktl.evaluation.objectives.OBJECTIVES`.
        folder: of the search; None in a worker, where the chief has the files.
    """
    goal = keras_tuner.Objective(OBJECTIVES[objective].column, OBJECTIVES[objective].direction)
    limits = {"max_trials": max_trials, "epochs": epochs}
    oracle = ORACLES[name](**limits, objective=goal, seed=seed + 1)  # to KerasTuner a seed of 0 is none
    if folder is not None:
        oracle.open_project(folder)
        if oracle.state_file.exists() or len(oracle.trial_files) > 1:  # one may be there after a kill between two files
            reload(oracle, values)
            return oracle
    hp = oracle.get_space()
    declare(hp, values)
    oracle.update_space(hp)
    return oracle
