"""Encoded photo -> upright RGB pixels in TensorFlow operations alone, for models that are served without Python."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import tensorflow as tf
from PIL import Image

_TAIL = 16
"""Zeros after the photo's bytes, so that the short reads of headers never leave the tensor."""

_MOST_SEGMENTS = 10_000
"""A walk over JPEG segments, PNG or WebP chunks gives up after this many: about a second for a malicious file."""

_MOST_BLOCKS = 65_536
"""The same for the blocks of a GIF's frame, which have 255 bytes each: 16 MB of compressed pixels."""

_MOST_EXTENSIONS, _MOST_EXTENSION_BLOCKS = 64, 1024
"""The same for what stands before a GIF's first frame."""

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

_EXIF = b"Exif\0\0"
_APP1 = 0xE1
_FAR = 1 << 40
"""A position beyond the end of any photo."""

_MARKER_STEPS = {
    **dict.fromkeys((0x00, 0xFF), 1),  # an escape, padding
    **dict.fromkeys((0x01, *range(0xD0, 0xD9)), 2),
    **dict.fromkeys((0xD9, 0xDA), _FAR),  # the end; the scan, which no EXIF follows
}
"""How many bytes after a JPEG's marker of that number the next one stands; by the length that follows all others."""

_ADOBE_MARKER = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
"""Version 100, no flags, no colour transform. A marker that the file has itself comes later, and so prevails."""

_PNG_GREY, _PNG_GREY_ALPHA, _PNG_RGB_ALPHA = 0, 4, 6

_WEBP_ANIMATION, _WEBP_ALPHA = 0x02, 0x10

_GIF_EXTENSION, _GIF_IMAGE, _GIF_GRAPHIC_CONTROL = 0x21, 0x2C, 0xF9
_GIF_INTERLACED, _GIF_COLOR_TABLE = 0x40, 0x80

_RAMP = bytes(value for value in range(256) for _ in range(3))
"""The palette that shows a colour's number as its grey level, as a GIF without a palette is shown."""

_BMP_CORE_HEADER = 12
_BMP_HEADERS = (_BMP_CORE_HEADER, 40, 52, 56, 64, 108, 124)
_BMP_BITS = (1, 4, 8, 24, 32)


class _Bytes(NamedTuple):
    """A photo's bytes, or a part of them."""

    padded: tf.Tensor
    """uint8 [size + _TAIL]: the bytes, then zeros."""
    size: tf.Tensor
    """int64 scalar."""


class _Segment(NamedTuple):
    """A segment of a JPEG, or a chunk of a PNG or WebP. Positions are int64 scalars."""

    wanted: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor
    following: tf.Tensor


