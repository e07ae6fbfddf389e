"""PNG files whose pixels are sound and whose other parts are not, or are large: read as TensorFlow reads them."""

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support import encode, smooth_pixels

from ktl.data.images import BadPhoto, decode, size_of

PIXELS = smooth_pixels(40, 50)
PHOTO = encode(PIXELS)
LONG = b"x" * 2_000_000


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def photo_with(*chunks: bytes, at_end: bool = False, photo: bytes = PHOTO) -> bytes:
    at = photo.rindex(b"IEND") - 4 if at_end else 33  # behind the header
    return photo[:at] + b"".join(chunks) + photo[at:]


FILES = {
    "a long text": photo_with(chunk(b"tEXt", b"Comment\0" + LONG)),
    "a long packed text": photo_with(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LONG))),
    "a long packed text at its end": photo_with(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LONG)), at_end=True),
    "long properties": photo_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG))),
    "many texts": photo_with(*[chunk(b"tEXt", b"C\0" + LONG[:900_000])] * 80),
    "a large profile": photo_with(chunk(b"iCCP", b"p\0\0" + zlib.compress(np.random.default_rng(0).bytes(3_000_000)))),
    "a bomb of a profile": photo_with(chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(30_000_000)))),
    "a profile in an unknown way": photo_with(chunk(b"iCCP", b"p\0\7junk")),
    "a wrong checksum of a text": photo_with(chunk(b"tEXt", b"Comment\0x", 1)),
    "a short gamma": photo_with(chunk(b"gAMA", b"j")),
    "a short resolution": photo_with(chunk(b"pHYs", b"j")),
    "a short animation": photo_with(chunk(b"acTL", b"123")),
}


@pytest.mark.parametrize("name", FILES)
def test_what_the_pixels_do_not_need_keeps_nobody_from_them(name):
    encoded = FILES[name]
    np.testing.assert_array_equal(decode(encoded), PIXELS)
    np.testing.assert_array_equal(tf.io.decode_png(encoded, channels=3), PIXELS)
    assert size_of(encoded) == (50, 40)


@pytest.mark.parametrize("name", ["a long packed text", "a wrong checksum of a text"])
@pytest.mark.parametrize("form", ["exif", "raw", "properties"])
def test_the_photo_is_turned_all_the_same(name, form):
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes()
    raw = f"\nexif\n{len(block):8}\n{block.hex()}".encode()
    properties = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"></x:xmpmeta>'
    says = {
        "exif": chunk(b"eXIf", block.removeprefix(b"Exif\0\0")),
        "raw": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)),
        "properties": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(properties)),
    }
    turned = photo_with(says[form])
    np.testing.assert_array_equal(decode(turned), np.rot90(PIXELS, -1))
    np.testing.assert_array_equal(decode(FILES[name][:33] + turned[33:]), np.rot90(PIXELS, -1))
    bad = FILES[name][33 : len(FILES[name]) - len(PHOTO) + 33]
    np.testing.assert_array_equal(decode(photo_with(bad, photo=turned)), np.rot90(PIXELS, -1))


def test_transparent_parts_stay_white():
    pixels = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 255, np.uint8)])
    pixels[:20, :, 3] = 0
    damaged = photo_with(chunk(b"tEXt", b"Comment\0x", 1), photo=encode(Image.fromarray(pixels)))
    assert (decode(damaged)[:20] == 255).all()
    np.testing.assert_array_equal(decode(damaged)[20:], PIXELS[20:])


def test_a_damaged_photo_stays_one_wherever_it_is_cut():
    for encoded in (PHOTO, FILES["a long packed text"]):
        for end in (8, 20, 33, 40, len(encoded) - 200, len(encoded) - 30):
            with pytest.raises(BadPhoto):
                decode(encoded[:end])


def test_a_bomb_of_pixels_is_not_decoded():
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    bomb = PHOTO[:8] + chunk(b"IHDR", header) + chunk(b"tEXt", b"Comment\0x", 1) + PHOTO[33:]
    with pytest.raises(BadPhoto, match="more than 178,956,970 pixels"):
        decode(bomb)
