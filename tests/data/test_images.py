"""decode against Pillow, TensorFlow and formulas."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support import encode, smooth_pixels

from ktl.data import images
from ktl.data.images import BadPhoto, decode, large_one_by_one

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.mark.parametrize(
    ("options", "mode"), [({}, "RGB"), ({"subsampling": 0}, "RGB"), ({"progressive": True}, "RGB"), ({}, "L")]
)
def test_a_jpeg_decodes_to_the_very_pixels_of_tensorflow(options, mode):
    encoded = encode(Image.fromarray(smooth_pixels(61, 83)).convert(mode), "JPEG", quality=80, **options)
    expected = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_array_equal(decode(encoded), expected)


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_keep_every_pixel(form, options):
    pixels = smooth_pixels(20, 31)
    np.testing.assert_array_equal(decode(encode(pixels, form, **options)), pixels)


def test_an_animation_shows_its_first_frame():
    frames = [Image.new("P", (6, 4), color) for color in (1, 2)]
    for frame in frames:
        frame.putpalette([0, 0, 0, *RED, *BLUE])
    encoded = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(encoded), np.full([4, 6, 3], RED, np.uint8))


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    grey = np.array([[0, 255, 256], [32767, 32768, 65535]], np.uint16)
    decoded = decode(encode(grey, "PNG"))
    np.testing.assert_array_equal(decoded, np.repeat((grey // 256).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_shows_white(mode):
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 2, 2))
    decoded = decode(encode(image.convert(mode), "PNG"))
    assert decoded[:, :2].min() == 255
    assert decoded[:, 2:].max() == 0


def test_half_transparent_red_is_pink():
    decoded = decode(encode(Image.new("RGBA", (2, 2), (*RED, 128)), "PNG"))
    np.testing.assert_allclose(decoded, np.full([2, 2, 3], (255, 127, 127)), atol=1)


def test_cmyk_is_shown_in_its_colors_with_and_without_the_adobe_mark():
    # Adobe stores CMYK inverted and marks it so; viewers take an unmarked file for inverted as well.
    marked = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    start = marked.index(b"\xff\xee")
    unmarked = marked[:start] + marked[start + 2 + int.from_bytes(marked[start + 2 : start + 4], "big") :]
    for encoded in (marked, unmarked):
        np.testing.assert_allclose(decode(encoded), np.full([8, 8, 3], RED), atol=4)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (4, lambda x: x[::-1]),
        (5, lambda x: x.transpose(1, 0, 2)),
        (6, lambda x: np.rot90(x, -1)),
        (7, lambda x: np.rot90(x, 2).transpose(1, 0, 2)),
        (8, lambda x: np.rot90(x, 1)),
    ],
)
def test_exif_orientation_turns_the_photo_upright(orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encode(smooth_pixels(16, 24), "JPEG", exif=exif)
    plain = encode(smooth_pixels(16, 24), "JPEG")
    np.testing.assert_array_equal(decode(stored), upright(decode(plain)))


def test_a_damaged_exif_block_leaves_the_pixels():
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = bytearray(encode(smooth_pixels(16, 24), "JPEG", exif=exif))
    start = encoded.index(b"Exif\0\0") + 6
    encoded[start : start + 8] = b"\xff" * 8
    assert decode(bytes(encoded)).shape == (16, 24, 3)


GOOD = encode(smooth_pixels(64, 64), "JPEG")


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "empty"),
        (b"This is a page of text.\n" * 9, "not an image"),
        (GOOD[: len(GOOD) // 2], "truncated"),
        (encode(smooth_pixels(64, 64), "PNG")[:300], "."),
        (GOOD[:40], "."),
        (encode(smooth_pixels(8, 8), "TIFF"), "not an image"),
    ],
)
def test_a_bad_photo_is_refused_with_a_short_reason(encoded, reason):
    with pytest.raises(BadPhoto, match=reason) as refused:
        decode(encoded)
    assert len(str(refused.value)) < 120
    assert "\n" not in str(refused.value)


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadPhoto, match="more than 200 pixels"):
        decode(encode(smooth_pixels(20, 20), "PNG"))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_damaged_bytes_give_pixels_or_bad_photo_and_nothing_else(form):
    generator = np.random.default_rng(0)
    encoded = encode(smooth_pixels(24, 24), form)
    for _ in range(60):
        damaged = np.frombuffer(encoded, np.uint8).copy()
        damaged[generator.integers(0, len(damaged), 4)] = generator.integers(0, 256, 4)
        try:
            pixels = decode(damaged.tobytes()[: generator.integers(1, len(damaged) + 1)])
        except BadPhoto:
            continue
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3


def test_no_two_large_photos_are_held_at_a_time(monkeypatch):
    """A folder of them would take as many times the memory as there are threads."""
    monkeypatch.setattr(images, "LARGE_PIXELS", 200)
    small, large = (encode(np.zeros((side, side, 3), np.uint8)) for side in (14, 15))
    held, most = [], []

    def look(encoded):
        with large_one_by_one(encoded):
            held.append(encoded)
            most.append((held.count(large), len(held)))
            time.sleep(0.01)
            held.remove(encoded)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, [small, large] * 20))
    assert max(count for count, _ in most) == 1
    assert max(count for _, count in most) > 1
    with large_one_by_one(b"no photo"):
        pass
