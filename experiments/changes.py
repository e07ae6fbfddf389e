"""CHANGES: what `experiments/recipes.py` does otherwise than by default, one thing at a time; a new one is a row."""

import dataclasses
from collections.abc import Callable, Mapping

from ktl.models.heads import Head


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing that is done otherwise than by default.

    Attributes:
        settings: of a run, that are not the default ones.
        intervention: name of a function in `interventions`, called with a `ktl.runs.session.Training` before it is
            trained; gives the variables that learn at the new layers' rate, or None for these layers' own.
        refit: whether validation photos are trained on too, after they have chosen the epoch.
        ending: of `endings.ENDINGS`, where the training is that of no change.
        concerns: for which heads it is a change.
        pretrained: whether it is one of how pre-trained layers are trained, and none where all are frozen.
    """

    settings: Mapping = dataclasses.field(default_factory=dict)
    intervention: str | None = None
    refit: bool = False
    ending: str = "none"
    concerns: Callable[[Head], bool] = lambda head: True
    pretrained: bool = False


def scaled(head: Head) -> bool:
    return head.normalization == "scaled_unit"


def kept(head: Head) -> bool:
    return head.source != "features"


CHANGES = {
    "none": Change(),
    "rates / 3": Change({"learning_rate": 3e-4}),
    "rates x 3": Change({"learning_rate": 3e-3}),
    "head multiplier 1": Change({"head_multiplier": 1.0}),
    "head multiplier 30": Change({"head_multiplier": 30.0}),
    "5 epochs": Change({"epochs": 5}),
    "10 epochs": Change({"epochs": 10}),
    "30 epochs": Change({"epochs": 30}),
    "no augmentation": Change({"augmentation": "none"}),
    "12 views": Change({"views": 12}),
    "label smoothing 0.1": Change({"label_smoothing": 0.1}),
    "weight decay 0.1": Change({"weight_decay": 0.1}),
    "weight decay 0.5": Change({"weight_decay": 0.5}),
    "SGD, rate 0.01": Change({"optimizer": "sgd", "learning_rate": 1e-2}),
    "hidden layer of 256": Change({"hidden_units": 256}),
    "scale 1": Change({"scale": 1.0}, concerns=scaled),
    "scale 10": Change({"scale": 10.0}, concerns=scaled),
    "scale 30": Change({"scale": 30.0}, concerns=scaled),
    "scale fixed": Change(intervention="fix_scale", concerns=scaled),
    "kept layer at the new layers' rate": Change(
        intervention="new_rate_for_kept_layer", concerns=kept, pretrained=True
    ),
    "start from class means": Change(intervention="start_from_class_means"),
    "start from ridge regression": Change(intervention="start_from_ridge"),
    "start from a linear probe": Change(intervention="start_from_probe"),
    "from a linear probe, half way back": Change(
        intervention="start_from_probe", ending="half way back to the start", pretrained=True
    ),
    "L2-SP": Change(intervention="hold_to_start", pretrained=True),
    "refit": Change(refit=True),
    **{ending: Change(ending=ending) for ending in ("no early stopping", "last epoch", "epoch of the lowest log loss")},
    **{ending: Change(ending=ending) for ending in ("mean of the last 3 epochs", "mean of the last 5 epochs")},
    **{ending: Change(ending=ending) for ending in ("mirror images too", "larger photos")},
}
"""Name -> change; one thing each, all measured against the first."""
