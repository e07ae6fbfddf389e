"""Interventions of `experiments/recipes.py` that change what a training is fed with; see `interventions`."""

import dataclasses
from collections.abc import Callable

import numpy as np

from ktl.data.batches import ArraySpec, Batch, Batches
from ktl.runs.session import Training
from ktl.training.inputs import Inputs

CONCENTRATION = 0.2
"""Both parameters of the Beta distribution of the shares that photos are mixed with."""


def mix_photos(training: Training) -> Training:
    """Trains on mixtures of two photos, or of what the frozen layers give for them.

    Reference:
        Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018; of layers' outputs:
        Verma et al., "Manifold Mixup", ICML 2019.
    """
    return dataclasses.replace(training, inputs=MixedInputs(**vars(training.inputs)))


def take_roots(training: Training) -> Training:
    """The head reads the root of each feature.

    Reference:
        Perronnin, Sanchez, Mensink, "Improving the Fisher Kernel for Large-Scale Image Classification", ECCV 2010.
    """
    return dataclasses.replace(training, inputs=RootInputs(**vars(training.inputs)))


class MixedInputs(Inputs):
    """Inputs whose training batches are mixed."""

    def training_batches(self, *, epochs: int, first_epoch: int = 0) -> Batches:
        batches = super().training_batches(epochs=epochs, first_epoch=first_epoch)
        return mixed(batches, seed=self.options.seed)


class RootInputs(Inputs):
    """Inputs of which each number's root is seen."""

    def training_batches(self, *, epochs: int, first_epoch: int = 0) -> Batches:
        return _mapped(super().training_batches(epochs=epochs, first_epoch=first_epoch), roots)

    def evaluation_batches(self, split) -> Batches:
        return _mapped(super().evaluation_batches(split), roots)


def roots(rows: np.ndarray) -> np.ndarray:
    """sign(x) sqrt(|x|) of each number x: none is negative behind a ReLU, and some are behind other functions."""
    return np.sign(rows) * np.sqrt(np.abs(rows))


def mixed(batches: Batches, *, seed: int) -> Batches:
    """Each photo of a batch mixed with another one of it:

        x = s x_1 + (1 - s) x_2,   loss = s loss(x, y_1) + (1 - s) loss(x, y_2),   s from Beta(0.2, 0.2)

    Labels are whole numbers, so a mixture is there twice, once with each label, and counts for its share: with 2 s and
    2 (1 - s), as the loss is a mean over twice as many rows.
    """

    def make(number: int) -> Batch:
        rows, labels = batches[number]
        generator = np.random.default_rng([seed, number])
        other = generator.permutation(len(rows))
        share = generator.beta(CONCENTRATION, CONCENTRATION, len(rows)).astype(np.float32)
        column = share.reshape(-1, *[1] * (rows.ndim - 1)).astype(rows.dtype)
        mixture = column * rows + (1 - column) * rows[other]
        weights = np.concatenate([2 * share, 2 * (1 - share)])
        return np.concatenate([mixture, mixture]), np.concatenate([labels, labels[other]]), weights

    return dataclasses.replace(batches, make=make, specs=(*batches.specs, ArraySpec((None,), "float32")))


def _mapped(batches: Batches, function: Callable[[np.ndarray], np.ndarray]) -> Batches:
    def make(number: int) -> Batch:
        rows, *others = batches[number]
        return function(rows), *others

    return dataclasses.replace(batches, make=make)
