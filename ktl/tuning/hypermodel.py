"""A KerasTuner HyperModel of ktl's runs, and a Tuner that runs its trials so that they survive a kill."""

import copy
import dataclasses
import gc
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import keras_tuner
import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry

from ktl.config import space
from ktl.config.settings import RunConfig
from ktl.data.dataset import Dataset
from ktl.errors import UserError
from ktl.files import write_atomically
from ktl.machine import faster_on_cpu
from ktl.models.classifier import Network
from ktl.progress import Reporter
from ktl.runs import run as runs
from ktl.training import fit as training
from ktl.training.inputs import compute_features
from ktl.tuning.workers import signs_of_life

TRIALS = "trials"
REASON = "reason.txt"

OUT_OF_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)

FAILURES = (UserError, *OUT_OF_MEMORY)
"""What a combination of values can be blamed for; everything else is a bug and ends the search."""


class TransferHyperModel(keras_tuner.HyperModel):
    """Runs as a KerasTuner HyperModel, for ktl's own search and for any tuner of KerasTuner's:

        objective = keras_tuner.Objective("val_top1", "max")
        tuner = keras_tuner.RandomSearch(TransferHyperModel(config, dataset, values), objective, max_trials=9)
        tuner.search()

    The frozen part is computed once for all trials that share it, and a trial trains the rest alone.

    Args:
        config: the settings; those that `values` names are varied.
        dataset: whose photos the trials see.
        values: the search space, name -> values.
        trainings: about how many trainings share a freeze depth: the more, the sooner the frozen part is computed once.
        reporter: is told of the progress within a trial.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        values: Mapping[str, tuple],
        *,
        trainings: int = 1,
        reporter: Reporter | None = None,
    ):
        super().__init__()
        self.config = config
        self.dataset = dataset
        self.values = values
        self.trainings = trainings
        self.reporter = reporter or Reporter()
        self._prepared = None
        self._gradients_before: set[str] | None = None

    def on(self, dataset: Dataset) -> "TransferHyperModel":
        """The same for other photos; its first trial lets go of the last one of this."""
        other = copy.copy(self)
        other.dataset = dataset
        return other

    def declare_hyperparameters(self, hp):
        return space.declare(hp, self.values)

    def compute_features(self, networks: Sequence[Network]) -> None:
        """Computes the frozen parts of all trials in one pass, where that pays.

        Args:
            networks: of one backbone, one for each head and freeze depth of the space.
        """
        machine = training.set_up_machine(self.config)
        compute_features(
            networks,
            self.dataset,
            self.config,
            trainings=self.trainings,
            xla=machine.xla,
            reporter=self.reporter,
        )

    def prepare(self, settings: Mapping, *, seed: int | None = None) -> runs.Prepared:
        """The run in which the settings of these names have these values, ready to train.

        Where the cache is on, so it is in its settings: for this run alone it might not pay, and without it the views
        of its photos would be others.
        """
        self._prepared = None
        self._forget_last_trial()
        config = self.config.run_config(settings if seed is None else {**settings, "seed": seed})
        prepared = runs.prepare(config, self.dataset, trainings=self.trainings, reporter=self.reporter)
        if not prepared.feed.cached:
            return prepared
        return dataclasses.replace(prepared, config=dataclasses.replace(config, cache="on"))

    def _forget_last_trial(self) -> None:
        """Lets go of its graphs, weights and optimizer.

        TensorFlow keeps every custom gradient for ever. Keras' optimizers make one a trace, of their all-reduce, and it
        holds the graph that it is from.
        """
        keras.backend.clear_session(free_memory=False)  # names of layers start again, too; memory is freed below
        if self._gradients_before is not None:
            for name in set(gradient_registry.list()) - self._gradients_before:
                del gradient_registry._registry[name]
        self._gradients_before = set(gradient_registry.list())
        gc.collect()

    def build(self, hp) -> keras.Model:
        """The compiled model of a trial: what is after the freeze boundary where the rest is cached."""
        self._prepared = self.prepare(self.declare_hyperparameters(hp))
        return self._prepared.feed.model

    def fit(self, hp, model, **arguments):
        """Keras' History of the model that `build` gave last; arguments of `keras.Model.fit` but the data's."""
        prepared = self._prepared
        with faster_on_cpu(prepared.network.suffix.layers):
            return model.fit(
                prepared.feed.train(arguments.get("initial_epoch", 0)),
                validation_data=prepared.feed.evaluate(prepared.feed.dataset.validation),
                steps_per_epoch=prepared.steps_per_epoch,
                shuffle=False,
                **{"epochs": prepared.config.epochs, **arguments},
            )


class ResumableTuner(keras_tuner.Tuner):
    """Runs trials as runs without a test score: each goes on after its last complete epoch, in this process or another.

    A trial's folder holds KerasTuner's trial.json, and a checkpoint (`ktl.training.fit.Checkpoint`) for each seed.

    Args:
        hypermodel: a TransferHyperModel.
        oracle: from `ktl.tuning.oracles`.
        folder: of the search.
        seeds: runs a trial.
        tensorboard: whether to write logs with hyperparameters.
    """

    def __init__(self, hypermodel: TransferHyperModel, oracle, *, folder: Path, seeds: int, tensorboard: bool):
        super().__init__(oracle, hypermodel, directory=str(folder), project_name=TRIALS, executions_per_trial=seeds)
        self.logs = folder / "tensorboard" if tensorboard else None

    def run_trial(self, trial):
        folder = Path(self.get_trial_dir(trial.trial_id))
        try:
            with signs_of_life(lambda: self.oracle.get_trial(trial.trial_id)):
                return [self._run(trial, execution, folder) for execution in range(self.executions_per_trial)]
        except FAILURES as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            write_atomically(folder / REASON, reason)  # KerasTuner's messages between processes leave it out
            raise keras_tuner.errors.FailedTrialError(reason) from error
        except Exception as error:
            raise keras_tuner.errors.FatalError(f"trial {trial.trial_id} met a bug") from error

    def pre_create_trial(self):
        if self._is_worker() or self.oracle.ongoing_trials:
            time.sleep(0.2)  # KerasTuner asks again without a pause when the oracle has nothing yet

    def _run(self, trial, execution: int, folder: Path) -> dict:
        values = trial.hyperparameters.values
        seed = self.hypermodel.config.seed + execution
        checkpoint = folder / f"seed-{seed}"
        if "tuner/trial_id" in values:  # Hyperband goes on with another trial's training
            _copy(Path(self.get_trial_dir(values["tuner/trial_id"])) / checkpoint.name, checkpoint)
        settings = {name: values[name] for name in self.hypermodel.values}  # some values are KerasTuner's own
        prepared = self.hypermodel.prepare(settings, seed=seed)
        history = prepared.train(
            str(checkpoint),
            reporter=self.hypermodel.reporter,
            stop_after=values.get("tuner/epochs"),
            callbacks=self._tensorboard_callbacks(trial, execution),
        )
        best = history[training.best_epoch(history) - 1]
        return {
            "validation_top1": best["validation_top1"],
            "validation_loss": best["validation_loss"],
            "epochs": len(history),
            "seconds": prepared.feed.seconds + sum(row["seconds"] for row in history),
        }

    def _tensorboard_callbacks(self, trial, execution: int) -> list:
        callbacks = [keras.callbacks.TensorBoard(str(self.logs))] if self.logs else []
        self._configure_tensorboard_dir(callbacks, trial, execution)
        return callbacks

    # Everything that is to be kept is in the oracle's files and the trials'; KerasTuner's file of the tuner is empty,
    # is written too late, and without it KerasTuner starts anew.

    def _populate_initial_space(self):
        hp = self.oracle.get_space()
        self.hypermodel.declare_hyperparameters(hp)
        self.oracle.update_space(hp)

    def _get_tuner_fname(self):
        return self.oracle._get_oracle_fname()

    def save(self):
        pass

    def reload(self):
        if not self._is_worker():
            self.oracle.reload()


def _copy(source: Path, target: Path) -> None:
    if not target.exists():
        partial = target.with_name(f".{target.name}-partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a kill
        shutil.copytree(source, partial)
        os.replace(partial, target)
