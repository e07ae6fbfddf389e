import keras
import numpy as np
import pytest
from keras import layers

from ktl.errors import UserError
from ktl.models.backbones import build_backbone
from ktl.models.boundaries import find_boundaries, find_boundary, spread_depths
from ktl.models.keras_graph import multiply_adds, topological_nodes


def small_classifier() -> keras.KerasTensor:
    """Convolution and normalisation, a block with a side branch, a dropout, pooling and a classification layer."""
    x = layers.Rescaling(1 / 255, name="rescale")(keras.Input((8, 8, 3), name="photo"))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.ZeroPadding2D(1, name="pad")(x)
    x = layers.DepthwiseConv2D(3, strides=2, name="depthwise")(x)
    branch = layers.Conv2D(4, 1, name="branch_a")(x)
    branch = layers.Conv2D(4, 1, name="branch_b")(branch)
    x = layers.Add(name="block_out")([x, branch])
    x = layers.Dropout(0.5, name="drop")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return layers.Dense(10, name="classes")(x)


def test_a_boundary_is_crossed_by_every_path_and_has_new_weights_before_it():
    boundaries = find_boundaries(small_classifier())
    assert [b.name for b in boundaries] == ["none", "stem_relu", "depthwise", "block_out", "classes"]
    assert [b.depth for b in boundaries] == [0, 1, 2, 3, 4]


def test_the_cut_is_the_smallest_tensor_that_is_no_random_one():
    boundaries = find_boundaries(small_classifier())
    shapes = [b.tensor.shape[1:] for b in boundaries]
    assert shapes == [(8, 8, 3), (8, 8, 4), (4, 4, 4), (4, 4, 4), (10,)]
    # Pooling stands behind the dropout, which a frozen prefix would switch off.
    assert find_boundary(boundaries, "pool") is boundaries[3]


def test_parameters_and_costs_equal_a_count_by_hand():
    boundaries = find_boundaries(small_classifier())
    stem, depthwise, branch, classes = 3 * 3 * 3 * 4, 3 * 3 * 4, 4 * 4, 4 * 10
    before = np.cumsum([0, stem + 4 * 4, depthwise + 4, 2 * (branch + 4), classes + 10])
    assert [b.parameters_before for b in boundaries] == before.tolist()
    assert [b.parameters_after for b in boundaries] == (before[-1] - before).tolist()
    costs = np.cumsum([0, 64 * stem, 16 * depthwise, 16 * 2 * branch, classes])
    assert [b.cost_share for b in boundaries] == pytest.approx(costs / costs[-1])


@pytest.mark.parametrize(
    ("freeze_depth", "expected"),
    [("none", 0), (0, 0), ("0", 0), (2, 2), ("4", 4), ("all", 4), ("block_out", 3), ("stem_bn", 1), ("pad", 1)],
)
def test_finds_a_boundary_by_number_name_none_and_all(freeze_depth, expected):
    boundaries = find_boundaries(small_classifier())
    assert find_boundary(boundaries, freeze_depth) is boundaries[expected]


def test_auto_is_the_deepest_with_most_of_the_cost_behind_it():
    boundaries = find_boundaries(small_classifier())
    auto = find_boundary(boundaries, "auto")
    assert auto.cost_share <= 0.9 < boundaries[auto.depth + 1].cost_share


@pytest.mark.parametrize("freeze_depth", ["branch_a", "5", "-1", "", "conv9"])
def test_unknown_boundaries_are_refused_with_a_list(freeze_depth):
    with pytest.raises(UserError, match=r"1 stem_relu, 2 depthwise, 3 block_out, 4 classes\. Received: "):
        find_boundary(find_boundaries(small_classifier()), freeze_depth)


@pytest.mark.parametrize(
    ("name", "size", "count", "some"),
    [
        ("vgg16", 224, 16, {"block1_conv1", "block3_conv3", "block5_conv3", "fc1", "fc2", "predictions"}),
        ("resnet50", 64, 18, {"conv2_block1_out", "conv4_block6_out", "conv5_block3_out", "predictions"}),
        (
            "mobilenet_0.25",
            64,
            28,
            {"conv1_relu", "conv_pw_9_relu", "conv_pw_11_relu", "conv_pw_13_relu", "conv_preds"},
        ),
        ("mobilenetv2_0.35", 64, 33, {"block_3_project_BN", "block_5_add", "predictions"}),
        ("efficientnet_lite0", 64, None, {"block2b_add", "block6d_add", "predictions"}),
    ],
)
def test_boundaries_of_real_architectures(name, size, count, some):
    boundaries = find_boundaries(build_backbone(name, weights="random", image_size=size).logits)
    assert some <= {b.name for b in boundaries}
    assert len({b.name for b in boundaries}) == len(boundaries)
    assert count is None or len(boundaries) == count + 1
    assert all(np.diff([b.parameters_before for b in boundaries]) > 0)


def test_multiply_adds_of_resnet50_are_those_that_its_authors_state():
    nodes = topological_nodes(build_backbone("resnet50", weights="random").logits)
    # He et al. 2016, table 1: 3.8e9; Keras' ResNet50 has its stride in the 1x1 convolution, as theirs.
    expected = pytest.approx(3.8e9, rel=0.03)
    assert sum(map(multiply_adds, nodes)) == expected
    for node in nodes:
        node.operation.trainable = False
    assert sum(map(multiply_adds, nodes)) == expected, "what is frozen is computed too"


def test_a_search_tries_boundaries_of_the_second_half_that_are_a_step_apart():
    boundaries = find_boundaries(build_backbone("mobilenet_0.75", weights="random").logits)
    names = ("conv_dw_8_relu", *(f"conv_pw_{block}_relu" for block in range(8, 14)), "all")
    assert spread_depths(boundaries) == names
