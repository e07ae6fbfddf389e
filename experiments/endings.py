"""What `experiments/recipes.py` can make of one training: whose weights answer, and for which views of a photo."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from ktl.data.batches import Batch, Batches
from ktl.data.input_pipeline import PhotoCache, evaluation_batches
from ktl.data.split import Split
from ktl.runs.session import Training, classifier_of
from ktl.training.checkpoint import EpochRow, best_epoch
from ktl.training.evaluate import predict_probabilities

LARGER = 1.15
"""Image size at test over that of training: 256 for 224 pixels, in multiples of 32."""

DECAY = 0.99
"""What a step leaves of the moving mean of weights, once there have been a hundred steps, which count alike."""

Weights = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A training that had all its epochs.

    Attributes:
        training: with any epoch's weights.
        history: a row an epoch.
        weights: of the trained part: before the first epoch, then after each.
        average: their moving mean over all steps.
    """

    training: Training
    history: Sequence[EpochRow]
    weights: Sequence[Weights]
    average: Weights

    @property
    def best_epoch(self) -> int:
        """The one whose weights a run keeps, counted from 1."""
        return best_epoch(within_patience(self.history, self.training.config.patience))


class WeightsOfEpochs(keras.callbacks.Callback):
    """Keeps a model's weights of every epoch in memory, and their moving mean over the steps."""

    def __init__(self, part: keras.Model):
        super().__init__()
        self.part = part
        self.found: list[Weights] = []
        self.average: Weights = []
        self.steps = 0

    def set_model(self, model):
        super().set_model(model)
        self.part.steps_per_execution = 1  # else it would tell of many steps at once

    def on_train_begin(self, logs=None):
        self.found = [self.part.get_weights()]
        self.average = [values.copy() for values in self.found[0]]

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        share = max(1 - DECAY, 1 / (self.steps + 1))
        _ = self.model  # on JAX, asking for it fetches the weights that the part has learned
        for mean, values in zip(self.average, self.part.get_weights(), strict=True):
            mean += share * (values - mean)

    def on_epoch_end(self, epoch, logs=None):
        self.found.append(self.part.get_weights())


def within_patience(history: Sequence[EpochRow], patience: int) -> Sequence[EpochRow]:
    """The rows of the epochs that a run of this patience has."""
    for end in range(1, len(history) + 1):
        if patience and end - best_epoch(history[:end]) >= patience:
            return history[:end]
    return history


def as_run(trained: Trained, split: Split) -> np.ndarray:
    """What a run gives: the best epoch's weights, the photo as it is."""
    return _answers(trained, trained.weights[trained.best_epoch], split)


def without_patience(trained: Trained, split: Split) -> np.ndarray:
    """The best of all epochs."""
    return _answers(trained, trained.weights[best_epoch(trained.history)], split)


def last_epoch(trained: Trained, split: Split) -> np.ndarray:
    """The last of all epochs, whatever validation says."""
    return _answers(trained, trained.weights[-1], split)


def lowest_log_loss(trained: Trained, split: Split) -> np.ndarray:
    """The epoch of the lowest validation log loss."""
    return _answers(trained, trained.weights[best_epoch(trained.history, "log_loss")], split)


def mean_of_last(count: int) -> Callable[[Trained, Split], np.ndarray]:
    """The mean of the last epochs' weights.

    Reference:
        Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018.
    """
    return lambda trained, split: _answers(trained, _mean(trained.weights[-count:]), split)


def moving_mean(trained: Trained, split: Split) -> np.ndarray:
    """The moving mean of the weights after each step."""
    return _answers(trained, trained.average, split)


def way_back(share: float) -> Callable[[Trained, Split], np.ndarray]:
    """So far from the best epoch's weights to those before the first epoch.

    Reference:
        Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
    """

    def answers(trained: Trained, split: Split) -> np.ndarray:
        pairs = zip(trained.weights[0], trained.weights[trained.best_epoch], strict=True)
        return _answers(trained, [share * start + (1 - share) * end for start, end in pairs], split)

    return answers


def mirrored_too(trained: Trained, split: Split) -> np.ndarray:
    """The mean of the probabilities of a photo and of its mirror image."""
    trained.training.inputs.trained_part(trained.training.classifier).set_weights(trained.weights[trained.best_epoch])
    return _of_pixels(trained.training.classifier, split, mirror=True)


def larger(trained: Trained, split: Split) -> np.ndarray:
    """Photos at a larger size than in training.

    Reference:
        Touvron et al., "Fixing the train-test resolution discrepancy", NeurIPS 2019.
    """
    training = trained.training
    training.inputs.trained_part(training.classifier).set_weights(trained.weights[trained.best_epoch])
    size = round(training.classifier.image_size * LARGER / 32) * 32
    config = dataclasses.replace(training.config, image_size=size)
    model = classifier_of(config, config.backbone, class_names=training.classifier.class_names)
    model.set_weights(training.classifier.get_weights())
    return _of_pixels(model, split, mirror=False)


ENDINGS: Mapping[str, Callable[[Trained, Split], np.ndarray]] = {
    "none": as_run,
    "no early stopping": without_patience,
    "last epoch": last_epoch,
    "epoch of the lowest log loss": lowest_log_loss,
    "mean of the last 3 epochs": mean_of_last(3),
    "mean of the last 5 epochs": mean_of_last(5),
    "moving mean of all steps": moving_mean,
    "a quarter of the way back to the start": way_back(0.25),
    "half way back to the start": way_back(0.5),
    "mirror images too": mirrored_too,
    "larger photos": larger,
}
"""Name -> function from a training and photos to float [photos, classes], probabilities."""


def _mean(several: Sequence[Weights]) -> Weights:
    return [np.mean(values, axis=0, dtype=np.float64).astype(values[0].dtype) for values in zip(*several, strict=True)]


def _answers(trained: Trained, weights: Weights, split: Split) -> np.ndarray:
    inputs = trained.training.inputs
    part = inputs.trained_part(trained.training.classifier)
    part.set_weights(weights)
    return predict_probabilities(part, inputs.evaluation_batches(split))


def _of_pixels(model: keras.Model, split: Split, *, mirror: bool) -> np.ndarray:
    size, cache = model.input.shape[1], PhotoCache(memory_gib=1)
    batches = evaluation_batches(split, image_size=size, batch_size=64, cache=cache)
    found = predict_probabilities(model, batches)
    if not mirror:
        return found
    return (found + predict_probabilities(model, _mirrored(batches))) / 2


def _mirrored(batches: Batches) -> Batches:
    def make(number: int) -> Batch:
        pixels, labels = batches[number]
        return pixels[:, :, ::-1], labels

    return dataclasses.replace(batches, make=make)
