"""A KerasTuner tuner that runs trials so that they survive a kill."""

import os
import shutil
import time
from pathlib import Path

import keras_tuner
from keras_tuner.engine.trial import Trial

from ktl.files import write_atomically
from ktl.runs.session import FAILURES
from ktl.training.checkpoint import best_epoch
from ktl.tuning.hypermodel import TransferHyperModel
from ktl.tuning.keras_tuner_adapter import OpenTuner
from ktl.tuning.oracles import DurableOracle
from ktl.tuning.workers import heartbeats

REASON = "reason.txt"
"""File in a failed trial's folder that says why."""

IDLE_SECONDS = 0.2
"""Between two requests for a trial: KerasTuner asks again without a pause when the oracle has none yet."""


class ResumableTuner(OpenTuner):
    """Runs trials as runs without a test score: each goes on after its last complete epoch, in this process or another.

    A trial's folder holds KerasTuner's trial.json, and for each seed a `ktl.training.checkpoint.Checkpoint`.

    Args:
        runs: a TransferHyperModel, which prepares the runs.
        oracle: from `ktl.tuning.oracles`.
        folder: of the search.
        seeds: runs a trial.
        tensorboard: whether to write logs with hyperparameters.
    """

    def __init__(self, runs: TransferHyperModel, oracle: DurableOracle, *, folder: Path, seeds: int, tensorboard: bool):
        super().__init__(oracle, folder=folder, executions=seeds)
        self.runs = runs
        self.logs = folder / "tensorboard" if tensorboard else None

    def run_trial(self, trial):
        folder = Path(self.get_trial_dir(trial.trial_id))
        try:
            with heartbeats(lambda: self.oracle.get_trial(trial.trial_id)):
                return [self._run(trial, execution, folder) for execution in range(self.executions_per_trial)]
        except FAILURES as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            write_atomically(folder / REASON, reason)  # KerasTuner's messages between processes leave it out
            raise keras_tuner.errors.FailedTrialError(reason) from error
        except Exception as error:
            raise keras_tuner.errors.FatalError(f"trial {trial.trial_id} met a bug") from error

    def pre_create_trial(self):
        if self.is_worker or self.oracle.ongoing_trials:
            time.sleep(IDLE_SECONDS)

    def _run(self, trial: Trial, execution: int, folder: Path) -> dict[str, float]:
        values = trial.hyperparameters.values
        seed = self.runs.config.seed + execution
        checkpoint = folder / f"seed-{seed}"
        if "tuner/trial_id" in values:  # Hyperband goes on with another trial's training
            copy_once(Path(self.get_trial_dir(values["tuner/trial_id"])) / checkpoint.name, checkpoint)
        settings = {name: values[name] for name in self.runs.values}  # some values are KerasTuner's own
        training = self.runs.prepare(settings, seed=seed)
        history = training.fit(
            checkpoint,
            reporter=self.runs.reporter,
            stop_after=values.get("tuner/epochs"),
            callbacks=self.tensorboard_callbacks(self.logs, trial, execution) if self.logs else [],
        )
        best = history[best_epoch(history) - 1]
        return {
            "validation_top1": best["validation_top1"],
            "validation_loss": best["validation_loss"],
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
