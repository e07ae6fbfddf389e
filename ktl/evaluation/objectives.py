"""What the best epoch, early stopping, a search and a study go by: a score of the validation photos.

Imports nothing heavy: the settings name these.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple


class Objective(NamedTuple):
    """A score of validation photos.

    Attributes:
        column: of history.csv and trials.csv.
        title: what people call it.
        higher: whether more of it is better.
    """

    column: str
    title: str
    higher: bool

    @property
    def direction(self) -> str:
        """`max` or `min`."""
        return "max" if self.higher else "min"

    @property
    def best(self) -> str:
        """In words, what the best has of it."""
        return f"{'highest' if self.higher else 'lowest'} {self.title}"

    @property
    def worst(self) -> float:
        """Of a network that knows nothing, as `goodness` has it."""
        return 0.0 if self.higher else -math.inf

    def goodness(self, row: Mapping) -> float:
        """The score in a row that has its column, turned so that more is better."""
        return row[self.column] if self.higher else -row[self.column]


OBJECTIVES = {
    "top1": Objective("validation_top1", "validation top-1", True),
    "mean_class_accuracy": Objective("validation_mean_class_accuracy", "validation mean class accuracy", True),
    "log_loss": Objective("validation_loss", "validation log loss", False),
    "macro_f1": Objective("validation_macro_f1", "validation macro F1", True),
}
"""Name -> the score. Among equals the lower validation loss is better."""


def objective_of(settings: Mapping) -> Objective:
    """What a run, search or study with these settings goes by; version 0.1 had top-1 alone."""
    return OBJECTIVES[settings.get("objective", "top1")]
