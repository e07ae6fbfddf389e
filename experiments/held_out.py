"""Photos that were neither trained on nor chosen by, again and again: what `experiments/recipes.py` scores."""

import dataclasses

import numpy as np
from sklearn.model_selection import StratifiedKFold

from ktl.data.dataset import Dataset, make_dataset, with_splits
from ktl.data.listing import Listing
from ktl.data.pooling import pooled


def held_out_parts(dataset: Dataset, folds: int) -> list[Dataset]:
    """Parts of the training and validation photos, of which each has a fold of them as its test photos.

    Of the photos outside of the fold a tenth of each class is for validation, as where a data set has no such photos.
    The data set's own test photos are in none.

    Args:
        dataset: with its own splits.
        folds: number of parts; each photo is a test photo of one.
    """
    both = pooled(dataset).train
    everything = np.arange(len(both))
    whole = with_splits(dataset, {name: both.take(everything, name=name) for name in ("train", "validation", "test")})
    cuts = StratifiedKFold(folds, shuffle=True, random_state=0).split(everything, both.labels)
    return [
        dataclasses.replace(
            make_dataset(
                Listing(
                    dataset.name,
                    {"train": both.take(rest), "test": both.take(fold, name="test")},
                    dataset.class_names,
                    flip=dataset.flip,
                    origin=dataset.fingerprint,
                )
            ),
            whole=whole,  # one pass over the frozen layers serves all parts
        )
        for rest, fold in cuts
    ]


def validation_as_training(part: Dataset) -> Dataset:
    """A part whose validation photos are training photos too."""
    return dataclasses.replace(with_splits(part, {"train": pooled(part).train}), whole=part.whole)
