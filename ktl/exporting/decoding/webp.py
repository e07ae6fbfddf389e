"""WebP: the first frame.

Reference:
    RFC 9649.
"""

import tensorflow as tf

from ktl.exporting.decoding.exif import orientation_of, turn_upright
from ktl.exporting.decoding.photo_bytes import (
    PhotoBytes,
    Segment,
    equal,
    find_segment,
    has,
    int64,
    little_endian,
    read_bytes,
    require_size,
    select,
    splice,
)
from ktl.exporting.decoding.pixels import on_white

_WEBP_ANIMATION, _WEBP_ALPHA = 0x02, 0x10


def decode_webp(encoded: tf.Tensor, photo: PhotoBytes) -> tf.Tensor:
    """The pixels of a WebP's first frame."""
    is_lossy, is_lossless, is_extended = (has(photo, 12, name) for name in (b"VP8 ", b"VP8L", b"VP8X"))
    flags = select(is_extended, read_bytes(photo, 20, 1)[0], 0)
    lossless_size = little_endian(read_bytes(photo, 21, 4))
    sizes = (
        (is_lossy, little_endian(read_bytes(photo, 28, 2)) & 0x3FFF, little_endian(read_bytes(photo, 26, 2)) & 0x3FFF),
        (is_lossless, (lossless_size // 2**14 & 0x3FFF) + 1, (lossless_size & 0x3FFF) + 1),
        (is_extended, little_endian(read_bytes(photo, 27, 3)) + 1, little_endian(read_bytes(photo, 24, 3)) + 1),
    )
    height = width = int64(0)
    for applies, its_height, its_width in sizes:
        height, width = select(applies, its_height, height), select(applies, its_width, width)
    exif = find_segment(photo, 12, _webp_exif)
    with require_size(height, width):
        is_opaque_animation = (flags & (_WEBP_ANIMATION | _WEBP_ALPHA)) == _WEBP_ANIMATION
        image = tf.cond(
            is_opaque_animation,
            lambda: _decode_opaque_animation(encoded, flags),
            lambda: _decode_webp_frame(encoded),
        )
    return turn_upright(image, orientation_of(exif))


def _decode_webp_frame(encoded: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_image(encoded, expand_animations=False)
    return tf.cond(tf.shape(image)[2] == 4, lambda: on_white(image), lambda: image)


def _decode_opaque_animation(encoded: tf.Tensor, flags: tf.Tensor) -> tf.Tensor:
    # TensorFlow 2.21 writes four channels into memory for three, and crashes, unless the file says that it has alpha.
    claims_alpha = tf.gather([bytes([value]) for value in range(256)], flags | _WEBP_ALPHA)
    return tf.io.decode_image(splice(encoded, 20, 21, claims_alpha), expand_animations=False)[..., :3]


def _webp_exif(photo: PhotoBytes, position: tf.Tensor) -> Segment:
    head = read_bytes(photo, position, 8)
    end = position + 8 + little_endian(head[4:])
    return Segment(wanted=equal(head[:4], b"EXIF"), start=position + 8, end=end, following=end + (end & 1))
