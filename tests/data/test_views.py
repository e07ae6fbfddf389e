"""shrink, centre_crop and evaluation_view against Pillow, TensorFlow and formulas."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support import smooth_pixels

from ktl.data.views import MAX_ASPECT, centre_crop, evaluation_view, shrink


@pytest.mark.parametrize(
    ("height", "width"), [(375, 500), (500, 333), (90, 120), (64, 64), (37, 41), (9, 30), (1500, 1130)]
)
@pytest.mark.parametrize("short_side", [64, 146])
def test_shrink_agrees_with_tensorflow_within_one_grey_level(height, width, short_side):
    pixels = np.random.default_rng(1).integers(0, 256, [height, width, 3], np.uint8)
    ours = shrink(pixels, short_side=short_side)
    scale = short_side / min(height, width)
    assert ours.shape[:2] == (round(height * scale), round(width * scale))
    theirs = tf.image.resize(pixels, ours.shape[:2], antialias=True).numpy()
    assert np.abs(ours - theirs).max() <= 1.01
    assert np.mean(ours != theirs.round()) < 0.2


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 1), (2, 9)])
def test_extreme_shapes_shrink_to_a_bounded_size(height, width):
    shrunk = shrink(smooth_pixels(height, width), short_side=32)
    assert min(shrunk.shape[:2]) == 32
    assert max(shrunk.shape[:2]) <= MAX_ASPECT * 32
    assert evaluation_view(smooth_pixels(height, width), size=28).shape == (28, 28, 3)


def test_the_ends_that_a_strip_loses_are_not_in_its_evaluation_view():
    strip = smooth_pixels(10, 100)
    shorter = strip[:, 20:80]
    np.testing.assert_array_equal(evaluation_view(strip, size=28), evaluation_view(shorter, size=28))


def test_centre_crop_takes_the_central_square():
    pixels = smooth_pixels(32, 47)
    np.testing.assert_array_equal(centre_crop(pixels, size=28), pixels[2:30, 9:37])


def test_evaluation_view_is_seven_eighths_of_the_short_side():
    pixels = smooth_pixels(300, 400)
    flat = Image.fromarray(pixels).resize((400, 256), Image.Resampling.BILINEAR)
    expected = np.asarray(flat.resize((341, 256), Image.Resampling.BILINEAR))[16:240, 58:282]
    ours = evaluation_view(pixels, size=224)
    np.testing.assert_array_equal(ours, expected)
    assert ours.base is None, "it keeps the whole photo in memory"