def decode_in_graph(encoded: tf.Tensor) -> tf.Tensor:
    """The pixels that `ktl.data.images.decode` gives, from TensorFlow operations that a SavedModel can hold.

    The first frame of an animation; JPEG, PNG and WebP turned upright by their EXIF orientation; transparency on white;
    the high byte of 16 bits. Equal to `ktl.data.images.decode` to the bit, except that

    - a CMYK JPEG may differ by one grey level (TensorFlow cuts off where Pillow rounds);
    - an orientation that only XMP or a PNG's text chunks state is not applied, nor one that is not a single SHORT, as
      EXIF has it, nor one behind 10,000 segments or chunks;
    - a PNG with one transparent colour (tRNS) is decoded as its specification says; Pillow compares that colour wrongly
      in 2- and 4-bit grey and in 16-bit RGB;
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
    photo = _padded(tf.io.decode_raw(encoded, tf.uint8))
    is_format = tf.stack([tf.reduce_all([_has(photo, *magic) for magic in magics]) for magics, _ in _FORMATS])
    expected = "Expected the bytes of a JPEG, PNG, GIF, BMP or WebP photo. Received (size, first bytes):"
    with _require(tf.reduce_any(is_format), expected, photo.size, _read(photo, 0, 12)):
        index = tf.argmax(tf.cast(is_format, tf.int32), output_type=tf.int32)
        image = tf.switch_case(index, [partial(decoder, encoded, photo) for _, decoder in _FORMATS])
    return tf.ensure_shape(image, [None, None, 3])


def _decode_jpeg(encoded: tf.Tensor, photo: _Bytes) -> tf.Tensor:
    height, width, channels = tf.unstack(tf.cast(tf.io.extract_jpeg_shape(encoded), tf.int64))
    exif = _find(photo, 2, _jpeg_exif)
    with _require_size(height, width):
        # CMYK without Adobe's marker is inverted all the same, as viewers have it.
        encoded = tf.cond(channels == 4, lambda: _splice(encoded, 2, 2, _ADOBE_MARKER), lambda: encoded)
        image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return _turn_upright(image, _orientation(exif))


def _jpeg_exif(photo: _Bytes, position: tf.Tensor) -> _Segment:
    head = _read(photo, position, 10)
    is_marker = head[0] == 0xFF
    end = position + 2 + tf.maximum(_big(head[2:4]), 2)
    steps = [_MARKER_STEPS.get(marker, 0) for marker in range(256)]
    # Decoders skip junk between segments.
    step = _select(is_marker, tf.gather(_int64(steps), head[1]), 1)
    return _Segment(
        wanted=is_marker & (head[1] == _APP1) & _equal(head[4:], _EXIF),
        start=position + 4,
        end=end,
        following=_select(step > 0, position + step, end),
    )


def _decode_png(encoded: tf.Tensor, photo: _Bytes) -> tf.Tensor:
    width, height = _big(_read(photo, 16, 4)), _big(_read(photo, 20, 4))
    depth, color = tf.unstack(_read(photo, 24, 2))
    transparency = _find(photo, 8, partial(_png_chunk, name=b"tRNS", last=b"IDAT"))
    exif = _find(photo, 8, partial(_png_chunk, name=b"eXIf", last=b"IEND"))
    # Not four channels for all: without alpha and with fewer than 8 bits, TensorFlow gives an alpha of 1, 3 or 15.
    # Pillow's 16-bit grey has no transparency.
    has_color_key = (transparency.size > 0) & ((depth < 16) | (color != _PNG_GREY))
    has_alpha = has_color_key | (color == _PNG_GREY_ALPHA) | (color == _PNG_RGB_ALPHA)
    with (
        _require(_has(photo, 12, b"IHDR"), "Expected a PNG that starts with its header. Received (size):", photo.size),
        _require_size(height, width),
    ):
        image = tf.cond(
            has_alpha,
            lambda: _on_white(tf.io.decode_png(encoded, channels=4)),
            lambda: tf.io.decode_png(encoded, channels=3),
        )
    return _turn_upright(image, _orientation(exif))


def _png_chunk(photo: _Bytes, position: tf.Tensor, *, name: bytes, last: bytes) -> _Segment:
    head = _read(photo, position, 8)
    end = position + 8 + _big(head[:4])
    return _Segment(
        wanted=_equal(head[4:], name),
        start=position + 8,
        end=end,
        following=_select(_equal(head[4:], last), _FAR, end + 4),
    )


def _decode_webp(encoded: tf.Tensor, photo: _Bytes) -> tf.Tensor:
    is_lossy, is_lossless, is_extended = (_has(photo, 12, name) for name in (b"VP8 ", b"VP8L", b"VP8X"))
    flags = _select(is_extended, _read(photo, 20, 1)[0], 0)
    lossless_size = _little(_read(photo, 21, 4))
    sizes = (
        (is_lossy, _little(_read(photo, 28, 2)) & 0x3FFF, _little(_read(photo, 26, 2)) & 0x3FFF),
        (is_lossless, (lossless_size // 2**14 & 0x3FFF) + 1, (lossless_size & 0x3FFF) + 1),
        (is_extended, _little(_read(photo, 27, 3)) + 1, _little(_read(photo, 24, 3)) + 1),
    )
    height = width = _int64(0)
    for applies, its_height, its_width in sizes:
        height, width = _select(applies, its_height, height), _select(applies, its_width, width)
    exif = _find(photo, 12, _webp_exif)
    with _require_size(height, width):
        is_opaque_animation = (flags & (_WEBP_ANIMATION | _WEBP_ALPHA)) == _WEBP_ANIMATION
        image = tf.cond(
            is_opaque_animation,
            lambda: _decode_opaque_animation(encoded, flags),
            lambda: _decode_webp_frame(encoded),
        )
    return _turn_upright(image, _orientation(exif))


def _decode_webp_frame(encoded: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_image(encoded, expand_animations=False)
    return tf.cond(tf.shape(image)[2] == 4, lambda: _on_white(image), lambda: image)


def _decode_opaque_animation(encoded: tf.Tensor, flags: tf.Tensor) -> tf.Tensor:
    # TensorFlow 2.21 writes four channels into memory for three, and crashes, unless the file says that it has alpha.
    claims_alpha = tf.gather([bytes([value]) for value in range(256)], flags | _WEBP_ALPHA)
    return tf.io.decode_image(_splice(encoded, 20, 21, claims_alpha), expand_animations=False)[..., :3]


def _webp_exif(photo: _Bytes, position: tf.Tensor) -> _Segment:
    head = _read(photo, position, 8)
    end = position + 8 + _little(head[4:])
    return _Segment(wanted=_equal(head[:4], b"EXIF"), start=position + 8, end=end, following=end + (end & 1))


def _decode_gif(encoded: tf.Tensor, photo: _Bytes) -> tf.Tensor:
    """The first frame, as a file of its own whose colours are numbers, so that one of them can be transparent."""
    screen = _read(photo, 6, 5)
    colors = _gif_table_size(screen[4])
    image, transparent = _find_gif_image(photo, 13 + colors)
    frame = _read(photo, image + 1, 9)
    left, top, width, height = (_little(frame[at : at + 2]) for at in (0, 2, 4, 6))
    own_colors = _gif_table_size(frame[8])
    pixels = image + 10 + own_colors
    end = _skip_gif_blocks(photo, pixels + 1, at_most=_MOST_BLOCKS)
    canvas = tf.maximum(_little(screen[2:4]), top + height), tf.maximum(_little(screen[:2]), left + width)
    is_whole = _has(photo, image, bytes([_GIF_IMAGE])) & (end <= photo.size)
    with (
        _require(is_whole, "Expected a GIF with a whole first frame of at most 16 MB. Received (size):", photo.size),
        _require_size(*canvas),
    ):
        size = tf.strings.substr(encoded, image + 5, 4)
        interlaced = tf.where(frame[8] & _GIF_INTERLACED > 0, bytes([_GIF_INTERLACED]), b"\0")
        compressed = tf.strings.substr(encoded, pixels, end - pixels)
        numbered = [b"GIF89a", size, b"\xf7\0\0", _RAMP, b",\0\0\0\0", size, interlaced, compressed, b";"]
        indices = tf.io.decode_gif(tf.strings.join(numbered))[0, :, :, 0]
        # The rest of the canvas is transparent where anything is; else it has the first colour.
        around = [[top, canvas[0] - top - height], [left, canvas[1] - left - width]]
        indices = tf.pad(indices, around, constant_values=tf.cast(tf.maximum(transparent, 0), tf.uint8))
        position, count = tf.unstack(_select(own_colors > 0, [image + 10, own_colors], [13, colors]))
        colors = tf.cond(
            count > 0, lambda: photo.padded[position : position + count], lambda: tf.io.decode_raw(_RAMP, tf.uint8)
        )
        palette = _palette(tf.reshape(colors, [-1, 3]))
        palette = tf.where((tf.range(256, dtype=tf.int64) == transparent)[:, None], tf.constant(255, tf.uint8), palette)
        return tf.gather(palette, tf.cast(indices, tf.int32))


def _gif_table_size(flags: tf.Tensor) -> tf.Tensor:
    return _select(flags & _GIF_COLOR_TABLE > 0, tf.bitwise.left_shift(_int64(6), flags & 7), 0)


def _find_gif_image(photo: _Bytes, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the first block stands that is no extension, and the transparent colour's number, or -1."""

    def step(position, transparent):
        head = _read(photo, position, 7)
        is_given = (head[1] == _GIF_GRAPHIC_CONTROL) & (head[3] & 1 == 1)
        position = _skip_gif_blocks(photo, position + 2, at_most=_MOST_EXTENSION_BLOCKS)
        return position, _select(is_given, head[6], transparent)

    return tf.while_loop(
        lambda position, _: _has(photo, position, bytes([_GIF_EXTENSION])),
        step,
        (position, _int64(-1)),
        parallel_iterations=1,
        maximum_iterations=_MOST_EXTENSIONS,
    )


