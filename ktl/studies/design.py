"""Which runs a study has: heads, freeze depths, seeds, tries and parts of the training photos. Nothing here trains."""

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ktl.data.dataset import Dataset, with_splits
from ktl.models.boundaries import Boundary, spread_depths
from ktl.models.classifier import TransferClassifier
from ktl.models.heads import HEADS
from ktl.progress import LEAST_COST
from ktl.studies.records import WHOLE, Cell, Part

DEPTHS = 6
"""How many freeze depths are compared where the settings name none."""

PART_SEED = 17
"""Of the draws of parts, beside a run's own seed."""


class Place(NamedTuple):
    """A head at a freeze depth."""

    head: str
    freeze_depth: str


class Tuned(NamedTuple):
    """The settings of a run that a study chooses by validation."""

    learning_rate: float
    scale: float = 3.0
    head_multiplier: float = 10.0


class Rung(NamedTuple):
    """A round of successive halving.

    Attributes:
        tries: how many the best of the round before go on.
        share: of a training's epochs, after which they are compared.
    """

    tries: int
    share: float

    def epochs(self, total: int) -> int:
        """The epochs after which tries are compared, of a training of so many."""
        return math.ceil(self.share * total)


TRIES = 13
"""How many tries a head has at a freeze depth: as many as each setting has values, an odd number."""

STRIDE = 5
"""How far the second setting's value moves on from one try to the next."""

RUNGS = (Rung(TRIES, 1 / 8), Rung(4, 1 / 3))
"""The best of the last round is chosen.

Reference:
    Jamieson, Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016.
"""


