"""How much the photos of each class count in the loss."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from ktl.data.dataset import Dataset
from ktl.errors import UserError

ClassWeight = Mapping[int, float] | Literal["balanced"] | None
"""Label -> weight of its photos' losses, 1 for labels that it has not; `balanced` for photos / (classes * photos of the
class); None for 1."""


def class_weight_of(class_weight: ClassWeight, dataset: Dataset) -> dict[int, float] | None:
    """The weight of each label, as Keras wants it; None for 1.

    Raises:
        UserError: a label that is none.
    """
    if class_weight is None:
        return None
    labels = range(len(dataset.class_names))
    if class_weight == "balanced":
        weights = compute_class_weight("balanced", classes=np.array(labels), y=dataset.train.labels)
        return dict(zip(labels, weights.tolist(), strict=True))
    unknown = [label for label in class_weight if label not in labels]
    if unknown:
        raise UserError(f"Expected labels from 0 to {labels[-1]} in `class_weight`. Received: {unknown}")
    return {label: float(class_weight.get(label, 1.0)) for label in labels}
