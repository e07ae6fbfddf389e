"""BMP without compression."""

# TensorFlow's type stubs know no "..." in an index, and no tensors in the place of sizes.
# pyright: reportArgumentType=false

import tensorflow as tf

from ktl.exporting.decoding.photo_bytes import (
    PhotoBytes,
    any_equal,
    int64,
    little_endian,
    read_bytes,
    require,
    require_size,
    select,
)
from ktl.exporting.decoding.pixels import full_palette

_BMP_CORE_HEADER = 12
_BMP_HEADERS = (_BMP_CORE_HEADER, 40, 52, 56, 64, 108, 124)
_BMP_BITS = (1, 4, 8, 24, 32)


def decode_bmp(encoded: tf.Tensor, photo: PhotoBytes) -> tf.Tensor:
    """Not TensorFlow's decoder, which shows the numbers of a palette's colours as grey levels."""
    del encoded
    offset, header = little_endian(read_bytes(photo, 10, 4)), little_endian(read_bytes(photo, 14, 4))
    is_core = header == _BMP_CORE_HEADER
    core = [little_endian(read_bytes(photo, at, 2)) for at in (20, 18, 24)]
    places = ((22, 4), (18, 4), (28, 2), (30, 4), (46, 4))
    others = [little_endian(read_bytes(photo, at, count)) for at, count in places]
    is_top_down = tf.logical_not(is_core) & (read_bytes(photo, 25, 1)[0] == 0xFF)
    others[0] = select(is_top_down, 2**32 - others[0], others[0])
    height, width, bits = (select(is_core, *values) for values in zip(core, others[:3], strict=True))
    compression, stated_colors = (select(is_core, 0, value) for value in others[3:])
    is_known = any_equal(header, _BMP_HEADERS) & any_equal(bits, _BMP_BITS) & (compression == 0)
    expected = "Expected a BMP of 1, 4, 8, 24 or 32 bits without compression. Received (header, bits, compression):"
    with require(is_known, expected, header, bits, compression), require_size(height, width):
        colors = select(stated_colors > 0, stated_colors, tf.bitwise.left_shift(int64(1), tf.minimum(bits, 8)))
        entry = select(is_core, 3, 4)
        table = 14 + header
        offset += select((offset == table) & (bits <= 8), entry * colors, 0)
        stride = (width * bits + 31) // 32 * 4
        end = offset + stride * height
        with require(end <= photo.size, "Expected a whole BMP. Received (size, size by its header):", photo.size, end):
            rows = tf.reshape(photo.padded[offset:end], tf.stack([height, stride]))
            image = tf.cond(
                bits <= 8,
                lambda: _indexed_pixels(rows, width, bits, photo.padded[table : table + entry * colors], entry),
                lambda: tf.reshape(rows[:, : width * (bits // 8)], tf.stack([height, width, bits // 8]))[..., 2::-1],
            )
            return tf.cond(is_top_down, lambda: image, lambda: image[::-1])


def _indexed_pixels(
    rows: tf.Tensor, width: tf.Tensor, bits: tf.Tensor, table: tf.Tensor, entry: tf.Tensor
) -> tf.Tensor:
    """uint8 [height, width, 3] of rows of 1-, 4- or 8-bit numbers of colours, blue first in the table."""
    shifts = tf.cast(tf.range(8 - bits, -1, -bits), tf.uint8)
    mask = tf.cast(tf.bitwise.left_shift(int64(1), bits) - 1, tf.uint8)
    samples = tf.bitwise.right_shift(rows[..., None], shifts) & mask
    samples = tf.reshape(samples, [tf.shape(rows)[0], -1])[:, :width]
    palette = full_palette(tf.reshape(table, tf.stack([-1, entry]))[:256, 2::-1])
    return tf.gather(palette, tf.cast(samples, tf.int32))