def _skip_gif_blocks(photo: _Bytes, position: tf.Tensor, *, at_most: int) -> tf.Tensor:
    """The position after a chain of blocks, each with its size before it, and the zero at its end."""

    def step(position, size):
        position = position + 1 + size
        return position, _read(photo, position, 1)[0]

    position, size = tf.while_loop(
        lambda _, size: size > 0,
        step,
        (position, _read(photo, position, 1)[0]),
        parallel_iterations=1,
        maximum_iterations=at_most,
    )
    return _select(size > 0, _FAR, position + 1)


def _decode_bmp(encoded: tf.Tensor, photo: _Bytes) -> tf.Tensor:
    """Not TensorFlow's decoder, which shows the numbers of a palette's colours as grey levels."""
    del encoded
    offset, header = _little(_read(photo, 10, 4)), _little(_read(photo, 14, 4))
    is_core = header == _BMP_CORE_HEADER
    core = [_little(_read(photo, at, 2)) for at in (20, 18, 24)]
    others = [_little(_read(photo, at, count)) for at, count in ((22, 4), (18, 4), (28, 2), (30, 4), (46, 4))]
    is_top_down = ~is_core & (_read(photo, 25, 1)[0] == 0xFF)
    others[0] = _select(is_top_down, 2**32 - others[0], others[0])
    height, width, bits = (_select(is_core, *values) for values in zip(core, others[:3], strict=True))
    compression, stated_colors = (_select(is_core, 0, value) for value in others[3:])
    is_known = _any_equal(header, _BMP_HEADERS) & _any_equal(bits, _BMP_BITS) & (compression == 0)
    expected = "Expected a BMP of 1, 4, 8, 24 or 32 bits without compression. Received (header, bits, compression):"
    with _require(is_known, expected, header, bits, compression), _require_size(height, width):
        colors = _select(stated_colors > 0, stated_colors, tf.bitwise.left_shift(_int64(1), tf.minimum(bits, 8)))
        entry = _select(is_core, 3, 4)
        table = 14 + header
        offset += _select((offset == table) & (bits <= 8), entry * colors, 0)
        stride = (width * bits + 31) // 32 * 4
        end = offset + stride * height
        with _require(end <= photo.size, "Expected a whole BMP. Received (size, size by its header):", photo.size, end):
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
    mask = tf.cast(tf.bitwise.left_shift(_int64(1), bits) - 1, tf.uint8)
    samples = tf.bitwise.right_shift(rows[..., None], shifts) & mask
    samples = tf.reshape(samples, [tf.shape(rows)[0], -1])[:, :width]
    palette = _palette(tf.reshape(table, tf.stack([-1, entry]))[:256, 2::-1])
    return tf.gather(palette, tf.cast(samples, tf.int32))


