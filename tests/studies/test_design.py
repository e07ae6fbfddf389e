"""Which runs a study has, by the rules."""

import itertools

import numpy as np
import pytest

from ktl.data.loading import load_dataset
from ktl.models.backbones import build_backbone
from ktl.models.boundaries import find_boundary
from ktl.models.classifier import TransferClassifier
from ktl.models.heads import HEADS
from ktl.progress import LEAST_COST
from ktl.studies.design import (
    DEPTHS,
    RUNGS,
    Place,
    Tuned,
    cells_of,
    cells_of_tries,
    cost_of,
    default_depths,
    distinct_parts,
    edges_of,
    part_of,
    trains_pretrained,
    tries_of,
    tuned_settings,
)
from ktl.studies.records import WHOLE, Cell, Part


@pytest.fixture(scope="module")
def classifiers(tiny_backbone) -> dict[str, TransferClassifier]:
    backbone = build_backbone(str(tiny_backbone))
    return {head: TransferClassifier(backbone, class_names=("a", "b"), head=head) for head in ("kept", "replaced")}


@pytest.mark.parametrize("pretrained", [True, False])
def test_every_head_has_equally_many_tries_around_the_defaults(pretrained):
    assert {len(set(tries_of(head, pretrained=pretrained))) for head in HEADS} == {RUNGS[0].tries}
    for head in HEADS:
        settings = tuned_settings(head, pretrained=pretrained)
        for name, values in settings.items():
            assert list(values) == sorted(values)
            assert values[0] < getattr(Tuned(1e-3), name) < values[-1]
        middle = {name: values[len(values) // 2] for name, values in settings.items()}
        assert Tuned(**middle) in tries_of(head, pretrained=pretrained)


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("head", ["kept", "replaced"])
def test_every_try_has_other_values_and_few_are_on_an_edge(head, pretrained):
    tries, settings = tries_of(head, pretrained=pretrained), tuned_settings(head, pretrained=pretrained)
    for name, values in settings.items():
        assert sorted(getattr(tried, name) for tried in tries) == list(values)
        assert values[-1] / values[0] >= 100
    assert sum(bool(edges_of(tried, head, pretrained=pretrained)) for tried in tries) == 2 * len(settings)


def test_tries_at_two_settings_are_spread_over_both():
    """No two are near: in steps of a setting's values 2.8 apart or more, where a random draw mostly has neighbours."""
    settings = tuned_settings("kept", pretrained=True)
    at = [
        [values.index(getattr(tried, name)) for name, values in settings.items()]
        for tried in tries_of("kept", pretrained=True)
    ]
    assert min(np.hypot(*np.subtract(one, other)) for one, other in itertools.combinations(at, 2)) >= 2.8


def test_tries_of_a_new_layer_alone_differ_in_its_own_rate():
    """With frozen layers under it, a rate and a multiplier with the same product are one and the same training."""
    tries = tries_of("replaced", pretrained=False)
    assert len({round(tried.learning_rate * tried.head_multiplier, 9) for tried in tries}) == len(tries)


def test_a_choice_on_the_edge_of_what_was_tried_is_told():
    rates, scales = tuned_settings("kept", pretrained=True).values()
    assert edges_of(Tuned(rates[0], 3.0), "kept", pretrained=True) == ["learning_rate"]
    assert edges_of(Tuned(1e-3, scales[-1]), "kept", pretrained=True) == ["scale"]
    rates, multipliers = tuned_settings("replaced", pretrained=True).values()
    edges = Tuned(rates[-1], 3.0, multipliers[0])
    assert edges_of(edges, "replaced", pretrained=True) == ["learning_rate", "head_multiplier"]
    assert edges_of(Tuned(1e-3, 3.0, 10.0), "replaced", pretrained=True) == []
    (rates,) = tuned_settings("replaced", pretrained=False).values()
    assert edges_of(Tuned(rates[-1]), "replaced", pretrained=False) == ["learning_rate"]


def test_rounds_get_fewer_and_longer():
    tries, shares = zip(*RUNGS, strict=True)
    assert sorted(tries, reverse=True) == list(tries)
    assert sorted(shares) == list(shares)
    assert [rung.epochs(15) for rung in RUNGS] == [2, 5]
    assert [rung.epochs(1) for rung in RUNGS] == [1, 1]


def test_all_runs_of_a_seed_come_before_the_next_seed():
    settings = {Place("kept", "all"): Tuned(1e-3, 3.0), Place("replaced", "none"): Tuned(3e-3, 10.0, 30.0)}
    assert cells_of(settings, seeds=(5, 6), part=Part(0.5)) == [
        Cell("kept", "all", 1e-3, 3.0, 0.5, 5),
        Cell("replaced", "none", 3e-3, 10.0, 0.5, 5, 30.0),
        Cell("kept", "all", 1e-3, 3.0, 0.5, 6),
        Cell("replaced", "none", 3e-3, 10.0, 0.5, 6, 30.0),
    ]
    tries = cells_of_tries(Place("kept", "all"), pretrained=False, part=Part(shots=4), seed=7)
    assert {(cell.head, cell.freeze_depth, cell.seed, cell.part) for cell in tries} == {
        ("kept", "all", 7, Part(1.0, 4))
    }


def test_without_names_a_few_depths_that_every_head_has_are_compared(classifiers):
    depths = default_depths(classifier.boundaries for classifier in classifiers.values())
    assert 2 <= len(depths) <= DEPTHS
    assert depths[-1] == "all"
    for classifier, depth in itertools.product(classifiers.values(), depths[:-1]):
        boundaries = classifier.boundaries
        assert find_boundary(boundaries, depth) is not boundaries[-1], "one head has `all` twice"


def test_what_is_trained_beside_new_layers_depends_on_the_head(tiny_backbone):
    kept, replaced, beside = (
        TransferClassifier(tiny_backbone, class_names=["a", "b"], head=head)
        for head in ("kept", "replaced", "kept_softmax_beside")
    )

    def trained(classifier) -> list[bool]:
        last = classifier.boundaries[-1].name
        return [trains_pretrained(classifier, depth) for depth in ("none", "block_relu", "auto", last, "all")]

    assert trained(kept) == trained(replaced) == [True, True, True, False, False]
    assert trained(beside) == [True, True, False, False, False]
    assert cost_of(beside, "auto") == LEAST_COST < cost_of(kept, "auto")
    last = replaced.boundaries[-1].name
    assert (trains_pretrained(kept, last), trains_pretrained(replaced, last)) == (True, False)


def test_a_part_with_as_many_photos_as_another_is_left_out(photo_folder):
    dataset = load_dataset(str(photo_folder))
    everything = len(dataset.train)
    asked = [WHOLE, Part(0.01), Part(0.02), Part(0.5), Part(0.99), Part(shots=1), Part(shots=3), Part(shots=99)]
    parts, left_out = distinct_parts(dataset, asked)
    assert parts == {WHOLE: everything, Part(0.01): 6, Part(0.5): 24, Part(shots=3): 18}
    assert left_out == {Part(0.02): 6, Part(0.99): everything, Part(shots=1): 6, Part(shots=99): everything}


@pytest.mark.parametrize("draw", [0, 5])
def test_a_part_has_its_share_of_every_class_and_the_smaller_parts(photo_folder, draw):
    dataset = load_dataset(str(photo_folder))
    parts = {part: part_of(dataset, part, draw=draw) for part in (Part(0.01), Part(0.25), Part(0.5), Part(shots=3))}
    each = np.bincount(dataset.train.labels)
    for part, drawn in parts.items():
        counts = [part.shots or max(1, round(part.share * count)) for count in each]
        assert list(np.bincount(drawn.train.labels)) == counts
        assert drawn.test.photos == dataset.test.photos
        assert drawn.validation.photos == dataset.validation.photos
        assert drawn.fingerprint != dataset.fingerprint
    by_size = sorted((set(drawn.train.photos) for drawn in parts.values()), key=len)
    assert all(smaller < larger for smaller, larger in itertools.pairwise(by_size))


def test_every_draw_has_other_photos(photo_folder):
    dataset = load_dataset(str(photo_folder))
    draws = [frozenset(part_of(dataset, Part(shots=3), draw=draw).train.photos) for draw in range(6)]
    assert len(set(draws)) == 6
    assert len(frozenset.union(*draws)) > 0.8 * len(dataset.train), "draws favour some photos"


def test_a_part_leaves_bad_photos_out(photo_folder):
    dataset = load_dataset(str(photo_folder))
    (only,) = (photo for photo in part_of(dataset, Part(0.01), draw=0).train.photos if photo.startswith("class2/"))
    part = part_of(dataset, Part(0.01), draw=0, without={only})
    assert only not in part.train.photos
    assert list(np.bincount(part.train.labels)) == [1] * 6
    assert part.whole is dataset


def test_training_a_photo_costs_what_is_trained_and_at_least_a_little(classifiers):
    kept = classifiers["kept"]
    assert cost_of(kept, "block_relu") == 1 - find_boundary(kept.boundaries, "block_relu").cost_share
    assert cost_of(kept, "all") == LEAST_COST
    assert cost_of(kept, "none") == 1
