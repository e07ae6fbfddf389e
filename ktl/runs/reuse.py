"""One network for trainings one after another that differ in nothing but rates and scale."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ktl.runs.session import Session, Training
from ktl.runs.together import scaled, structure_of, trained_values
from ktl.training.variables import trained_variables


class ReusedNetwork:
    """Prepares trainings as a session does, to the same bits, but builds no network where the last one serves again.

    Args:
        session: prepares those that need a new network.
    """

    def __init__(self, session: Session):
        self.session = session
        self._last: tuple[Any, Training, list[np.ndarray]] | None = None

    def prepare(self, values: Mapping[str, Any], *, seed: int) -> Training:
        """See `ktl.runs.session.Session.prepare`. The training that was prepared before is of no use any more."""
        key = structure_of(values), seed
        if self._last is not None and self._last[0] == key:
            _, training, initial = self._last
            self.session.close()  # of the graphs that it has left
            config = self.session.config.run_config({**values, "seed": seed})
            self.session.set_up_machine(config)
            variables = trained_variables(training.classifier)
            for variable, value in zip(variables, scaled(training.classifier, initial, config.scale), strict=True):
                variable.assign(value)
            inputs = dataclasses.replace(training.inputs, seconds=0.0)
            return dataclasses.replace(training, config=config, inputs=inputs)
        self.forget()  # makes room
        training = self.session.prepare(values, seed=seed)
        self._last = key, training, trained_values(training.classifier)
        return training

    def forget(self) -> None:
        """Lets go of the network."""
        self._last = None
