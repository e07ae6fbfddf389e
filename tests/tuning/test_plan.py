"""What a search's settings stand for: values, places, oracle, trainings, costs."""

import dataclasses

import numpy as np
import pytest

from ktl.config.settings import SearchConfig
from ktl.data.loading import load_dataset
from ktl.models.boundaries import spread_depths
from ktl.progress import Reporter
from ktl.tuning.plan import announce, choose_oracle, make_plan

pytestmark = pytest.mark.usefixtures("float32_policy")

DEPTHS = ("stem_relu", "block_relu")


@pytest.fixture(scope="module")
def make(photo_folder, tiny_backbone):
    """The plan of a search with some settings, and those."""
    dataset = load_dataset(str(photo_folder))

    def make(**settings):
        space = "scale=1,10,freeze_depth=stem_relu,block_relu"
        names = {"dataset": str(photo_folder), "backbone": str(tiny_backbone)}
        given = {**names, "space": space, "seeds": 1, **settings}
        config = SearchConfig(**given)
        return make_plan(config, dataset), config, dataset

    return make


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"seeds": 3}, 6),
        ({"seeds": None}, 6),
        ({"seeds": 3, "max_trials": 3, "oracle": "grid"}, 6),
        ({"space": "scale=1,3,10", "freeze_depth": "block_relu"}, 3),
    ],
)
def test_the_trainings_of_a_freeze_depth_are_counted(make, settings, expected):
    assert make(**settings)[0].trainings == expected


def test_which_trials_train_a_head_alone(make):
    plan, *_ = make(space="freeze_depth=stem_relu,all,point_relu head=kept,replaced scale=1,10")
    told = {
        (head, depth): plan.at_once({"head": head, "freeze_depth": depth, "scale": 1.0})
        for head in ("kept", "replaced")
        for depth in ("stem_relu", "all", "point_relu")
    }
    # What `replaced` does without is all that is after point_relu.
    assert [place for place, alone in told.items() if alone] == [
        ("kept", "all"),
        ("replaced", "all"),
        ("replaced", "point_relu"),
    ]
    assert any(plan.together)
    assert not any(make(freeze_depth="block_relu", space="scale=1")[0].together)


def test_seeds_that_are_not_given_follow_the_validation_photos(make, photo_folder, tiny_backbone):
    """Three below 200, else one; it is said, and counted in what the search costs."""
    plan, config, dataset = make(seeds=None)
    assert plan.seeds == 3
    listener = Listener()
    announce(plan, config, dataset, listener)
    assert "3 seeds a trial: 6 validation photos tell too little of one training" in listener.lines
    assert any(" epochs and 3 seeds: about " in line for line in listener.lines)
    many = dataclasses.replace(dataset, validation=dataset.train.take(np.arange(200) % 10, name="validation"))
    assert make_plan(config, many).seeds == 1
    fewer = dataclasses.replace(dataset, validation=dataset.train.take(np.arange(199) % 10, name="validation"))
    assert make_plan(config, fewer).seeds == 3
    assert make_plan(dataclasses.replace(config, seeds=2), fewer).seeds == 2


def test_depths_without_values_are_spread_over_the_backbone(make):
    plan, _, _ = make(space="freeze_depth head=replaced,kept")
    classifiers = list(dict.fromkeys(classifier for classifier, _ in plan.places))
    assert [classifier.head for classifier in classifiers] == list(plan.values["head"])
    assert plan.values["freeze_depth"] == spread_depths(classifiers[0].boundaries)
    assert [depth for _, depth in plan.places] == list(plan.values["freeze_depth"]) * 2


def test_heads_share_their_default_depths(make):
    """The last boundary of a network without the ImageNet layer has another name."""
    plan, _, _ = make(space="freeze_depth head=kept,replaced")
    assert plan.values["freeze_depth"][-1] == "all"
    for classifier, depth in plan.places:
        classifier.freeze(depth)
        assert classifier.boundary.name == depth or classifier.boundary is classifier.boundaries[-1]


def test_the_classifiers_of_all_heads_share_one_backbone(make):
    plan, _, _ = make(space="head=kept,replaced")
    kept, replaced = (classifier for classifier, _ in plan.places)
    assert kept.get_layer("stem") is replaced.get_layer("stem")


def test_a_depth_costs_what_is_after_its_boundary(make):
    plan, _, _ = make(space="freeze_depth=none,block_relu,all head=kept,replaced")
    kept, replaced = list(dict.fromkeys(classifier for classifier, _ in plan.places))
    shares = [
        {boundary.name: 1 - boundary.cost_share for boundary in classifier.boundaries}
        for classifier in (kept, replaced)
    ]
    assert plan.costs["none"] == 1
    assert plan.costs["all"] == 0
    assert plan.costs["block_relu"] == pytest.approx(sum(share["block_relu"] for share in shares) / 2)


def test_where_the_depth_is_not_varied_there_are_no_costs_of_depths(make):
    plan, _, _ = make(space="scale=1,3", freeze_depth="block_relu")
    assert plan.costs == {}
    assert [depth for _, depth in plan.places] == ["block_relu"]


@pytest.mark.parametrize(
    ("name", "points", "expected"),
    [("auto", 50, "grid"), ("auto", 51, "bayesian"), ("random", 4, "random"), ("hyperband", 4, "hyperband")],
)
def test_a_space_of_at_most_as_many_points_as_trials_is_a_grid(name, points, expected):
    assert choose_oracle(name, points, max_trials=50) == expected


class Listener(Reporter):
    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


def test_the_space_its_size_and_what_trying_it_costs_are_told(make):
    listener = Listener()
    announce(*make(max_trials=3, epochs=2), listener)
    assert listener.lines[:2] == ["freeze_depth: stem_relu, block_relu", "scale: 1, 10"]
    assert listener.lines[2].startswith("4 combinations; bayesian, at most 3 trials of 2 epochs: about ")
    told = Listener()
    announce(*make(oracle="hyperband", epochs=9), told)
    assert told.lines[2] == "4 combinations; hyperband, trials of up to 9 epochs"
