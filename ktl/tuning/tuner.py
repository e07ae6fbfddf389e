"""A KerasTuner tuner that runs trials so that they survive a kill."""

import functools
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from ktl.errors import DamagedError, DivergedError, reason_of
from ktl.evaluation.objectives import OBJECTIVES
from ktl.files import write_atomically
from ktl.runs.reuse import ReusedNetwork
from ktl.runs.session import FAILURES, Session
from ktl.runs.together import HeadTrainer, Wanted, structure_of
from ktl.training.checkpoint import EpochRow, best_epoch
from ktl.training.together import Outcome
from ktl.tuning.keras_tuner_adapter import OpenTuner, TrialTaken
from ktl.tuning.oracles import DurableOracle
from ktl.tuning.search_folder import REASON, checkpoint_folder
from ktl.tuning.workers import heartbeats

IDLE_SECONDS = 0.2
"""Between two requests for a trial: KerasTuner asks again without a pause when the oracle has none yet."""


MOST_TRIALS = 32
"""Trials that are claimed at once, at most."""


class ResumableTuner(OpenTuner):
    """Runs trials as runs without a test score: each goes on after its last complete epoch, in this process or another.

    Trials that train a head alone are done at once, where the oracle does not wait for each, and this process alone.

    A trial's folder holds KerasTuner's trial.json, and for each seed a `ktl.training.checkpoint.Checkpoint`.

    Args:
        session: prepares the trainings.
        oracle: from `ktl.tuning.oracles`.
        names: of the settings that are varied.
        folder: of the search.
        seeds: trainings a trial, with the session's seed and those after it.
        at_once: whether a trial of these values is better done at once with others like it; None if none is.
        tensorboard: folder for logs with hyperparameters; None for no logs.
    """

    def __init__(
        self,
        session: Session,
        oracle: DurableOracle,
        *,
        names: Sequence[str],
        folder: Path,
        seeds: int = 1,
        at_once: Callable[[Mapping[str, Any]], bool] | None = None,
        tensorboard: Path | None = None,
    ):
        super().__init__(oracle, folder=folder, executions=seeds)
        self.session = session
        self.names = tuple(names)
        self.at_once = at_once
        self.tensorboard = tensorboard
        self._together, self._network = HeadTrainer(session), ReusedNetwork(session)
        self._ended: set[str] = set()  # ids of the trials that this process has done, or is about to say so
        self._given: dict[str, list[Outcome]] = {}  # of each seed, by the id of a trial that was done with others

    def claim(self, trial):
        """This trial, and those that were claimed with it: those that can be done at once one after another."""
        claimed = [trial, *self._claim_others()]
        groups: dict[Any, list[Trial]] = {}
        for each in claimed:
            groups.setdefault(self._kind(each), []).append(each)
        is_ours = functools.partial(self._is_ours, trial) if self.is_worker else lambda: True
        try:
            with heartbeats(lambda: [self.oracle.get_trial(each.trial_id) for each in claimed], is_ours=is_ours):
                for group in groups.values():
                    self._train(group)
                    yield from group
        except (GeneratorExit, TrialTaken):
            self._network.forget()  # which is half trained
            raise

    def run_trial(self, trial):
        folder = Path(self.get_trial_dir(trial.trial_id))
        try:
            return [self._run(trial, execution) for execution in range(self.executions_per_trial)]
        except DamagedError:  # no fault of the trial's values
            raise
        except FAILURES as error:
            reason = reason_of(error)
            write_atomically(folder / REASON, reason)  # KerasTuner's messages between processes leave it out
            raise keras_tuner.errors.FailedTrialError(reason) from error
        except Exception as error:
            raise keras_tuner.errors.FatalError(f"trial {trial.trial_id} met a bug") from error

    def on_trial_end(self, trial):
        self._ended.add(trial.trial_id)
        super().on_trial_end(trial)

    def _is_ours(self, trial: Trial) -> bool:
        """Whether the chief has this process's trial for it, or a new one because this one has ended."""
        return self.oracle.create_trial(self.tuner_id).trial_id == trial.trial_id or trial.trial_id in self._ended

    def pre_create_trial(self):
        if self.is_worker or self.oracle.ongoing_trials:
            time.sleep(IDLE_SECONDS)

    def _claim_others(self) -> Iterator[Trial]:
        """More trials to run, where any can be done at once, and other processes don't need something to do."""
        oracle: Any = self.oracle
        if self.at_once is None or self.tensorboard or self.is_worker or oracle.looks_back:
            return
        for _ in range(1, MOST_TRIALS):
            trial = oracle.create_another(self.tuner_id)
            if trial.status != TrialStatus.RUNNING:
                return
            yield trial

    def _kind(self, trial: Trial) -> Any:
        """The same for trials that can be done at once."""
        settings, values = self._settings(trial), trial.hyperparameters.values
        if self.at_once is None or not self.at_once(settings):
            return trial.trial_id
        return structure_of(settings), values.get("tuner/initial_epoch"), values.get("tuner/epochs")

    def _train(self, trials: Sequence[Trial]) -> None:
        """Trains all seeds of these trials at once, if that can be done, for `run_trial` to find what they gave."""
        self._given = {}
        if len(trials) < 2:
            return
        self._network.forget()
        wanted = [self._wanted(trial, execution) for trial in trials for execution in range(self.executions_per_trial)]
        found = self._together.train(wanted, stop_after=trials[0].hyperparameters.values.get("tuner/epochs"))
        if found is not None:
            outcomes = iter(found[1])
            self._given = {
                trial.trial_id: list(itertools.islice(outcomes, self.executions_per_trial)) for trial in trials
            }

    def _settings(self, trial: Trial) -> dict[str, Any]:
        """Without the values that are KerasTuner's own."""
        return {name: trial.hyperparameters.values[name] for name in self.names}

    def _wanted(self, trial: Trial, execution: int) -> Wanted:
        """A run of a trial, and its checkpoint, which may go on with another trial's training."""
        seed = self.session.config.seed + execution
        checkpoint = checkpoint_folder(Path(self.get_trial_dir(trial.trial_id)), seed)
        before = trial.hyperparameters.values.get("tuner/trial_id")
        if before is not None:
            copy_once(checkpoint_folder(Path(self.get_trial_dir(before)), seed), checkpoint)
        return Wanted(self._settings(trial), seed, checkpoint)

    def _run(self, trial: Trial, execution: int) -> dict[str, float]:
        given = self._given.get(trial.trial_id)
        seconds, history = (0.0, given[execution]) if given else self._run_alone(trial, execution)
        if isinstance(history, DivergedError):
            raise history
        objective = self.session.config.objective
        best = history[best_epoch(history, objective) - 1]
        columns = ("validation_top1", "validation_loss", OBJECTIVES[objective].column)
        return {
            **{name: best[name] for name in columns},
            "epochs": len(history),
            "seconds": seconds + sum(row["seconds"] for row in history),
        }

    def _run_alone(self, trial: Trial, execution: int) -> tuple[float, list[EpochRow]]:
        """Seconds that its features took, and its history."""
        wanted = self._wanted(trial, execution)
        training = self._network.prepare(wanted.values, seed=wanted.seed)
        logs = self.tensorboard
        history = training.fit(
            wanted.checkpoint_dir,
            reporter=self.session.reporter,
            stop_after=trial.hyperparameters.values.get("tuner/epochs"),
            callbacks=[] if logs is None else self.tensorboard_callbacks(logs, trial, execution),
        )
        return training.inputs.seconds, history


def copy_once(source: Path, target: Path) -> None:
    """Copies a folder unless the copy is there; a kill leaves no half copy that counts as one."""
    if not target.exists():
        partial = target.with_name(f".{target.name}-partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a kill
        shutil.copytree(source, partial)
        os.replace(partial, target)
