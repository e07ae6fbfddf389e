"""Which runs a study has: heads, freeze depths, seeds, tries and parts of the training photos. Nothing here trains."""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ktl.data.dataset import Dataset, with_splits
from ktl.models.boundaries import Boundary, find_boundary, spread_depths
from ktl.models.heads import HEADS
from ktl.progress import LEAST_COST
from ktl.studies.records import Cell

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SCALES = (3.0, 10.0)
"""Four tries: a head without a scale has all rates, one with a scale the middle two rates at both scales."""

DEPTHS = 6
"""How many freeze depths are compared where the settings name none."""

SHARE_SEED = 17
"""Fixed, so that a part of the training photos is the same one for every head and seed."""


class Place(NamedTuple):
    """A head at a freeze depth."""

    head: str
    freeze_depth: str


class Tuned(NamedTuple):
    """The two settings of a run that a study chooses by validation."""

    learning_rate: float
    scale: float


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


def tuning_places(boundaries: Mapping[str, tuple[Boundary, ...]], depths: Sequence[str]) -> dict[Place, str]:
    """Head and freeze depth -> the freeze depth at which its rate and scale are chosen.

    New layers alone want another scale than pre-trained layers under them. So a depth that leaves none of these to
    train is tuned there, and the others at the deepest one that leaves some to every head, or, where none does, to the
    head itself.

    Args:
        boundaries: of each head's network.
        depths: those that are compared.
    """

    def trains(head: str, depth: str) -> bool:
        return find_boundary(boundaries[head], depth) is not boundaries[head][-1]

    def place(head: str, depth: str) -> str:
        if not trains(head, depth):
            return "all"
        candidates = shared or [depth for depth in depths if trains(head, depth)]
        return max(candidates, key=lambda depth: find_boundary(boundaries[head], depth).depth)

    shared = [depth for depth in depths if all(trains(head, depth) for head in boundaries)]
    return {Place(head, depth): place(head, depth) for head in boundaries for depth in depths}


def tries_of(head: str) -> list[Tuned]:
    """Rate and scale of each try of a head."""
    if HEADS[head].normalization == "scaled_unit":
        return [Tuned(rate, scale) for rate, scale in itertools.product(RATES[1:3], SCALES)]
    return [Tuned(rate, SCALES[0]) for rate in RATES]


def cells_of_tries(places: Collection[Place], *, seed: int) -> list[Cell]:
    """The tries of each head at each of these places, on all training photos."""
    return [Cell(*place, *tried, share=1.0, seed=seed) for place in places for tried in tries_of(place.head)]


def cells_of(settings: Mapping[Place, Tuned], *, seeds: Sequence[int], share: float = 1.0) -> list[Cell]:
    """The runs of each place with its rate and scale; all of one seed before the next one's."""
    return [Cell(*place, *tuned, share=share, seed=seed) for seed in seeds for place, tuned in settings.items()]


def parts_of(
    dataset: Dataset, shares: Sequence[float], *, without: Collection[str] = ()
) -> tuple[dict[float, Dataset], dict[float, int]]:
    """Parts of a data set, each with another number of training photos.

    Args:
        dataset: what they are parts of.
        shares: of the training photos, 0 to 1.
        without: bad photos, which are left out.

    Returns:
        Share -> the part, see `part_of`; and share -> number of training photos of those that are left out, since a
        part of that size is there already and would be the same one.
    """
    parts: dict[float, Dataset] = {}
    left_out: dict[float, int] = {}
    for share in shares:
        part = part_of(dataset, share, without=without)
        photos = len(part.train)
        if any(len(other.train) == photos for other in parts.values()):
            left_out[share] = photos
        else:
            parts[share] = part
    return parts, left_out


def part_of(dataset: Dataset, share: float, *, without: Collection[str] = ()) -> Dataset:
    """The data set with a share of each class's training photos, at least one of each.

    A larger share has the photos of a smaller one, and more unless rounding gives both as many.

    Args:
        dataset: what it is a part of.
        share: 0 to 1.
        without: bad photos, which are left out.
    """
    labels = dataset.train.labels
    good = np.array([photo not in without for photo in dataset.train.photos])
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels[good]):
        members = np.random.default_rng([SHARE_SEED, label]).permutation(np.flatnonzero(good & (labels == label)))
        chosen[members[: max(1, round(share * len(members)))]] = True
    part = with_splits(dataset, {"train": dataset.train.take(np.flatnonzero(chosen))})
    return dataclasses.replace(part, whole=dataset)


def cost_of(cell: Cell, boundaries: tuple[Boundary, ...]) -> float:
    """What a run computes compared with other runs, in forward passes over all training photos.

    Args:
        cell: the run.
        boundaries: of its head's network.
    """
    return cell.share * max(1 - find_boundary(boundaries, cell.freeze_depth).cost_share, LEAST_COST)
