"""PNG.

Reference:
    W3C PNG, third edition.
"""

from functools import partial

import tensorflow as tf

from ktl.exporting.decoding.exif import orientation_of, turn_upright
from ktl.exporting.decoding.photo_bytes import (
    FAR,
    PhotoBytes,
    Segment,
    big_endian,
    equal,
    find_segment,
    has,
    read_bytes,
    require,
    require_size,
    select,
)
from ktl.exporting.decoding.pixels import on_white

_PNG_GREY, _PNG_GREY_ALPHA, _PNG_RGB_ALPHA = 0, 4, 6


def decode_png(encoded: tf.Tensor, photo: PhotoBytes) -> tf.Tensor:
    """The pixels of a PNG."""
    width, height = big_endian(read_bytes(photo, 16, 4)), big_endian(read_bytes(photo, 20, 4))
    depth, color = tf.unstack(read_bytes(photo, 24, 2))
    transparency = find_segment(photo, 8, partial(_png_chunk, name=b"tRNS", last=b"IDAT"))
    exif = find_segment(photo, 8, partial(_png_chunk, name=b"eXIf", last=b"IEND"))
    # Not four channels for all: without alpha and with fewer than 8 bits, TensorFlow gives an alpha of 1, 3 or 15.
    # Pillow's 16-bit grey has no transparency.
    has_color_key = (transparency.size > 0) & ((depth < 16) | (color != _PNG_GREY))
    # Pillow compares the transparent grey with levels that it has spread over 0..255 before: only black meets it.
    is_spread = (color == _PNG_GREY) & ((depth == 2) | (depth == 4))
    has_color_key &= ~is_spread | (big_endian(read_bytes(transparency, 0, 2)) == 0)
    has_alpha = has_color_key | (color == _PNG_GREY_ALPHA) | (color == _PNG_RGB_ALPHA)
    with (
        require(has(photo, 12, b"IHDR"), "Expected a PNG that starts with its header. Received (size):", photo.size),
        require_size(height, width),
    ):
        image = tf.cond(
            has_alpha,
            lambda: on_white(tf.io.decode_png(encoded, channels=4)),
            lambda: tf.io.decode_png(encoded, channels=3),
        )
    return turn_upright(image, orientation_of(exif))


def _png_chunk(photo: PhotoBytes, position: tf.Tensor, *, name: bytes, last: bytes) -> Segment:
    head = read_bytes(photo, position, 8)
    end = position + 8 + big_endian(head[:4])
    return Segment(
        wanted=equal(head[4:], name),
        start=position + 8,
        end=end,
        following=select(equal(head[4:], last), FAR, end + 4),
    )
