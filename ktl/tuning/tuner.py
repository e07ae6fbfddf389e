"""A KerasTuner tuner that runs trials so that they survive a kill."""

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import keras_tuner
from keras_tuner.engine.trial import Trial

from ktl.errors import reason_of
from ktl.evaluation.objectives import OBJECTIVES
from ktl.files import write_atomically
from ktl.runs.session import FAILURES, Session
from ktl.training.checkpoint import best_epoch
from ktl.tuning.keras_tuner_adapter import OpenTuner
from ktl.tuning.oracles import DurableOracle
from ktl.tuning.search_folder import REASON, checkpoint_folder
from ktl.tuning.workers import heartbeats

IDLE_SECONDS = 0.2
"""Between two requests for a trial: KerasTuner asks again without a pause when the oracle has none yet."""


class ResumableTuner(OpenTuner):
    """Runs trials as runs without a test score: each goes on after its last complete epoch, in this process or another.

    A trial's folder holds KerasTuner's trial.json, and for each seed a `ktl.training.checkpoint.Checkpoint`.

    Args:
        session: prepares the trainings.
        oracle: from `ktl.tuning.oracles`.
        names: of the settings that are varied.
        folder: of the search.
        seeds: trainings a trial, with the session's seed and those after it.
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
        tensorboard: Path | None = None,
    ):
        super().__init__(oracle, folder=folder, executions=seeds)
        self.session = session
        self.names = tuple(names)
        self.tensorboard = tensorboard

    def run_trial(self, trial):
        folder = Path(self.get_trial_dir(trial.trial_id))
        try:
            with heartbeats(lambda: self.oracle.get_trial(trial.trial_id)):
                return [self._run(trial, execution, folder) for execution in range(self.executions_per_trial)]
        except FAILURES as error:
            reason = reason_of(error)
            write_atomically(folder / REASON, reason)  # KerasTuner's messages between processes leave it out
            raise keras_tuner.errors.FailedTrialError(reason) from error
        except Exception as error:
            raise keras_tuner.errors.FatalError(f"trial {trial.trial_id} met a bug") from error

    def pre_create_trial(self):
        if self.is_worker or self.oracle.ongoing_trials:
            time.sleep(IDLE_SECONDS)

    def _run(self, trial: Trial, execution: int, folder: Path) -> dict[str, float]:
        values = trial.hyperparameters.values
        seed = self.session.config.seed + execution
        checkpoint = checkpoint_folder(folder, seed)
        if "tuner/trial_id" in values:  # Hyperband goes on with another trial's training
            before = Path(self.get_trial_dir(values["tuner/trial_id"]))
            copy_once(checkpoint_folder(before, seed), checkpoint)
        settings = {name: values[name] for name in self.names}  # some values are KerasTuner's own
        training = self.session.prepare(settings, seed=seed)
        history = training.fit(
            checkpoint,
            reporter=self.session.reporter,
            stop_after=values.get("tuner/epochs"),
            callbacks=self.tensorboard_callbacks(self.tensorboard, trial, execution) if self.tensorboard else [],
        )
        objective = training.config.objective
        best = history[best_epoch(history, objective) - 1]
        columns = ("validation_top1", "validation_loss", OBJECTIVES[objective].column)
        return {
            **{name: best[name] for name in columns},
            "epochs": len(history),
            "seconds": training.inputs.seconds + sum(row["seconds"] for row in history),
        }


def copy_once(source: Path, target: Path) -> None:
    """Copies a folder unless the copy is there; a kill leaves no half copy that counts as one."""
    if not target.exists():
        partial = target.with_name(f".{target.name}-partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a kill
        shutil.copytree(source, partial)
        os.replace(partial, target)
