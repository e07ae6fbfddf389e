"""Which runs a study has, by the rules."""

import dataclasses
import itertools

import numpy as np
import pytest

from ktl.data.loading import load_dataset
from ktl.models.backbones import build_backbone
from ktl.models.boundaries import Boundary, find_boundary
from ktl.models.classifier import TransferClassifier
from ktl.models.heads import HEADS
from ktl.progress import LEAST_COST
from ktl.studies.design import (
    DEPTHS,
    Place,
    Tuned,
    cells_of,
    cells_of_tries,
    cost_of,
    default_depths,
    part_of,
    parts_of,
    tries_of,
    tuning_places,
)
from ktl.studies.records import Cell


@pytest.fixture(scope="module")
def classifiers(tiny_backbone) -> dict[str, TransferClassifier]:
    backbone = build_backbone(str(tiny_backbone))
    return {head: TransferClassifier(backbone, class_names=("a", "b"), head=head) for head in ("kept", "replaced")}


def test_every_head_has_equally_many_tries():
    assert {len(set(tries_of(head))) for head in HEADS} == {4}
    assert {tried.scale for tried in tries_of("kept")} == {3.0, 10.0}
    assert len({tried.learning_rate for tried in tries_of("replaced")}) == 4
    places = [Place("kept", "all"), Place("replaced", "stem")]
    cells = cells_of_tries(places, seed=7)
    assert [(cell.head, cell.freeze_depth) for cell in cells] == 4 * [places[0]] + 4 * [places[1]]
    assert {(cell.share, cell.seed) for cell in cells} == {(1.0, 7)}


def test_all_runs_of_a_seed_come_before_the_next_seed():
    settings = {Place("kept", "all"): Tuned(1e-3, 3.0), Place("replaced", "none"): Tuned(3e-3, 10.0)}
    assert cells_of(settings, seeds=(5, 6), share=0.5) == [
        Cell("kept", "all", 1e-3, 3.0, 0.5, 5),
        Cell("replaced", "none", 3e-3, 10.0, 0.5, 5),
        Cell("kept", "all", 1e-3, 3.0, 0.5, 6),
        Cell("replaced", "none", 3e-3, 10.0, 0.5, 6),
    ]


def test_without_names_a_few_depths_that_every_head_has_are_compared(classifiers):
    depths = default_depths(classifier.boundaries for classifier in classifiers.values())
    assert 2 <= len(depths) <= DEPTHS
    assert depths[-1] == "all"
    for classifier, depth in itertools.product(classifiers.values(), depths[:-1]):
        boundaries = classifier.boundaries
        assert find_boundary(boundaries, depth) is not boundaries[-1], "one head has `all` twice"


def test_rate_and_scale_are_chosen_where_as_much_is_trained():
    def network(*rows):
        return tuple(Boundary(depth, *row[:1], None, frozenset(), 0, 0, *row[1:]) for depth, row in enumerate(rows))

    trunk = (("none", 0.0), ("a", 0.5), ("b", 0.9), ("c", 0.99))
    boundaries = {"kept": network(*trunk, ("logits", 1.0)), "replaced": network(*trunk)}
    assert tuning_places(boundaries, ("all", "c", "b", "none")) == {
        Place("kept", "all"): "all",
        Place("kept", "c"): "b",
        Place("kept", "b"): "b",
        Place("kept", "none"): "b",
        Place("replaced", "all"): "all",
        Place("replaced", "c"): "all",  # of its network it is the last
        Place("replaced", "b"): "b",
        Place("replaced", "none"): "b",
    }
    assert tuning_places(boundaries, ("c", "all")) == {
        Place("kept", "all"): "all",
        Place("kept", "c"): "c",  # no depth leaves something to both
        Place("replaced", "all"): "all",
        Place("replaced", "c"): "all",
    }


def test_a_share_with_the_photos_of_another_is_left_out(photo_folder):
    dataset = load_dataset(str(photo_folder))
    everything = len(dataset.train)
    parts, left_out = parts_of(dataset, (1.0, 0.01, 0.02, 0.5, 0.99))
    assert {share: len(part.train) for share, part in parts.items()} == {1.0: everything, 0.01: 6, 0.5: 24}
    assert left_out == {0.02: 6, 0.99: everything}


def test_a_part_has_its_share_of_every_class_and_the_smaller_parts(photo_folder):
    dataset = load_dataset(str(photo_folder))
    parts = {share: part_of(dataset, share) for share in (0.01, 0.25, 0.5)}
    each = np.bincount(dataset.train.labels)
    for share, part in parts.items():
        assert list(np.bincount(part.train.labels)) == [max(1, round(share * count)) for count in each]
        assert part.test.photos == dataset.test.photos
        assert part.validation.photos == dataset.validation.photos
        assert part.fingerprint != dataset.fingerprint
    assert set(parts[0.01].train.photos) < set(parts[0.25].train.photos) < set(parts[0.5].train.photos)


def test_a_part_leaves_bad_photos_out(photo_folder):
    dataset = load_dataset(str(photo_folder))
    (only,) = (photo for photo in part_of(dataset, 0.01).train.photos if photo.startswith("class2/"))
    part = part_of(dataset, 0.01, without={only})
    assert only not in part.train.photos
    assert list(np.bincount(part.train.labels)) == [1] * 6
    assert part.whole is dataset


def test_a_run_costs_what_is_trained_of_it_and_at_least_a_little(classifiers):
    boundaries = classifiers["kept"].boundaries
    cell = Cell("kept", "block_relu", 1e-3, 3.0, 0.5, 0)
    assert cost_of(cell, boundaries) == 0.5 * (1 - find_boundary(boundaries, "block_relu").cost_share)
    assert cost_of(dataclasses.replace(cell, freeze_depth="all"), boundaries) == 0.5 * LEAST_COST
    assert cost_of(dataclasses.replace(cell, freeze_depth="none", share=1.0), boundaries) == 1
