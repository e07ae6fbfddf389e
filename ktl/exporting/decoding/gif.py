"""GIF: the first frame.

Reference:
    CompuServe GIF89a.
"""

# TensorFlow's type stubs know no "..." in an index, and no tensors in the place of sizes.
# pyright: reportArgumentType=false

import tensorflow as tf

from ktl.exporting.decoding.photo_bytes import (
    FAR,
    PhotoBytes,
    has,
    int64,
    little_endian,
    read_bytes,
    require,
    require_size,
    select,
)
from ktl.exporting.decoding.pixels import full_palette

_GIF_EXTENSION, _GIF_IMAGE, _GIF_GRAPHIC_CONTROL = 0x21, 0x2C, 0xF9
_GIF_INTERLACED, _GIF_COLOR_TABLE = 0x40, 0x80

_RAMP = bytes(value for value in range(256) for _ in range(3))
"""The palette that shows a colour's number as its grey level, as a GIF without a palette is shown."""

_MOST_BLOCKS = 65_536
"""A walk over a frame's blocks, of 255 bytes each, gives up after this many: 16 MB of compressed pixels."""

_MOST_EXTENSIONS, _MOST_EXTENSION_BLOCKS = 64, 1024
"""The same for what stands before the first frame."""


def decode_gif(encoded: tf.Tensor, photo: PhotoBytes) -> tf.Tensor:
    """The first frame, as a file of its own whose colours are numbers, so that one of them can be transparent."""
    screen = read_bytes(photo, 6, 5)
    colors = _gif_table_size(screen[4])
    image, transparent = _find_gif_image(photo, 13 + colors)
    frame = read_bytes(photo, image + 1, 9)
    left, top, width, height = (little_endian(frame[at : at + 2]) for at in (0, 2, 4, 6))
    own_colors = _gif_table_size(frame[8])
    pixels = image + 10 + own_colors
    end = _skip_gif_blocks(photo, pixels + 1, at_most=_MOST_BLOCKS)
    canvas = tf.maximum(little_endian(screen[2:4]), top + height), tf.maximum(little_endian(screen[:2]), left + width)
    is_whole = has(photo, image, bytes([_GIF_IMAGE])) & (end <= photo.size)
    with (
        require(is_whole, "Expected a GIF with a whole first frame of at most 16 MB. Received (size):", photo.size),
        require_size(*canvas),
    ):
        size = tf.strings.substr(encoded, image + 5, 4)
        interlaced = tf.where(frame[8] & _GIF_INTERLACED > 0, bytes([_GIF_INTERLACED]), b"\0")
        compressed = tf.strings.substr(encoded, pixels, end - pixels)
        numbered = [b"GIF89a", size, b"\xf7\0\0", _RAMP, b",\0\0\0\0", size, interlaced, compressed, b";"]
        indices = tf.io.decode_gif(tf.strings.join(numbered))[0, :, :, 0]
        # The rest of the canvas is transparent where anything is; else it has the first colour.
        around = [[top, canvas[0] - top - height], [left, canvas[1] - left - width]]
        indices = tf.pad(indices, around, constant_values=tf.cast(tf.maximum(transparent, 0), tf.uint8))
        position, count = tf.unstack(select(own_colors > 0, [image + 10, own_colors], [13, colors]))
        colors = tf.cond(
            count > 0, lambda: photo.padded[position : position + count], lambda: tf.io.decode_raw(_RAMP, tf.uint8)
        )
        palette = full_palette(tf.reshape(colors, [-1, 3]))
        palette = tf.where((tf.range(256, dtype=tf.int64) == transparent)[:, None], tf.constant(255, tf.uint8), palette)
        return tf.gather(palette, tf.cast(indices, tf.int32))


def _gif_table_size(flags: tf.Tensor) -> tf.Tensor:
    return select(flags & _GIF_COLOR_TABLE > 0, tf.bitwise.left_shift(int64(6), flags & 7), 0)


def _find_gif_image(photo: PhotoBytes, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the first block stands that is no extension, and the transparent colour's number, or -1."""

    def step(position, transparent):
        head = read_bytes(photo, position, 7)
        is_given = (head[1] == _GIF_GRAPHIC_CONTROL) & (head[3] & 1 == 1)
        position = _skip_gif_blocks(photo, position + 2, at_most=_MOST_EXTENSION_BLOCKS)
        return position, select(is_given, head[6], transparent)

    return tf.while_loop(
        lambda position, _: has(photo, position, bytes([_GIF_EXTENSION])),
        step,
        (position, int64(-1)),
        parallel_iterations=1,
        maximum_iterations=_MOST_EXTENSIONS,
    )


def _skip_gif_blocks(photo: PhotoBytes, position: tf.Tensor, *, at_most: int) -> tf.Tensor:
    """The position after a chain of blocks, each with its size before it, and the zero at its end."""

    def step(position, size):
        position = position + 1 + size
        return position, read_bytes(photo, position, 1)[0]

    position, size = tf.while_loop(
        lambda _, size: size > 0,
        step,
        (position, read_bytes(photo, position, 1)[0]),
        parallel_iterations=1,
        maximum_iterations=at_most,
    )
    return select(size > 0, FAR, position + 1)
