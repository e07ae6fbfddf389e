"""Photos that were neither trained on nor chosen by, again and again: what `experiments/recipes.py` scores."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from sklearn.model_selection import StratifiedKFold

from ktl.arguments import check_number
from ktl.data.dataset import Dataset, make_dataset, with_splits
from ktl.data.listing import Listing
from ktl.data.pooling import pooled
from ktl.errors import UserError


def held_out_parts(dataset: Dataset, folds: int, *, photos_a_class: int | None = None) -> list[Dataset]:
    """Parts of the training and validation photos, of which each has some of them as its test photos.

    Of the other photos a tenth of each class is for validation, and at least one, as where a data set has no such
    photos. The data set's own test photos are in none.

    Args:
        dataset: with its own splits.
        folds: number of parts; each photo is a test photo of one.
        photos_a_class: so many of each class are no test photos of a part, and others in each part; all others are.

    Raises:
        UserError: `folds` or `photos_a_class` is too small, or a class has too few photos.
    """
    check_number("folds", folds, least=1 if photos_a_class is not None else 2)
    if photos_a_class is not None:
        check_number("photos_a_class", photos_a_class, least=2)  # one to train on and one for validation
    both = pooled(dataset).train
    everything = np.arange(len(both))
    whole = with_splits(dataset, {name: both.take(everything, name=name) for name in ("train", "validation", "test")})
    if photos_a_class is None:
        cuts = StratifiedKFold(folds, shuffle=True, random_state=0).split(everything, both.labels)
    else:
        cuts = _draws(both.labels, folds, photos_a_class)
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


def _draws(labels: np.ndarray, draws: int, photos: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """So many disjoint draws of as many rows of each label, each with all the other rows."""
    fewest = int(np.bincount(labels).min())
    if draws * photos > fewest or fewest == photos:
        raise UserError(
            f"Expected a class to have {draws} times {photos} photos that are not for the test, and one more. "
            f"Received: {fewest} in the smallest"
        )
    generator = np.random.default_rng(0)
    orders = [generator.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    for draw in range(draws):
        chosen = np.sort(np.concatenate([order[draw * photos : (draw + 1) * photos] for order in orders]))
        yield chosen, np.setdiff1d(np.arange(len(labels)), chosen)


def validation_as_training(part: Dataset) -> Dataset:
    """A part whose validation photos are training photos too."""
    return dataclasses.replace(with_splits(part, {"train": pooled(part).train}), whole=part.whole)
