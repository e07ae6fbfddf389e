"""The EXIF orientation, and pixels turned by it.

Reference:
    CIPA DC-008 (Exif 2.32), section 4.6.
"""

# TensorFlow's type stubs know no "..." in an index, and no tensors in the place of sizes.
# pyright: reportArgumentType=false

import tensorflow as tf

from ktl.exporting.decoding.photo_bytes import (
    PhotoBytes,
    big_endian,
    has,
    little_endian,
    read_bytes,
    select,
)

_TURNS = (
    # transposed, then rows reversed, columns reversed; by EXIF orientation, which starts at 1
    (False, False, False),
    (False, False, False),
    (False, False, True),
    (False, True, True),
    (False, True, False),
    (True, False, False),
    (True, False, True),
    (True, True, True),
    (True, True, False),
)

_ORIENTATION = 0x0112
_SHORT = 3

EXIF = b"Exif\0\0"


def orientation_of(exif: PhotoBytes) -> tf.Tensor:
    """1 to 8; 1 for a block that is missing or damaged."""
    start = select(has(exif, 0, EXIF), len(EXIF), 0)
    is_little, is_big = has(exif, start, b"II\x2a\0"), has(exif, start, b"MM\0\x2a")

    def integer(digits):
        return select(is_big, big_endian(digits), little_endian(digits))

    directory = start + integer(read_bytes(exif, start + 4, 4))
    count = integer(read_bytes(exif, directory, 2))
    first = tf.minimum(directory + 2, exif.size)
    count = select(is_little | is_big, tf.minimum(count, (exif.size - first) // 12), 0)
    entries = tf.cast(tf.reshape(exif.padded[first : first + 12 * count], [-1, 12]), tf.int64)
    tag, kind, values, value = (integer(entries[:, at:to]) for at, to in ((0, 2), (2, 4), (4, 8), (8, 10)))
    stated = tf.boolean_mask(value, (tag == _ORIENTATION) & (kind == _SHORT) & (values == 1))
    orientation = tf.concat([stated, [1]], 0)[0]
    return select(orientation < len(_TURNS), orientation, 1)


def turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """uint8 [height, width, 3] as a viewer shows it, from an EXIF orientation of 1 to 8."""
    is_transposed, *is_reversed = tf.unstack(tf.gather(tf.constant(_TURNS), orientation))

    def turn():
        axes = tf.where(is_transposed, [1, 0, 2], [0, 1, 2])
        return tf.reverse(tf.transpose(image, axes), tf.boolean_mask([0, 1], tf.stack(is_reversed)))

    return tf.cond(orientation > 1, turn, lambda: image)
