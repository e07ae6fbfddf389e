"""JPEG.

Reference:
    ITU-T T.81, annex B.
"""

import tensorflow as tf

from ktl.exporting.decoding.exif import EXIF, orientation_of, turn_upright
from ktl.exporting.decoding.photo_bytes import (
    FAR,
    PhotoBytes,
    Segment,
    big_endian,
    equal,
    find_segment,
    int64,
    read_bytes,
    require_size,
    select,
    splice,
)

_APP1 = 0xE1

_MARKER_STEPS = {
    **dict.fromkeys((0x00, 0xFF), 1),  # an escape, padding
    **dict.fromkeys((0x01, *range(0xD0, 0xD9)), 2),
    **dict.fromkeys((0xD9, 0xDA), FAR),  # the end; the scan, which no EXIF follows
}
"""How many bytes after a JPEG's marker of that number the next one stands; by the length that follows all others."""

_ADOBE_MARKER = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
"""Version 100, no flags, no colour transform. A marker that the file has itself comes later, and so prevails."""


def decode_jpeg(encoded: tf.Tensor, photo: PhotoBytes) -> tf.Tensor:
    """The pixels of a JPEG."""
    height, width, channels = tf.unstack(tf.cast(tf.io.extract_jpeg_shape(encoded), tf.int64))
    exif = find_segment(photo, 2, _jpeg_exif)
    with require_size(height, width):
        # CMYK without Adobe's marker is inverted all the same, as viewers have it.
        encoded = tf.cond(channels == 4, lambda: splice(encoded, 2, 2, _ADOBE_MARKER), lambda: encoded)
        image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return turn_upright(image, orientation_of(exif))


def _jpeg_exif(photo: PhotoBytes, position: tf.Tensor) -> Segment:
    head = read_bytes(photo, position, 10)
    is_marker = head[0] == 0xFF
    end = position + 2 + tf.maximum(big_endian(head[2:4]), 2)
    steps = [_MARKER_STEPS.get(marker, 0) for marker in range(256)]
    # Decoders skip junk between segments.
    step = select(is_marker, tf.gather(int64(steps), head[1]), 1)
    return Segment(
        wanted=is_marker & (head[1] == _APP1) & equal(head[4:], EXIF),
        start=position + 4,
        end=end,
        following=select(step > 0, position + step, end),
    )