_FORMATS = (
    (((0, b"\xff\xd8\xff"),), _decode_jpeg),
    (((0, b"\x89PNG\r\n\x1a\n"),), _decode_png),
    (((0, b"GIF8"), (5, b"a")), _decode_gif),
    (((0, b"BM"),), _decode_bmp),
    (((0, b"RIFF"), (8, b"WEBP")), _decode_webp),
)
"""Which bytes stand where, and the decoder of a photo that has them."""


def _find(photo: _Bytes, position: int, read: Callable[[_Bytes, tf.Tensor], _Segment]) -> _Bytes:
    """The content of the first segment that is wanted; no bytes if there is none."""

    def step(position, start, end):
        segment = read(photo, position)
        return (
            _select(segment.wanted, _FAR, segment.following),
            _select(segment.wanted, segment.start, start),
            _select(segment.wanted, segment.end, end),
        )

    _, start, end = tf.while_loop(
        lambda position, *_: position < photo.size,
        step,
        (_int64(position), _int64(0), _int64(0)),
        parallel_iterations=1,
        maximum_iterations=_MOST_SEGMENTS,
    )
    return _padded(photo.padded[start : tf.minimum(end, photo.size)])


def _orientation(exif: _Bytes) -> tf.Tensor:
    """1 to 8; 1 for a block that is missing or damaged."""
    start = _select(_has(exif, 0, _EXIF), len(_EXIF), 0)
    is_little, is_big = _has(exif, start, b"II\x2a\0"), _has(exif, start, b"MM\0\x2a")

    def integer(digits):
        return _select(is_big, _big(digits), _little(digits))

    directory = start + integer(_read(exif, start + 4, 4))
    count = integer(_read(exif, directory, 2))
    first = tf.minimum(directory + 2, exif.size)
    count = _select(is_little | is_big, tf.minimum(count, (exif.size - first) // 12), 0)
    entries = tf.cast(tf.reshape(exif.padded[first : first + 12 * count], [-1, 12]), tf.int64)
    tag, kind, values, value = (integer(entries[:, at:to]) for at, to in ((0, 2), (2, 4), (4, 8), (8, 10)))
    stated = tf.boolean_mask(value, (tag == _ORIENTATION) & (kind == _SHORT) & (values == 1))
    orientation = tf.concat([stated, [1]], 0)[0]
    return _select(orientation < len(_TURNS), orientation, 1)


def _turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    is_transposed, *is_reversed = tf.unstack(tf.gather(tf.constant(_TURNS), orientation))

    def turn():
        axes = tf.where(is_transposed, [1, 0, 2], [0, 1, 2])
        return tf.reverse(tf.transpose(image, axes), tf.boolean_mask([0, 1], tf.stack(is_reversed)))

    return tf.cond(orientation > 1, turn, lambda: image)


def _on_white(image: tf.Tensor) -> tf.Tensor:
    """round((alpha * rgb + (255 - alpha) * 255) / 255) of uint8 [height, width, 4]."""
    image = tf.cast(image, tf.uint16)
    alpha = image[..., 3:]
    # Fits 16 bits; and x / 255 is rounded by (x' + x' // 256) // 256 with x' = x + 128 for all x up to 255 * 255.
    total = image[..., :3] * alpha + (255 - alpha) * 255 + 128
    return tf.cast((total + total // 256) // 256, tf.uint8)


def _palette(colors: tf.Tensor) -> tf.Tensor:
    """uint8 [up to 256, 3] -> [256, 3], the rest black, as Pillow has it."""
    return tf.pad(colors, [[0, 256 - tf.shape(colors)[0]], [0, 0]])


def _require_size(height: tf.Tensor, width: tf.Tensor):
    most = 2 * Image.MAX_IMAGE_PIXELS
    # float64: two sides of 32 bits each overflow 64, and what decides is exact.
    pixels = tf.cast(height, tf.float64) * tf.cast(width, tf.float64)
    message = f"Expected a photo of at most {most:,} pixels, and of at least one. Received (height, width):"
    return _require((pixels > 0) & (pixels <= most), message, height, width)


def _require(condition: tf.Tensor, message: str, *received: tf.Tensor):
    """What is built in this context runs only if the condition holds."""
    return tf.control_dependencies([tf.debugging.Assert(condition, [message, *received], summarize=16)])


def _padded(values: tf.Tensor) -> _Bytes:
    return _Bytes(tf.pad(values, [[0, _TAIL]]), tf.size(values, out_type=tf.int64))


def _read(photo: _Bytes, position, count: int) -> tf.Tensor:
    """int64 [count <= _TAIL], zeros beyond the end."""
    position = tf.minimum(tf.cast(position, tf.int64), photo.size)
    return tf.ensure_shape(tf.cast(photo.padded[position : position + count], tf.int64), [count])


def _has(photo: _Bytes, position, expected: bytes) -> tf.Tensor:
    return _equal(_read(photo, position, len(expected)), expected)


def _equal(values: tf.Tensor, expected: bytes) -> tf.Tensor:
    return tf.reduce_all(values == _int64(list(expected)))


def _any_equal(value: tf.Tensor, allowed: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(value == _int64(allowed))


def _select(condition: tf.Tensor, value, otherwise) -> tf.Tensor:
    """`tf.where` of int64, which takes Python's integers too."""
    return tf.where(condition, _int64(value), _int64(otherwise))


def _int64(value) -> tf.Tensor:
    return tf.cast(value, tf.int64)


def _big(digits: tf.Tensor) -> tf.Tensor:
    """The integer of the last axis' bytes, the most significant first."""
    places = _int64([256**place for place in reversed(range(digits.shape[-1]))])
    return tf.reduce_sum(digits * places, -1)


def _little(digits: tf.Tensor) -> tf.Tensor:
    return _big(digits[..., ::-1])


def _splice(encoded: tf.Tensor, start: int, end: int, inserted) -> tf.Tensor:
    """The bytes with those from `start` to `end` replaced."""
    return tf.strings.join([tf.strings.substr(encoded, 0, start), inserted, tf.strings.substr(encoded, end, -1)])
