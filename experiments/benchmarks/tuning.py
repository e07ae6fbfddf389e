"""What KerasTuner builds and fits in a trial."""

import argparse
import dataclasses
import time

import keras
import keras_tuner

from benchmarks.fitting import compile_part
from benchmarks.work import Work, build
from ktl.training.feeds import make_feed
from ktl.training.inputs import Inputs


class WholeNetwork(keras_tuner.HyperModel):
    """The whole network, compiled as a run does it; keeps what each trial gave in `trials`."""

    def __init__(self, settings: argparse.Namespace, work: Work, inputs: Inputs):
        super().__init__()
        self.settings, self.work, self.inputs = settings, work, inputs
        self.trials: list[dict] = []

    def build(self, hp):
        self.started = time.perf_counter()
        depth = hp.Choice("depth", self.settings.grid_depths)
        scale = hp.Choice("scale", self.settings.grid_scales)
        return compile_part(with_classifier(self.work, depth=depth, scale=scale), self.inputs)

    def fit(self, hp, model, *args, **kwargs):
        feed, epochs = make_feed(model), self.work.config.epochs
        history = keras.Model.fit(  # it is compiled for its steps already
            model,
            feed.once(self.inputs.training_batches(epochs=epochs)),
            validation_data=feed.dataset(self.inputs.evaluation_batches(self.inputs.dataset.validation)),
            epochs=epochs,
            steps_per_epoch=self.inputs.steps_per_epoch,
            shuffle=False,  # the batches are shuffled already
            **kwargs,
        )
        best, seconds = max(history.history["val_top1"]), time.perf_counter() - self.started
        self.trials.append({**hp.values, "validation_top1": best, "seconds": seconds})
        return history


def with_classifier(work: Work, *, depth: str, scale: float) -> Work:
    """The work with a new classifier, the same one for the same trial."""
    keras.utils.set_random_seed(0)
    config = dataclasses.replace(work.config, freeze_depth=depth, scale=scale)
    return dataclasses.replace(work, config=config, classifier=build(config, work.dataset))
