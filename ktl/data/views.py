"""What a network sees of a photo: shrunk, then cut. Pixels are uint8 in 0..255; the filter is TensorFlow's."""

import functools

import numpy as np
import tensorflow as tf

from ktl.data.images import decode, large_one_by_one

EVALUATION_CROP = 0.875
"""Side of the centre crop / short side of the shrunk photo: 224 / 256, as is usual for ImageNet."""

MAX_ASPECT = 4
"""A photo longer than this many times its short side is cut. Resized to a short side of 256 pixels, a photo of 3000 x 1
pixels would take 590 MB."""


def shrunk_side(image_size: int) -> int:
    """The short side, in pixels, of the shrunk photo that views of `image_size` are cut from."""
    return round(image_size / EVALUATION_CROP)


def shrink(image, *, short_side: int) -> tf.Tensor:
    """Resizes a photo, up or down, so that its short side has a given length; the aspect ratio stays.

    The result is that of `tf.image.resize(method="bilinear", antialias=True)`, rounded. Pillow's BILINEAR filter gives
    the same within one grey level. A photo longer than `MAX_ASPECT` times its short side loses its ends: no centre crop
    shows them.

    Args:
        image: uint8 [height, width, 3].
        short_side: pixels.

    Returns:
        uint8 [height', width', 3] with min(height', width') == short_side.
    """
    image = tf.convert_to_tensor(image)
    longest = MAX_ASPECT * tf.reduce_min(tf.shape(image)[:2])
    image = _cut(image, tf.minimum(tf.shape(image)[:2], longest))
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    size = tf.cast(tf.round(size * (tf.cast(short_side, tf.float32) / tf.reduce_min(size))), tf.int32)
    return tf.cast(tf.round(tf.image.resize(image, size, antialias=True)), tf.uint8)


def centre_crop(image, *, size: int):
    """The central size x size pixels of a photo.

    Args:
        image: uint8 [height, width, 3], both sides at least `size`: an array or a tensor.
        size: pixels.

    Returns:
        uint8 [size, size, 3]: of an array, a part that shares its memory; of a tensor, a tensor.
    """
    return _cut(image, [size, size])


def evaluation_view(image, *, size: int) -> tf.Tensor:
    """What a network sees of a photo, except in training: the photo is shrunk, then its central square is taken.

    The short side of the shrunk photo is `size / EVALUATION_CROP` pixels.

    Args:
        image: uint8 [height, width, 3], any size.
        size: pixels.

    Returns:
        uint8 [size, size, 3].
    """
    return tf.ensure_shape(centre_crop(shrink(image, short_side=shrunk_side(size)), size=size), [size, size, 3])


def view_of(encoded: bytes, *, size: int) -> np.ndarray:
    """The evaluation view of an encoded photo: uint8 [size, size, 3]. Several threads may call this at a time.

    Raises:
        BadPhoto: the photo cannot be decoded.
    """
    with large_one_by_one(encoded):
        return view_of_pixels(decode(encoded), size=size)


def view_of_pixels(pixels: np.ndarray, *, size: int) -> np.ndarray:
    """The evaluation view of pixels, uint8 [height, width, 3]: uint8 [size, size, 3]. As safe as `view_of`."""
    with tf.device("CPU"):  # TensorFlow has no GPU kernel for this filter.
        return _traced_view(size)(pixels).numpy()


@functools.cache
def _traced_view(size: int):
    pixels = tf.TensorSpec([None, None, 3], tf.uint8)
    return tf.function(lambda image: evaluation_view(image, size=size), input_signature=[pixels])


def _cut(image, size):
    shape = image.shape if isinstance(image, np.ndarray) else tf.shape(image)
    top, left = (shape[0] - size[0]) // 2, (shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]
