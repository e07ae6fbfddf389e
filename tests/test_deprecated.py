"""Names of version 0.1 that have moved: they work as they did, and say where to."""

import keras
import numpy as np
import pytest
from tiny import make_photos

import ktl
from ktl.errors import UserError


@pytest.fixture
def network(tiny_backbone):
    with pytest.warns(DeprecationWarning, match=r"^ktl\.build_network is deprecated: use ktl\.TransferClassifier$"):
        return ktl.build_network(ktl.build_backbone(str(tiny_backbone)), classes=6, freeze_depth="stem_relu")


def test_a_network_is_a_classifier_s_parts(network):
    pixels, _ = make_photos(4)
    assert isinstance(network.model, ktl.TransferClassifier)
    assert len(network.model.class_names) == 6
    logits = network.model.predict(pixels, verbose=0)
    for graph in (network.graph, keras.Sequential([network.prefix, network.suffix])):
        np.testing.assert_allclose(graph.predict(pixels, verbose=0), logits, rtol=1e-5, atol=1e-5)
    assert network.boundary.name == "stem_relu"
    assert network.boundary is network.boundaries[network.boundary.depth]
    assert [v.path for v in network.head_variables] == [
        "head_normalization/gamma",
        "head_classifier/kernel",
        "head_classifier/bias",
    ]


def test_the_settings_are_the_classifier_s(tiny_backbone):
    backbone = ktl.build_backbone(str(tiny_backbone))
    with pytest.warns(DeprecationWarning, match="deprecated"):
        network = ktl.build_network(backbone, classes=3, head="replaced", hidden_units=5, scale=7.0)
    assert network.boundary.depth == 0  # the default of version 0.1
    assert [v.shape for v in network.head_variables] == [(24, 5), (5,), (5, 3), (3,)]
    with (
        pytest.warns(DeprecationWarning, match="deprecated"),
        pytest.raises(UserError, match="`classes` to be at least 2"),
    ):
        ktl.build_network(backbone, classes=1)


def test_freezing_elsewhere(network):
    with pytest.warns(DeprecationWarning, match=r"^ktl\.freeze is deprecated: use ktl\.TransferClassifier\.freeze$"):
        frozen = ktl.freeze(network, "all")
    assert frozen.boundary is frozen.boundaries[-1]
    assert len(frozen.suffix.trainable_variables) == 3


def test_the_warning_names_the_line_of_the_caller(tiny_backbone):
    backbone = ktl.build_backbone(str(tiny_backbone))
    with pytest.warns(DeprecationWarning, match="deprecated") as told:
        ktl.freeze(ktl.build_network(backbone, classes=6), "none")
    assert [warning.filename for warning in told] == [__file__, __file__]


def test_a_model_of_ktl_s_own_is_a_backbone(network, tmp_path):
    """What it was trained for is pre-trained now: the new layers alone are new."""
    network.graph.save(tmp_path / "model.keras")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        again = ktl.build_network(ktl.build_backbone(str(tmp_path / "model.keras")), classes=4, freeze_depth="auto")
    assert {v.path.split("/")[0] for v in again.head_variables} == {"head_normalization", "head_classifier"}
    assert again.graph.output_shape == (None, 4)
    with pytest.warns(DeprecationWarning, match="deprecated"):
        replaced = ktl.build_network(ktl.build_backbone(str(tmp_path / "model.keras")), classes=4, head="replaced")
    assert [v.path for v in replaced.head_variables] == ["head_classifier/kernel", "head_classifier/bias"]
    assert any("normalization" in v.path for v in replaced.model.trainable_variables)


def test_the_layer_is_where_it_was():
    """`import ktl.layers` before `keras.models.load_model`, as the README of version 0.1 said."""
    import ktl.layers

    assert ktl.layers.ScaledUnitNormalization is ktl.ScaledUnitNormalization
