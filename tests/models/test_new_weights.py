"""New weights: of the distributions that Keras' own have, and from NumPy's generator alone."""

import keras
import numpy as np
import pytest
from scipy import stats

from ktl.models.backbones import build_backbone
from ktl.models.classifier import TransferClassifier
from ktl.models.new_weights import draw_weights

scaled = keras.initializers.VarianceScaling

LAYERS = {
    "dense": (lambda: keras.layers.Dense(80), (None, 120)),
    "untruncated": (
        lambda: keras.layers.Dense(90, kernel_initializer=scaled(1, "fan_in", "untruncated_normal")),
        (None, 120),
    ),
    "conv": (lambda: keras.layers.Conv2D(40, 3, kernel_initializer="he_normal"), (None, 9, 9, 30)),
    "fan_out": (lambda: keras.layers.Conv2D(40, 3, kernel_initializer=scaled(2, "fan_out")), (None, 9, 9, 30)),
    "depthwise": (lambda: keras.layers.DepthwiseConv2D(3), (None, 9, 9, 700)),
    "separable": (lambda: keras.layers.SeparableConv2D(70, 3), (None, 9, 9, 700)),
}


@pytest.fixture(autouse=True)
def _free_memory():
    yield
    keras.backend.clear_session()


@pytest.mark.parametrize("name", LAYERS)
def test_weights_are_distributed_as_keras_draws_them(name):
    keras.utils.set_random_seed(0)  # else one draw in a hundred looks like another distribution
    make, shape = LAYERS[name]
    layer = make()  # now: an initializer draws its seed when it is made
    layer.build(shape)
    before = [np.ravel(weight) for weight in layer.weights]
    draw_weights([layer], np.random.default_rng(0))
    for weight, drawn_by_keras in zip(layer.weights, before, strict=True):
        drawn = np.ravel(weight)
        if not drawn_by_keras.any():
            np.testing.assert_array_equal(drawn, 0)  # a bias
            continue
        assert not np.isin(drawn, drawn_by_keras).all()
        assert stats.ks_2samp(drawn, drawn_by_keras).pvalue > 0.01
        assert np.abs(drawn).max() == pytest.approx(np.abs(drawn_by_keras).max(), rel=0.2)


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_0.25",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("convnexttiny", "efficientnetb0", "efficientnetv2b0", "efficientnet_lite0", "nasnetmobile")
        ),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("mobilenetv3small", "xception", "resnet50v2")),
    ],
)
def test_no_random_weight_of_a_backbone_is_left_to_keras(name):
    """Keras' generator is at another place each time."""
    pair = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        backbone = build_backbone(name, weights="random", image_size=96)
        draw_weights(backbone.model.layers, np.random.default_rng(0))
        pair.append(backbone.model.weights)
    for first, second in zip(*pair, strict=True):
        np.testing.assert_array_equal(first, second, err_msg=first.path)


def test_the_head_of_a_seed_is_the_same_behind_all_backbones_of_a_width():
    """Some are given and some draw weights first."""
    common = {"class_names": ("a", "b"), "head": "kept", "seed": 3}
    drawn = TransferClassifier("mobilenet_0.25", weights="random", image_size=32, **common)
    given = TransferClassifier(build_backbone("mobilenet_0.25", weights="random", image_size=32), **common)
    for first, second in zip(drawn.new_variables, given.new_variables, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_seed_gives_these_weights_on_every_machine():
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    draw_weights([layer], np.random.default_rng(0))
    uniform = np.random.default_rng(0).random((3, 2), np.float32)
    np.testing.assert_allclose(layer.kernel, (2 * uniform - 1) * np.sqrt(6 / (3 + 2)), rtol=1e-6)