class Range(NamedTuple):
    """The values of a setting: the middle one, and as many on either side, each this many times its neighbour."""

    middle: float
    ratio: float = 1.5

    @property
    def values(self) -> tuple[float, ...]:
        """From the smallest to the largest, with two digits that are not zero."""
        steps = range(-(TRIES // 2), TRIES // 2 + 1)
        return tuple(float(f"{self.middle * self.ratio**step:.2g}") for step in steps)


RANGES = {
    # (whether the head has a scale, whether pre-trained layers are trained)
    (True, True): {"learning_rate": Range(1e-3), "scale": Range(3.0)},
    (False, True): {"learning_rate": Range(1e-3), "head_multiplier": Range(10.0)},
    # Without pre-trained layers, only the product of rate and multiplier counts.
    (True, False): {"learning_rate": Range(3e-3), "scale": Range(3.0)},
    (False, False): {"learning_rate": Range(1e-3, ratio=1.9)},
}
"""Name of a setting -> its values.

A scale does for a head what the multiplier does for one without: it decides how far the new layer's steps move the
logits.
"""


def tuned_settings(head: str, *, pretrained: bool) -> Mapping[str, Sequence[float]]:
    """Name of a setting -> the values with which a head is tried; see `RANGES`."""
    ranges = RANGES[HEADS[head].normalization == "scaled_unit", pretrained]
    return {name: row.values for name, row in ranges.items()}


def tries_of(head: str, *, pretrained: bool) -> list[Tuned]:
    """The settings of each try of a head, where pre-trained layers are trained or not.

    Each setting has another value in each try, so that two settings take no more tries than one, and a try in the
    middle has the middle value of both. (In a grid of 12, with four values of one setting and three of the other, ten
    tries are on an edge; here it is four of 13.)

    Reference:
        Bergstra, Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012, on why not a grid; the points are
        those of a rank-1 lattice, Niederreiter, "Random Number Generation and Quasi-Monte Carlo Methods", 1992.
    """
    settings = tuned_settings(head, pretrained=pretrained)
    middle = TRIES // 2
    places = [(place, (middle + STRIDE * (place - middle)) % TRIES) for place in range(TRIES)]
    return [
        Tuned(**{name: values[at] for (name, values), at in zip(settings.items(), each, strict=False)})
        for each in places
    ]


def edges_of(tuned: Tuned, head: str, *, pretrained: bool) -> list[str]:
    """The settings whose chosen value is the smallest or largest that was tried: a better one may lie beyond."""
    settings = tuned_settings(head, pretrained=pretrained)
    return [name for name, values in settings.items() if getattr(tuned, name) in (values[0], values[-1])]


def trains_pretrained(classifier: TransferClassifier, freeze_depth: str) -> bool:
    """Whether a head's network frozen up to there has pre-trained layers that are trained."""
    return classifier.boundary_at(freeze_depth) is not classifier.boundaries[-1]


def default_depths(boundaries: Iterable[tuple[Boundary, ...]]) -> tuple[str, ...]:
    """Freeze depths that every head has, `DEPTHS` of them or fewer, spread over the second half of the forward pass.

    A depth that leaves nothing to train of one head's network, and something of another's, counts as `all` for the
    first: that head has one depth less to choose from.

    Args:
        boundaries: of each head's network.
    """
    spread = spread_depths(min(boundaries, key=len))
    chosen = np.unique(np.linspace(0, len(spread) - 1, DEPTHS).round().astype(int))
    return tuple(spread[index] for index in chosen)


def cells_of_tries(place: Place, *, pretrained: bool, part: Part = WHOLE, seed: int) -> list[Cell]:
    """The tries of a head at a freeze depth with a part of the training photos."""
    return [cell_of(place, tried, part=part, seed=seed) for tried in tries_of(place.head, pretrained=pretrained)]


def cells_of(settings: Mapping[Place, Tuned], *, seeds: Sequence[int], part: Part = WHOLE) -> list[Cell]:
    """The runs of each place with its settings; all of one seed before the next one's."""
    return [cell_of(place, tuned, part=part, seed=seed) for seed in seeds for place, tuned in settings.items()]


def cell_of(place: Place, tuned: Tuned, *, part: Part, seed: int) -> Cell:
    """A run of a study."""
    return Cell(*place, **tuned._asdict(), share=part.share, shots=part.shots, seed=seed)


def distinct_parts(
    dataset: Dataset, parts: Iterable[Part], *, without: Collection[str] = ()
) -> tuple[dict[Part, int], dict[Part, int]]:
    """Parts of the training photos with different numbers of photos.

    Args:
        dataset: what they are parts of.
        parts: which ones.
        without: bad photos, which are left out.

    Returns:
        Part -> its number of photos; and the same of those that are left out, since a part of that size is there
        already.
    """
    chosen: dict[Part, int] = {}
    left_out: dict[Part, int] = {}
    for part in parts:
        photos = len(part_of(dataset, part, draw=0, without=without).train)
        (left_out if photos in chosen.values() else chosen)[part] = photos
    return chosen, left_out


def part_of(dataset: Dataset, part: Part, *, draw: int, without: Collection[str] = ()) -> Dataset:
    """The data set with a part of each class's training photos, at least one of each.

    Of one draw, a larger part has the photos of a smaller one, and more unless rounding gives both as many.

    Args:
        dataset: what it is a part of.
        part: how much.
        draw: number of the draw: with another one, other photos are drawn.
        without: bad photos, which are left out.
    """
    labels = dataset.train.labels
    good = np.array([photo not in without for photo in dataset.train.photos])
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels[good]):
        members = np.random.default_rng([PART_SEED, draw, label]).permutation(np.flatnonzero(good & (labels == label)))
        count = round(part.share * len(members)) if part.shots is None else part.shots
        chosen[members[: max(1, count)]] = True
    drawn = with_splits(dataset, {"train": dataset.train.take(np.flatnonzero(chosen))})
    return dataclasses.replace(drawn, whole=dataset)


def cost_of(classifier: TransferClassifier, freeze_depth: str) -> float:
    """What training a photo costs, in forward passes: of a head's network frozen up to there."""
    return max(1 - classifier.boundary_at(freeze_depth).cost_share, LEAST_COST)
