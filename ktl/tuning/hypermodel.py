"""A KerasTuner HyperModel of ktl's trainings, for any tuner of KerasTuner's. ktl's own search does without."""

import dataclasses
from collections.abc import Iterable, Mapping

import keras
import keras_tuner

from ktl.arguments import checked_arguments
from ktl.config.settings import RunConfig
from ktl.data.dataset import Dataset
from ktl.errors import UserError, shown, unknown_name
from ktl.machine import faster_on_cpu
from ktl.progress import Reporter
from ktl.runs.session import Session, Training
from ktl.training.class_weights import class_weight_of, weighed
from ktl.training.feeds import make_feed
from ktl.tuning.keras_tuner_adapter import declare


class TransferHyperModel(keras_tuner.HyperModel):
    """Trainings as a KerasTuner HyperModel:

        config = ktl.RunConfig(dataset="photos", epochs=5)
        dataset = ktl.Dataset.from_directory("photos")
        hypermodel = ktl.TransferHyperModel(config, dataset, {"scale": (1.0, 3.0, 10.0)})
        objective = keras_tuner.Objective("val_top1", "max")
        tuner = keras_tuner.RandomSearch(hypermodel, objective, max_trials=3)
        tuner.search()

    The frozen part is computed once for all trials that share it, and a trial trains the rest alone. A trial seeds the
    process's generators and sets its dtype policy, and frees what earlier trials have left; a tuner's process is not
    put back.

    Args:
        config: the settings; those that `values` names are varied.
        dataset: whose photos the trials see.
        values: the search space, name of a setting -> values.
        trainings: about how many trainings share a freeze depth: the more, the sooner the frozen part is computed once.
        reporter: is told of the progress within a trial.

    Raises:
        UserError: no setting of a run, none of its values, or one that it does not take.
    """

    @checked_arguments
    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        values: Mapping[str, Iterable],
        *,
        trainings: int = 1,
        reporter: Reporter | None = None,
    ):
        super().__init__()
        self.values = {name: _checked(config, name, tried) for name, tried in values.items()}
        self.session = Session(config, dataset, trainings=trainings, reporter=reporter)
        self.training: Training | None = None

    def declare_hyperparameters(self, hp):
        declare(hp, self.values)

    def build(self, hp) -> keras.Model:
        """The compiled model of a trial: what is after the freeze boundary where the rest is cached."""
        self.training = None  # or the last trial's would be in memory beside this one's
        self.training = self.session.prepare(declare(hp, self.values))
        return self.training.compile()

    def fit(self, hp, model, *args, **arguments):
        """Keras' History of the model that `build` gave last; arguments of `keras.Model.fit` but the data's.

        Raises:
            RuntimeError: `build` has not been called.
        """
        if self.training is None:
            raise RuntimeError("TransferHyperModel.fit was called before build")
        inputs = self.training.inputs
        epochs = arguments.pop("epochs", self.training.config.epochs)
        weights = class_weight_of(arguments.pop("class_weight", self.training.class_weight), inputs.dataset)
        batches = inputs.training_batches(epochs=epochs, first_epoch=arguments.get("initial_epoch", 0))
        with faster_on_cpu(self.training.classifier.suffix.layers), make_feed(model) as feed:
            return keras.Model.fit(
                model,
                feed.once(weighed(batches, weights)),
                validation_data=feed.dataset(inputs.evaluation_batches(inputs.dataset.validation)),
                steps_per_epoch=inputs.steps_per_epoch,
                shuffle=False,
                epochs=epochs,
                **arguments,
            )


def _checked(config: RunConfig, name: str, tried: Iterable) -> tuple:
    """The values of a setting that are tried, in the form that the setting has. Raises UserError."""
    if name not in (known := [field.name for field in dataclasses.fields(config)]):
        raise unknown_name("each name in `values`", name, known)
    given = list(tried) if isinstance(tried, Iterable) and not isinstance(tried, str) else []
    if not given:
        raise UserError(f"Expected `values` to have values for {name}. Received: {shown(tried)}")
    return tuple(getattr(config.run_config({name: value}), name) for value in given)
