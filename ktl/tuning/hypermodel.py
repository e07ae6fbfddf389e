"""A KerasTuner HyperModel of ktl's runs."""

from collections.abc import Mapping, Sequence

import keras
import keras_tuner

from ktl.config import space
from ktl.config.settings import RunConfig
from ktl.data.dataset import Dataset
from ktl.machine import faster_on_cpu
from ktl.models.classifier import TransferClassifier
from ktl.progress import Reporter
from ktl.runs.session import Session, Training


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
        self.reporter = reporter or Reporter()
        self.session = Session(config, dataset, trainings=trainings, reporter=self.reporter)
        self._training: Training | None = None

    def declare_hyperparameters(self, hp):
        return space.declare(hp, self.values)

    def compute_features(self, places: Sequence[tuple[TransferClassifier, int | str]]) -> None:
        """Computes the frozen parts of all trials in one pass, where that pays.

        Args:
            places: classifiers of one backbone, one for each head, and the freeze depths of the space.
        """
        self.session.compute_features(places)

    def prepare(self, settings: Mapping, *, seed: int | None = None) -> Training:
        """The training in which the settings of these names have these values."""
        self._training = None
        return self.session.prepare(settings, seed=seed)

    def build(self, hp) -> keras.Model:
        """The compiled model of a trial: what is after the freeze boundary where the rest is cached."""
        self._training = self.prepare(self.declare_hyperparameters(hp))
        return self._training.compile()

    def fit(self, hp, model, **arguments):
        """Keras' History of the model that `build` gave last; arguments of `keras.Model.fit` but the data's."""
        inputs, epochs = self._training.inputs, arguments.pop("epochs", self.config.epochs)
        with faster_on_cpu(self._training.classifier.suffix.layers):
            return keras.Model.fit(
                model,
                inputs.training_batches(epochs=epochs, first_epoch=arguments.get("initial_epoch", 0)),
                validation_data=inputs.evaluation_batches(inputs.dataset.validation),
                steps_per_epoch=inputs.steps_per_epoch,
                shuffle=False,
                epochs=epochs,
                **arguments,
            )
