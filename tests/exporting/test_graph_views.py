"""evaluation_view_in_graph gives what evaluation_view gives, to the bit."""

import numpy as np
import pytest
import tensorflow as tf

from ktl.data.views import evaluation_view
from ktl.exporting.graph_views import evaluation_view_in_graph

PIXELS = tf.TensorSpec([None, None, 3], tf.uint8)


@pytest.fixture(scope="module", params=[28, 224])
def seen(request):
    """A size, and the graph for it."""
    size = request.param
    return size, tf.function(lambda photo: evaluation_view_in_graph(photo, size=size), input_signature=[PIXELS])


def assert_same(seen, pixels):
    size, graph = seen
    np.testing.assert_array_equal(graph(pixels), evaluation_view(pixels, size=size), err_msg=f"{pixels.shape}")


SIZES = [(1, 1), (1, 3000), (3000, 1), (2, 9), (32, 32), (33, 31), (256, 256), (257, 512), (375, 500), (1024, 768)]
# Of 28 pixels: the long side is 44.5, rounded as its float32.
SIZES += [(448, 623), (623, 448)]


@pytest.mark.parametrize("shape", SIZES)
def test_it_is_equal_up_and_down_and_for_long_photos(seen, shape):
    assert_same(seen, np.random.default_rng(0).integers(0, 256, [*shape, 3], np.uint8))


def test_it_is_equal_for_sizes_of_chance(seen):
    generator = np.random.default_rng(1)
    for shape in generator.integers(1, 700, [40, 2]):
        # Black and white: the largest sums, and those that are rounded at the ends of the scale.
        assert_same(seen, generator.choice(np.array([0, 255], np.uint8), [*shape, 3]))
