"""What a network sees of a photo, in TensorFlow operations alone: for models that are served without Python."""

import tensorflow as tf

from ktl.data.views import MAX_ASPECT, shrunk_side

_BITS = 22
"""Of a filter's weights behind the point: Pillow computes with whole numbers."""


def evaluation_view_in_graph(image: tf.Tensor, *, size: int) -> tf.Tensor:
    """What `ktl.data.views.evaluation_view` gives, to the bit, from operations that a SavedModel can hold.

    Args:
        image: uint8 [height, width, 3], any size.
        size: pixels.

    Returns:
        uint8 [size, size, 3].
    """
    with tf.device("CPU"):  # some of these operations have no GPU kernel
        return tf.ensure_shape(_cut(_shrink(image, short_side=shrunk_side(size)), [size, size]), [size, size, 3])


def _shrink(image: tf.Tensor, *, short_side: int) -> tf.Tensor:
    """See `ktl.data.views.shrink`."""
    sides = tf.shape(image)[:2]
    image = _cut(image, tf.minimum(sides, MAX_ASPECT * tf.reduce_min(sides)))
    lengths = tf.cast(tf.shape(image)[:2], tf.float32)
    height, width = tf.unstack(tf.cast(tf.round(lengths * (short_side / tf.reduce_min(lengths))), tf.int32))
    columns_first = tf.transpose(_resize(image, height), [1, 0, 2])
    return tf.transpose(_resize(columns_first, width), [1, 0, 2])


def _cut(image: tf.Tensor, size) -> tf.Tensor:
    shape = tf.shape(image)
    top, left = (shape[0] - size[0]) // 2, (shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]


def _resize(image: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Resizes columns, the first axis, as Pillow's BILINEAR does: with sums of whole numbers."""
    shape = tf.shape(image)
    indices, weights = _filter(shape[0], length)
    rows = tf.reshape(tf.cast(image, tf.int32), [shape[0], -1])
    sums = tf.raw_ops.SparseTensorDenseMatMul(
        a_indices=indices, a_values=weights, a_shape=tf.cast([length, shape[0]], tf.int64), b=rows
    )
    # At most 255: rounded up, weights would have to be of 16,000 pixels to give one more.
    levels = tf.bitwise.right_shift(sums + (1 << (_BITS - 1)), _BITS)
    return tf.reshape(tf.cast(levels, tf.uint8), [length, shape[1], 3])


def _filter(count: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Of which of the `count` old pixels each of the `length` new ones is made: int64 [n, 2], pairs (new, old); and
    their weights, int32 [n]. The weights of a new one are 2 ** _BITS together, up to rounding."""
    scale = tf.cast(count, tf.float64) / tf.cast(length, tf.float64)
    support = tf.maximum(scale, 1.0)
    centres = (tf.cast(tf.range(length), tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(centres - support + 0.5, tf.int32), 0)
    end = tf.minimum(tf.cast(centres + support + 0.5, tf.int32), count)
    old = first[:, None] + tf.range(2 * tf.cast(tf.math.ceil(support), tf.int32) + 1)
    distances = tf.abs((tf.cast(old, tf.float64) - centres[:, None] + 0.5) * (1.0 / support))
    triangle = tf.where(old < end[:, None], tf.maximum(1.0 - distances, 0.0), 0.0)
    shares = triangle / tf.reduce_sum(triangle, axis=1, keepdims=True)
    pairs = tf.where(triangle > 0)  # (new, place among its old ones)
    weights = tf.cast(0.5 + tf.gather_nd(shares, pairs) * (1 << _BITS), tf.int32)
    return tf.stack([pairs[:, 0], tf.cast(tf.gather_nd(old, pairs), tf.int64)], axis=1), weights
