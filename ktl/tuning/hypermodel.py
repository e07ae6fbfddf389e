"""A KerasTuner HyperModel of ktl's runs."""

import copy
import dataclasses
import gc
from collections.abc import Mapping, Sequence

import keras
import keras_tuner
from tensorflow.python.framework.ops import gradient_registry

from ktl.config import space
from ktl.config.settings import RunConfig
from ktl.data.dataset import Dataset
from ktl.machine import faster_on_cpu
from ktl.models.classifier import Network
from ktl.progress import Reporter
from ktl.runs import run as runs
from ktl.training import fit as training
from ktl.training.inputs import compute_features


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
