"""A photo's bytes as a tensor: reading at positions, integers, walks over segments, what must hold."""

# TensorFlow's type stubs know no "..." in an index, and no tensors in the place of sizes.
# pyright: reportArgumentType=false

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
from PIL import Image

TAIL = 16
"""Zeros after the photo's bytes, so that the short reads of headers never leave the tensor."""

MOST_SEGMENTS = 10_000
"""A walk over JPEG segments, PNG or WebP chunks gives up after this many: about a second for a malicious file."""

FAR = 1 << 40
"""A position beyond the end of any photo."""


class PhotoBytes(NamedTuple):
    """A photo's bytes, or a part of them."""

    padded: tf.Tensor
    """uint8 [size + TAIL]: the bytes, then zeros."""
    size: tf.Tensor
    """int64 scalar."""


class Segment(NamedTuple):
    """A segment of a JPEG, or a chunk of a PNG or WebP. Positions are int64 scalars."""

    wanted: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor
    following: tf.Tensor


def to_photo_bytes(values: tf.Tensor) -> PhotoBytes:
    """The bytes as read here, from uint8 [size]."""
    return PhotoBytes(tf.pad(values, [[0, TAIL]]), tf.size(values, out_type=tf.int64))


def read_bytes(photo: PhotoBytes, position, count: int) -> tf.Tensor:
    """int64 [count <= TAIL], zeros beyond the end."""
    position = tf.minimum(tf.cast(position, tf.int64), photo.size)
    return tf.ensure_shape(tf.cast(photo.padded[position : position + count], tf.int64), [count])


def has(photo: PhotoBytes, position, expected: bytes) -> tf.Tensor:
    """Whether the photo has these bytes at that position."""
    return equal(read_bytes(photo, position, len(expected)), expected)


def equal(values: tf.Tensor, expected: bytes) -> tf.Tensor:
    """Whether int64 [count] are these bytes."""
    return tf.reduce_all(values == int64(list(expected)))


def any_equal(value: tf.Tensor, allowed: tuple[int, ...]) -> tf.Tensor:
    """Whether the value is one of these."""
    return tf.reduce_any(value == int64(allowed))


def select(condition: tf.Tensor, value, otherwise) -> tf.Tensor:
    """`tf.where` of int64, which takes Python's integers too."""
    return tf.where(condition, int64(value), int64(otherwise))


def int64(value) -> tf.Tensor:
    """The value as int64: positions and sizes fit in no less."""
    return tf.cast(value, tf.int64)


def big_endian(digits: tf.Tensor) -> tf.Tensor:
    """The integer of the last axis' bytes, the most significant first."""
    places = int64([256**place for place in reversed(range(digits.shape[-1]))])
    return tf.reduce_sum(digits * places, -1)


def little_endian(digits: tf.Tensor) -> tf.Tensor:
    """The integer of the last axis' bytes, the least significant first."""
    return big_endian(digits[..., ::-1])


def splice(encoded: tf.Tensor, start: int, end: int, inserted) -> tf.Tensor:
    """The bytes with those from `start` to `end` replaced."""
    return tf.strings.join([tf.strings.substr(encoded, 0, start), inserted, tf.strings.substr(encoded, end, -1)])


def require(condition: tf.Tensor, message: str, *received: tf.Tensor):
    """What is built in this context runs only if the condition holds."""
    return tf.control_dependencies([tf.debugging.Assert(condition, [message, *received], summarize=16)])


def require_size(height: tf.Tensor, width: tf.Tensor):
    """As `require`, that a photo has at least one pixel and no more than Pillow decodes."""
    most = 2 * Image.MAX_IMAGE_PIXELS  # pyright: ignore[reportOperatorIssue]
    # float64: two sides of 32 bits each overflow 64, and what decides is exact.
    pixels = tf.cast(height, tf.float64) * tf.cast(width, tf.float64)
    message = f"Expected a photo of at most {most:,} pixels, and of at least one. Received (height, width):"
    return require((pixels > 0) & (pixels <= most), message, height, width)


def find_segment(photo: PhotoBytes, position: int, read: Callable[[PhotoBytes, tf.Tensor], Segment]) -> PhotoBytes:
    """The content of the first segment that is wanted; no bytes if there is none."""

    def step(position, start, end):
        segment = read(photo, position)
        return (
            select(segment.wanted, FAR, segment.following),
            select(segment.wanted, segment.start, start),
            select(segment.wanted, segment.end, end),
        )

    _, start, end = tf.while_loop(
        lambda position, *_: position < photo.size,
        step,
        (int64(position), int64(0), int64(0)),
        parallel_iterations=1,
        maximum_iterations=MOST_SEGMENTS,
    )
    return to_photo_bytes(photo.padded[start : tf.minimum(end, photo.size)])
