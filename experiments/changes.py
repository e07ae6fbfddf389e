"""CHANGES: what `experiments/recipes.py` does otherwise than by default, one thing at a time; a new one is a row."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Literal

from ktl.models.heads import Head


@dataclasses.dataclass(frozen=True)
class Place:
    """What is trained.

    Attributes:
        dataset: its name.
        change: as in `changes.CHANGES`.
        head: as in `ktl.HEADS`.
        freeze_depth: as of a run.
        seed: of the training.
        fold: that it does not see, from 0.
    """

    dataset: str
    change: str
    head: str
    freeze_depth: str
    seed: int
    fold: int


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing that is done otherwise than by default.

    Attributes:
        settings: of a run, that are not the default ones.
        intervention: module and name of a function from a prepared `ktl.runs.session.Training` to the one that is
            trained in its place.
        refit: whether validation photos are trained on too: `refit`, up to the epoch that they have chosen without a
            change; `all-epochs`, without a choice.
        ending: of `endings.ENDINGS`, where the training is that of no change.
        concerns: for which heads it is a change.
        pretrained: whether it is one of how pre-trained layers are trained, and none where all are frozen.
        frozen: whether it is one of what frozen layers give, and can be done only where all are frozen.
    """

    settings: Mapping = dataclasses.field(default_factory=dict)
    intervention: str | None = None
    refit: Literal["refit", "all-epochs"] | None = None
    ending: str = "none"
    concerns: Callable[[Head], bool] = lambda head: True
    pretrained: bool = False
    frozen: bool = False

    def is_one(self, head: Head, freeze_depth: str) -> bool:
        """Whether it changes anything there."""
        return self.concerns(head) and not (self.pretrained if freeze_depth == "all" else self.frozen)

    def intervene(self, training):
        """The training that takes the place of this one, which is prepared."""
        if self.intervention is None:
            return training
        module, function = self.intervention.split(".")
        return getattr(importlib.import_module(module), function)(training)

    def has_training_of(self, other: "Change") -> bool:
        """Whether both are endings of one training."""
        return all(getattr(self, name) == getattr(other, name) for name in ("settings", "intervention", "refit"))


def scaled(head: Head) -> bool:
    return head.normalization == "scaled_unit"


def kept(head: Head) -> bool:
    return head.source != "features"


def replaced(head: Head) -> bool:
    return head.source == "features"


def logits_or_features(head: Head) -> bool:
    return head.source in ("logits", "features")


SINGLE = {
    "none": Change(),
    "rates / 3": Change({"learning_rate": 3e-4}),
    "rates x 3": Change({"learning_rate": 3e-3}),
    "head multiplier 1": Change({"head_multiplier": 1.0}),
    "head multiplier 3": Change({"head_multiplier": 3.0}),
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
    "scale fixed": Change(intervention="interventions.fix_scale", concerns=scaled),
    "kept layer at the new layers' rate": Change(
        intervention="interventions.new_rate_for_kept_layer", concerns=kept, pretrained=True
    ),
    "start from class means": Change(intervention="interventions.start_from_class_means"),
    "start from ridge regression": Change(intervention="interventions.start_from_ridge"),
    "start from a linear probe": Change(intervention="interventions.start_from_probe"),
    "from a linear probe, half way back": Change(
        intervention="interventions.start_from_probe", ending="half way back to the start", pretrained=True
    ),
    "from a linear probe, a quarter of the way back": Change(
        intervention="interventions.start_from_probe", ending="a quarter of the way back to the start", pretrained=True
    ),
    "mixup": Change(intervention="feeding.mix_photos"),
    "square root of features": Change(intervention="feeding.take_roots", concerns=replaced, frozen=True),
    "Co-Tuning, strength 0.3": Change(
        intervention="co_tuning.co_tune_lightly", concerns=logits_or_features, pretrained=True
    ),
    "Co-Tuning, strength 2.3": Change(intervention="co_tuning.co_tune", concerns=logits_or_features, pretrained=True),
    "L2-SP": Change(intervention="interventions.hold_to_start", pretrained=True),
    "refit": Change(refit="refit"),
    "refit, all epochs": Change(refit="all-epochs"),
    **{ending: Change(ending=ending) for ending in ("no early stopping", "last epoch", "epoch of the lowest log loss")},
    **{ending: Change(ending=ending) for ending in ("mean of the last 3 epochs", "mean of the last 5 epochs")},
    "moving mean of all steps": Change(ending="moving mean of all steps"),
    **{ending: Change(ending=ending) for ending in ("mirror images too", "larger photos")},
}
"""Name -> change of one thing."""

COMBINED = {
    "from a linear probe, head multiplier 1": Change({"head_multiplier": 1.0}, "interventions.start_from_probe"),
    "refit from a linear probe": Change(intervention="interventions.start_from_probe", refit="refit"),
    "head multiplier 1, scale 10": Change({"head_multiplier": 1.0, "scale": 10.0}, concerns=scaled),
    "head multiplier 3, scale 10": Change({"head_multiplier": 3.0, "scale": 10.0}, concerns=scaled),
    "refit, all epochs, head multiplier 1": Change({"head_multiplier": 1.0}, refit="all-epochs"),
    "refit, all epochs, head multiplier 3": Change({"head_multiplier": 3.0}, refit="all-epochs"),
    "refit, all epochs, head multiplier 1, scale 10": Change(
        {"head_multiplier": 1.0, "scale": 10.0}, refit="all-epochs", concerns=scaled
    ),
}
"""Name -> change of several things, each of which is in `SINGLE` too."""

CHANGES = SINGLE | COMBINED
"""Name -> change; all measured against the first."""
