"""Trainings of a session at once, where they train a head alone and differ in nothing but rates, scale and seed."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ktl.models.classifier import TransferClassifier
from ktl.models.layers import ScaledUnitNormalization
from ktl.runs.session import FAILURES, Session, Training, recipe_of
from ktl.training.together import Head, Outcome, can_train_together, fit_together
from ktl.training.variables import to_numpy, trained_variables

APART = {"scale", "learning_rate", "head_multiplier", "weight_decay", "label_smoothing", "seed"}
"""Settings in which trainings may differ that are done at once."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A training: values of settings in place of the session's, its seed, and the folder of its checkpoint."""

    values: Mapping[str, Any]
    seed: int
    checkpoint_dir: str | os.PathLike


def structure_of(values: Mapping[str, Any]) -> tuple:
    """The same for trainings that can be done at once."""
    return tuple(sorted((name, value) for name, value in values.items() if name not in APART))


class HeadTrainer:
    """Does trainings at once.

    Args:
        session: prepares them.
    """

    def __init__(self, session: Session):
        self.session = session
        self._initial: dict[tuple, list[np.ndarray]] = {}

    def train(
        self, wanted: Sequence[Wanted], *, session: Session | None = None, stop_after: int | None = None
    ) -> tuple[Training, list[Outcome]] | None:
        """The trainings, in one, if they can be done at once; None if they are to be done one by one.

        Args:
            wanted: of one structure, see `structure_of`.
            session: one `on` other photos, in place of the session.
            stop_after: see `ktl.training.fit.fit`.

        Returns:
            The first one as it was prepared; its classifier has that structure, and weights of no account. And what
            `Training.fit` gives for each, or why it diverged.
        """
        session = session or self.session
        if len(wanted) < 2 or session.extras.callbacks:
            return None
        try:
            training = session.prepare(wanted[0].values, seed=wanted[0].seed)
            if not can_train_together(training.classifier, training.inputs, precision=training.machine.precision):
                return None
            return training, self._fit(session, training, wanted, stop_after=stop_after)
        except FAILURES:  # of the settings of one, or too large together: alone each says its own
            return None

    def _fit(
        self, session: Session, training: Training, wanted: Sequence[Wanted], *, stop_after: int | None
    ) -> list[Outcome]:
        configs = [session.config.run_config({**each.values, "seed": each.seed}) for each in wanted]
        structure = structure_of(wanted[0].values)
        self._initial[structure, training.config.seed] = trained_values(training.classifier)
        heads = [
            Head(
                recipe=recipe_of(config),
                seed=config.seed,
                initial=scaled(training.classifier, self._initial_values(structure, each), config.scale),
                checkpoint_dir=each.checkpoint_dir,
            )
            for config, each in zip(configs, wanted, strict=True)
        ]
        return fit_together(
            training.classifier,
            training.inputs,
            heads,
            epochs=training.config.epochs,
            patience=training.config.patience,
            objective=training.config.objective,
            class_weight=training.class_weight,
            jit_compile=training.machine.xla,
            stop_after=stop_after,
            reporter=session.reporter,
        )

    def _initial_values(self, structure: tuple, wanted: Wanted) -> list[np.ndarray]:
        """Those of its seed, of whatever scale: they follow from what is drawn while the whole network is built."""
        key = structure, wanted.seed
        if key not in self._initial:
            self._initial[key] = trained_values(self.session.build(wanted.values, seed=wanted.seed))
        return self._initial[key]


def trained_values(classifier: TransferClassifier) -> list[np.ndarray]:
    """Values of the classifier's `trained_variables`."""
    return [to_numpy(variable) for variable in trained_variables(classifier)]


def scaled(classifier: TransferClassifier, values: Sequence[np.ndarray], scale: float) -> list[np.ndarray]:
    """Initial values of a classifier's trained variables with another scale."""
    layers = classifier.new_layers
    factors = {id(layer.gamma) for layer in layers if isinstance(layer, ScaledUnitNormalization)}
    pairs = zip(trained_variables(classifier), values, strict=True)
    return [np.full_like(value, scale) if id(variable) in factors else value for variable, value in pairs]
