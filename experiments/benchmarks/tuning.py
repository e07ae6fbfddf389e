"""What KerasTuner builds and fits in a trial."""

import argparse
import dataclasses
import time

import keras
import keras_tuner

from benchmarks.fitting import compile_feed
from benchmarks.work import Work, build
from ktl.training.inputs import Feed


class WholeNetwork(keras_tuner.HyperModel):
    """The whole network, compiled as a run does it; keeps what each trial gave in `trials`."""

    def __init__(self, settings: argparse.Namespace, work: Work, feed: Feed):
        super().__init__()
        self.settings, self.work, self.feed = settings, work, feed
        self.trials: list[dict] = []

    def build(self, hp):
        self.started = time.perf_counter()
        depth = hp.Choice("depth", self.settings.grid_depths)
        scale = hp.Choice("scale", self.settings.grid_scales)
        work = with_network(self.settings, self.work, depth=depth, scale=scale)
        compile_feed(work, dataclasses.replace(self.feed, model=work.network.model))
        return work.network.model

    def fit(self, hp, model, *args, **kwargs):
        history = model.fit(*args, **kwargs)
        best, seconds = max(history.history["val_top1"]), time.perf_counter() - self.started
        self.trials.append({**hp.values, "validation_top1": best, "seconds": seconds})
        return history


def with_network(settings: argparse.Namespace, work: Work, *, depth: str, scale: float) -> Work:
    """The work with a new network, the same one for the same trial."""
    keras.utils.set_random_seed(0)
    return dataclasses.replace(work, network=build(settings, work.dataset, depth=depth, scale=scale))
