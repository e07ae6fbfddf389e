"""How much the photos of each class count in the loss."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, cast

import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from ktl.arguments import fits
from ktl.data.batches import ArraySpec, Batch, Batches
from ktl.data.dataset import Dataset
from ktl.errors import UserError, shown

ClassWeight = Mapping[int, float] | Literal["balanced"] | None
"""Label -> weight of its photos' losses, 1 for labels that it has not; `balanced` for photos / (classes * photos of the
class); None for 1."""


def is_weight(value: object) -> bool:
    """Whether a class may count so much: a finite number from 0."""
    return fits(value, float) and 0 <= cast(float, value) < math.inf


def class_weight_of(class_weight: ClassWeight, dataset: Dataset) -> dict[int, float] | None:
    """The weight of each label, as Keras wants it; None for 1.

    Raises:
        UserError: a label that is none, or a weight that is negative or no number.
    """
    if class_weight is None:
        return None
    labels = range(len(dataset.class_names))
    if class_weight == "balanced":
        weights = compute_class_weight("balanced", classes=np.array(labels), y=dataset.train.labels)
        return dict(zip(labels, weights.tolist(), strict=True))
    if not isinstance(class_weight, Mapping):
        raise UserError(f"Expected `class_weight` to map labels to weights. Received: {shown(class_weight)}")
    bad = [weight for weight in class_weight.values() if not is_weight(weight)]
    if bad:
        raise UserError(f"Expected weights from 0 in `class_weight`. Received: {shown(bad[0])}")
    unknown = [label for label in class_weight if label not in labels]
    if unknown:
        raise UserError(f"Expected labels from 0 to {labels[-1]} in `class_weight`. Received: {unknown}")
    return {label: float(class_weight.get(label, 1.0)) for label in labels}


def weighed(batches: Batches, class_weight: Mapping[int, float] | None) -> Batches:
    """The batches with the weight of each photo's loss, float32 [batch], as a third array; none where there are no
    weights of classes. Keras itself takes weights of classes on some backends alone.

    Args:
        batches: of (inputs, labels).
        class_weight: of every label, see `class_weight_of`.
    """
    if class_weight is None:
        return batches
    weights = np.array([class_weight[label] for label in sorted(class_weight)], np.float32)

    def make(number: int) -> Batch:
        inputs, labels = batches[number]
        return inputs, labels, weights[labels]

    return dataclasses.replace(batches, make=make, specs=(*batches.specs, ArraySpec(batches.specs[1].shape, "float32")))
