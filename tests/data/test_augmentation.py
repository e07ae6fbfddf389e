"""What training sees of a photo, against Pillow and formulas."""

import hashlib

import numpy as np
import pytest
from PIL import Image
from support import smooth_pixels

from ktl.data import augmentation
from ktl.data.augmentation import check_augmentation, training_view
from ktl.data.digest import photo_digest
from ktl.data.views import centre_crop

A, B = (photo_digest(name) for name in (b"a", b"b"))


def test_standard_augmentation_is_a_pure_function_of_the_photos_digest_and_the_views_number():
    pixels, common = smooth_pixels(64, 90), {"size": 48, "flip": True}
    drawn = [(A, 3, "a.png"), (A, 3, "moved/b.png"), (A, 4, "a.png"), (B, 3, "a.png")]
    views = [
        training_view(pixels, "standard", digest=digest, view=view, name=name, **common) for digest, view, name in drawn
    ]
    np.testing.assert_array_equal(views[0], views[1])
    assert (views[0] != views[2]).any()
    assert (views[0] != views[3]).any()
    assert views[0].shape == (48, 48, 3)
    assert views[0].dtype == np.uint8


def crop_of_ramp(seed, *, flip):
    """(top, bottom, left, right) of a crop, as fractions of the photo, read from the pixels of two ramps."""
    rows, columns = np.mgrid[0:200, 0:200]
    ramp = np.stack([rows, columns, rows], axis=2).astype(np.uint8)
    view = training_view(ramp, "standard", size=50, digest=A, name="ramp", view=seed, flip=flip).astype(float)
    return view[0, 0, 0] / 200, view[-1, 0, 0] / 200, view[0, 0, 1] / 200, view[0, -1, 1] / 200


def test_standard_augmentation_crops_within_the_stated_areas_and_aspects_and_flips_half_of_the_time():
    crops = np.array([crop_of_ramp(seed, flip=True) for seed in range(60)])
    heights, widths = crops[:, 1] - crops[:, 0], crops[:, 3] - crops[:, 2]
    assert 0.25 < (widths < 0).mean() < 0.75
    widths = np.abs(widths)
    areas, aspects = heights * widths, widths / heights
    assert areas.min() > augmentation.CROP_AREA[0] - 0.05
    assert areas.max() - areas.min() > 0.3
    assert augmentation.CROP_ASPECT[0] - 0.05 < aspects.min() < 0.9
    assert 1.1 < aspects.max() < augmentation.CROP_ASPECT[1] + 0.05
    assert np.ptp(crops[:, 0]) > 0.1


def test_standard_augmentation_without_flip_never_mirrors():
    crops = np.array([crop_of_ramp(seed, flip=False) for seed in range(20)])
    assert (crops[:, 3] > crops[:, 2]).all()


# Functions


def through(function, *, size=48, photo=None):
    photo = smooth_pixels(64, 90) if photo is None else photo
    return training_view(photo, function, size=size, digest=B, name="ash/3.png", view=2, flip=True)


def test_a_function_gets_the_photo_and_a_generator_of_its_digest_and_view():
    photo, seen = smooth_pixels(64, 90), []

    def function(pixels, generator):
        seen.append((pixels.copy(), generator.random(3)))
        pixels[:] = 0  # it owns what it gets
        return pixels[:48, :48]

    assert through(function, photo=photo).max() == 0
    np.testing.assert_array_equal(seen[0][0], smooth_pixels(64, 90))
    number = int.from_bytes(hashlib.sha256(b"b").digest()[:8], "big")
    np.testing.assert_array_equal(seen[0][1], np.random.default_rng([augmentation.VIEW_SEED, 2, number]).random(3))
    np.testing.assert_array_equal(photo, smooth_pixels(64, 90))


def test_what_has_the_size_is_passed_on_bit_by_bit():
    view = np.random.default_rng(0).integers(0, 256, [48, 48, 3], np.uint8)
    np.testing.assert_array_equal(through(lambda pixels, generator: view), view)
    np.testing.assert_array_equal(through(lambda pixels, generator: Image.fromarray(view)), view)


def test_of_a_longer_view_the_central_square_is_taken():
    np.testing.assert_array_equal(
        through(lambda pixels, generator: pixels[:48]), centre_crop(smooth_pixels(64, 90)[:48], size=48)
    )


@pytest.mark.parametrize("side", [7, 31, 64])
def test_another_size_is_resized_as_pillow_does(side):
    view = smooth_pixels(side, side)
    expected = np.asarray(Image.fromarray(view).resize((48, 48), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(through(lambda pixels, generator: view), expected)


@pytest.mark.parametrize(
    ("given", "received"),
    [
        (np.zeros([48, 48, 3], np.float32), r"float32 \[48, 48, 3\]"),
        (np.zeros([48, 48], np.uint8), r"uint8 \[48, 48\]"),
        (np.zeros([48, 48, 4], np.uint8), r"uint8 \[48, 48, 4\]"),
        (np.zeros([0, 48, 3], np.uint8), r"uint8 \[0, 48, 3\]"),
        (None, r"object \[\]"),
    ],
)
def test_what_are_no_pixels_is_refused_with_the_photos_name(given, received):
    message = rf"Expected augmentation to give uint8 \[height, width, 3\]\. Received: {received} for ash/3\.png"
    with pytest.raises(ValueError, match=message):
        through(lambda pixels, generator: given)


def test_an_unknown_augmentation_gets_the_known_ones():
    for known in ("standard", "none", through):
        check_augmentation(known)
    with pytest.raises(ValueError, match=r"augmentation to be one of: standard, none, a function\. Received: heavy"):
        check_augmentation("heavy")
