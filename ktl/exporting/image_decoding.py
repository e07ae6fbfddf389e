"""Encoded photo -> upright RGB pixels in TensorFlow operations alone, for models that are served without Python."""

from functools import partial

import tensorflow as tf

from ktl.exporting.decoding.bmp import decode_bmp
from ktl.exporting.decoding.gif import decode_gif
from ktl.exporting.decoding.jpeg import decode_jpeg
from ktl.exporting.decoding.photo_bytes import has, read_bytes, require, to_photo_bytes
from ktl.exporting.decoding.png import decode_png
from ktl.exporting.decoding.webp import decode_webp


def decode_in_graph(encoded: tf.Tensor) -> tf.Tensor:
    """The pixels that `ktl.data.images.decode` gives, from TensorFlow operations that a SavedModel can hold.

    The first frame of an animation; JPEG, PNG and WebP turned upright by their EXIF orientation; transparency on white;
    the high byte of 16 bits. Equal to `ktl.data.images.decode` to the bit, except that

    - a CMYK JPEG may differ by one grey level (TensorFlow cuts off where Pillow rounds);
    - an orientation that only XMP or a PNG's text chunks state is not applied, nor one that is not a single SHORT, as
      EXIF has it, nor one behind 10,000 segments or chunks;
    - a PNG of 16-bit RGB with one transparent colour (tRNS) is decoded as its specification says; Pillow compares that
      colour wrongly, as it does that of 2- and 4-bit grey, which is repeated here;
    - of several eXIf chunks of a PNG the first counts, for Pillow the last;
    - a GIF frame of more than 65,536 blocks (16 MB), and a compressed, 16-bit or bit-masked BMP are refused;
    - some damaged photos are refused that Pillow decodes, others the other way round, and an intact orientation in a
      damaged EXIF block is applied, which Pillow may not reach.

    Neither animations nor sizes reach TensorFlow's decoders unchecked: these hold all frames of an animation at once,
    and TensorFlow 2.21's writes beyond its memory for a WebP animation without alpha.

    Args:
        encoded: string scalar, the bytes of a JPEG, PNG, GIF, BMP or WebP file.

    Returns:
        uint8 [height, width, 3], RGB.

    Raises:
        tf.errors.InvalidArgumentError: when run; not a photo, damaged, or more than `2 * PIL.Image.MAX_IMAGE_PIXELS`
            pixels (as of the call or trace), which is known before any pixel is decoded.

    Reference:
        CIPA DC-008 (Exif 2.32), section 4.6; ITU-T T.81 (JPEG), annex B; W3C PNG, third edition; CompuServe GIF89a;
        RFC 9649 (WebP).
    """
    # Walks over headers would be slow on a GPU, one tiny kernel after another.
    with tf.device("CPU"):
        return _decode(tf.ensure_shape(tf.convert_to_tensor(encoded, tf.string), []))


def _decode(encoded: tf.Tensor) -> tf.Tensor:
    photo = to_photo_bytes(tf.io.decode_raw(encoded, tf.uint8))
    is_format = tf.stack([tf.reduce_all([has(photo, *magic) for magic in magics]) for magics, _ in DECODERS])
    expected = "Expected the bytes of a JPEG, PNG, GIF, BMP or WebP photo. Received (size, first bytes):"
    with require(tf.reduce_any(is_format), expected, photo.size, read_bytes(photo, 0, 12)):
        index = tf.argmax(tf.cast(is_format, tf.int32), output_type=tf.int32)
        image = tf.switch_case(index, [partial(decoder, encoded, photo) for _, decoder in DECODERS])
    return tf.ensure_shape(image, [None, None, 3])


DECODERS = (
    (((0, b"\xff\xd8\xff"),), decode_jpeg),
    (((0, b"\x89PNG\r\n\x1a\n"),), decode_png),
    (((0, b"GIF8"), (5, b"a")), decode_gif),
    (((0, b"BM"),), decode_bmp),
    (((0, b"RIFF"), (8, b"WEBP")), decode_webp),
)
"""Which bytes stand where, and the decoder of a photo that has them."""
