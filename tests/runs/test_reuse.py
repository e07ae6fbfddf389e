"""A network that serves several trainings one after another gives each the numbers of a network of its own."""

import numpy as np
import pytest
from tiny import make_dataset, values, without_seconds

from ktl.config.settings import RunConfig
from ktl.errors import DivergedError
from ktl.runs.reuse import ReusedNetwork
from ktl.runs.session import Session
from ktl.training.variables import trained_variables


@pytest.fixture
def session(tiny_backbone, tmp_path) -> Session:
    """Trains what is after `depthwise`: with a BatchNormalization and dropout."""
    config = RunConfig(
        dataset="arrays",
        backbone=str(tiny_backbone),
        freeze_depth="depthwise_relu",
        epochs=2,
        batch_size=5,
        least_steps=1,
        learning_rate=0.01,
        cache="on",
        cache_dir=str(tmp_path / "cache"),
    )
    return Session(config, make_dataset())


def test_a_network_that_serves_again_trains_to_the_same_bits_as_a_new_one(session, tmp_path):
    network, wanted = ReusedNetwork(session), {"scale": 10.0, "learning_rate": 0.003, "weight_decay": 0.1}
    first = network.prepare({"scale": 1.0, "learning_rate": 1e30}, seed=3)
    with pytest.raises(DivergedError):  # the weights are no numbers then
        first.fit(tmp_path / "first")
    again = network.prepare(wanted, seed=3)
    assert again.classifier is first.classifier
    found = again.fit(tmp_path / "again"), values(trained_variables(again.classifier))
    new = session.prepare(wanted, seed=3)
    assert again.config == new.config
    expected = new.fit(tmp_path / "new"), values(trained_variables(new.classifier))
    assert without_seconds(found[0]) == without_seconds(expected[0])
    for value, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_array_equal(value, other)


def test_another_seed_or_structure_has_a_new_network(session):
    network = ReusedNetwork(session)
    classifiers = [
        network.prepare(wanted, seed=seed).classifier
        for wanted, seed in (({"scale": 1.0}, 0), ({"scale": 1.0}, 1), ({"hidden_units": 4}, 1))
    ]
    assert len({id(classifier) for classifier in classifiers}) == 3
    assert network.prepare({"hidden_units": 4, "scale": 2.0}, seed=1).classifier is classifiers[-1]
    network.forget()
    assert network.prepare({"hidden_units": 4}, seed=1).classifier is not classifiers[-1]
