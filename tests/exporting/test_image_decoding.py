"""decode_in_graph against ktl.data.images.decode, on every format and on bytes that nobody should send."""

import io
import json
import struct
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support import start

from ktl.data import images as photos
from ktl.data.views import evaluation_view
from ktl.exporting.graph_views import evaluation_view_in_graph
from ktl.exporting.image_decoding import decode_in_graph

SPECIFICATION = tf.TensorSpec([], tf.string)


def noise(mode="RGB", height=23, width=34, seed=0):
    """Random pixels of a Pillow mode; every level of alpha where it has one."""
    generator = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(generator.integers(0, 1 << 16, [height, width], np.uint16))
    if mode == "P":
        return noise("RGB", height, width, seed).quantize(37)
    if mode == "1":
        return noise("L", height, width, seed).convert("1")
    bands = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, (width, height), generator.bytes(height * width * bands))


def smooth(height=45, width=67, mode="RGB"):
    """A random photo with few high frequencies."""
    return noise("RGB", 7, 9).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encode(image, form, *, orientation=None, **options):
    if orientation is not None:
        options["exif"] = exif(orientation)
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def exif(orientation):
    block = Image.Exif()
    block[0x010F] = "Maker"  # stands before the orientation
    block[0x0112] = orientation
    return block.tobytes()


def png_chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_sizes(encoded, at, kind, *sizes):
    """The bytes with another height and width in their header, which says so at a given place."""
    sizes = struct.pack(kind, *sizes)
    return encoded[:at] + sizes + encoded[at + len(sizes) :]


@pytest.fixture(scope="module")
def decode():
    return tf.function(decode_in_graph, input_signature=[SPECIFICATION], autograph=False)


def assert_same(decode, encoded, *, tolerance=0):
    expected = photos.decode(encoded)
    ours = decode(tf.constant(encoded)).numpy()
    assert ours.dtype == np.uint8
    assert ours.shape == expected.shape
    assert np.abs(ours.astype(int) - expected).max() <= tolerance


MODES = {
    "JPEG": ("RGB", "L", "YCbCr"),
    "PNG": ("RGB", "L", "1", "P", "I;16", "RGBA", "LA"),
    "GIF": ("RGB", "L", "1", "P", "RGBA"),
    "BMP": ("RGB", "L", "1", "P", "RGBA"),
    "WEBP": ("RGB", "L", "RGBA"),
}


@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form, modes in MODES.items() for mode in modes])
def test_formats_and_color_modes_have_pillows_pixels(decode, form, mode):
    assert_same(decode, encode(noise(mode), form))


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"progressive": True}, {"quality": 35}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpegs_have_pillows_pixels(decode, mode, options):
    assert_same(decode, encode(smooth(mode=mode), "JPEG", **options))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_photos_upright(decode, form, orientation):
    assert_same(decode, encode(smooth(), form, orientation=orientation))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_exif_turns_jpegs_of_other_modes(decode, mode):
    assert_same(decode, encode(smooth(mode=mode), "JPEG", orientation=6), tolerance=mode == "CMYK")


def tiff(order, entries, *, directory=8):
    magic = {"<": b"II\x2a\0", ">": b"MM\0\x2a"}[order]
    packed = [struct.pack(f"{order}HHIH2x", *entry) for entry in entries]
    count = struct.pack(f"{order}H", len(entries))
    return magic + struct.pack(f"{order}I", directory) + count + b"".join(packed) + bytes(4)


ROTATED = (0x0112, 3, 1, 6)
BLOCKS = {
    "little-endian": (tiff("<", [ROTATED]), True),
    "big-endian": (tiff(">", [(0x0100, 3, 1, 9), ROTATED]), True),
    "cut behind the orientation": (tiff("<", [ROTATED, (0x0131, 2, 1, 0)])[:-9], True),
    "unknown orientation": (tiff("<", [(0x0112, 3, 1, 9)]), False),
    "cut in the orientation": (tiff("<", [ROTATED])[:-9], False),
    "directory beyond the end": (tiff("<", [ROTATED], directory=1 << 31), False),
    "neither byte order": (b"XX" + tiff("<", [ROTATED])[2:], False),
    "header only": (b"II\x2a\0", False),
    "empty": (b"", False),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("block", BLOCKS)
def test_exif_blocks_are_read_as_pillow_does_and_damage_leaves_the_pixels(decode, block):
    content, turns = BLOCKS[block]
    encoded = encode(smooth(), "JPEG", exif=b"Exif\0\0" + content)
    assert (photos.decode(encoded).shape == (67, 45, 3)) == turns
    assert_same(decode, encoded)


def test_exif_is_found_behind_other_segments_junk_and_padding(decode):
    encoded = encode(smooth(), "JPEG", exif=b"Exif\0\0" + tiff(">", [ROTATED]))
    others = b"\xff\xe1\0\x0chttp://ns.\xff\xed\0\x04ab\0\0\xff\xff\xff\xfe\0\x05abc"
    encoded = encoded[:2] + others + encoded[2:]
    assert photos.decode(encoded).shape == (67, 45, 3)
    assert_same(decode, encoded)


def test_exif_behind_the_pixels_of_a_png_is_found(decode):
    plain = encode(smooth(), "PNG")
    encoded = plain[:-12] + png_chunk(b"eXIf", tiff("<", [ROTATED])) + plain[-12:]
    assert photos.decode(encoded).shape == (67, 45, 3)
    assert_same(decode, encoded)


@pytest.mark.parametrize("subsampling", [0, 2])
def test_cmyk_is_within_one_level_with_and_without_adobes_mark(decode, subsampling):
    marked = encode(noise("CMYK"), "JPEG", quality=95, subsampling=subsampling)
    mark = marked.index(b"\xff\xee")
    unmarked = marked[:mark] + marked[mark + 16 :]
    assert_same(decode, marked, tolerance=1)
    assert_same(decode, unmarked, tolerance=1)


TRANSPARENCY = {
    "P, one color": ("P", 3),
    "P, levels": ("P", bytes(range(0, 250, 7))),
    "L": ("L", 7),
    "1": ("1", 1),
    "RGB": ("RGB", noise("RGB").getpixel((3, 3))),
    "I;16": ("I;16", 7),
}


@pytest.mark.parametrize("case", TRANSPARENCY)
def test_transparent_colors_of_pngs_are_white(decode, case):
    mode, transparency = TRANSPARENCY[case]
    assert_same(decode, encode(noise(mode), "PNG", transparency=transparency))


@pytest.mark.parametrize("colors", [2, 4, 16])
def test_palettes_of_less_than_six_bits(decode, colors):
    image = noise("RGB").quantize(colors)
    assert_same(decode, encode(image, "PNG"))
    assert_same(decode, encode(image, "PNG", transparency=1))
    if colors != 4:
        assert_same(decode, encode(image, "BMP"))


def test_numbers_beyond_a_palette_are_black(decode):
    encoded = encode(noise("P"), "BMP")
    beyond = with_sizes(encoded, len(encoded) - 36 * 23, "<B", 200)
    assert_same(decode, beyond)
    assert (decode(tf.constant(beyond))[-1, 0] == 0).numpy().all()


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_gif_without_a_palette_is_grey(decode, mode):
    encoded = encode(noise(mode), "GIF")
    colors = 3 << (encoded[10] & 7) + 1
    encoded = encoded[:10] + bytes([encoded[10] & 0x7F]) + encoded[11:13] + encoded[13 + colors :]
    assert_same(decode, encoded)


def test_alpha_blends_as_the_formula_says():
    levels = np.arange(256)
    pixels = np.zeros([256, 256, 4], np.uint8)
    pixels[..., :3], pixels[..., 3] = levels[:, None, None], levels
    exact = (levels[:, None] * levels + 255 * (255 - levels)) / 255
    ours = decode_in_graph(encode(Image.fromarray(pixels), "PNG")).numpy()
    np.testing.assert_array_equal(ours, np.round(exact)[..., None].repeat(3, axis=2))


def png_of_16_bits(color, channels):
    """Pillow writes no 16-bit colour. Rows of filter 0."""
    height, width = 5, 7
    rows = np.random.default_rng(0).integers(0, 1 << 16, [height, width * channels], np.uint16).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(raw)) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(("color", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_pngs_of_16_bits_keep_the_high_byte(decode, color, channels):
    assert_same(decode, png_of_16_bits(color, channels))


def gif_with_a_small_frame(**options):
    """A canvas of 34 x 23 whose first frame covers a part of it."""
    encoded = bytearray(encode(noise("P", 11, 13), "GIF", **options))
    encoded[6:10] = struct.pack("<HH", 34, 23)
    image = encoded.index(b",\0\0\0\0")
    encoded[image + 1 : image + 5] = struct.pack("<HH", 5, 3)
    return bytes(encoded)


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("level", [0, 1, 3])
def test_a_transparent_grey_of_few_bits_is_what_it_is_for_pillow(decode, depth, level):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 1, depth, 0, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(b"\0" + bytes(range(17, 17 + 2 * depth))))
    key = png_chunk(b"tRNS", struct.pack(">H", level))
    assert_same(decode, b"\x89PNG\r\n\x1a\n" + header + key + pixels + png_chunk(b"IEND", b""))


@pytest.mark.parametrize("options", [{}, {"transparency": 3}, {"interlace": 0}, {"comment": b"x" * 700}])
@pytest.mark.parametrize("make", [lambda **options: encode(noise("P"), "GIF", **options), gif_with_a_small_frame])
def test_gifs_have_pillows_pixels(decode, make, options):
    assert_same(decode, make(**options))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_animation_shows_its_first_frame(decode, form, mode):
    # An opaque WebP animation makes TensorFlow 2.21's own decoder crash.
    frames = [noise(mode, seed=seed) for seed in range(3)]
    encoded = encode(frames[0], form, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(encoded)).n_frames == 3
    assert_same(decode, encoded)


@pytest.mark.parametrize("options", [{"quality": 70}, {"lossless": True}, {"lossless": True, "exact": True}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webps_have_pillows_pixels(decode, mode, options):
    assert_same(decode, encode(noise(mode), "WEBP", **options))


def test_a_bmp_with_its_first_row_on_top_and_one_with_the_oldest_header(decode):
    upward = encode(smooth(24, 32), "BMP")
    downward = with_sizes(upward, 22, "<i", -24)
    assert_same(decode, downward)
    np.testing.assert_array_equal(decode(tf.constant(downward)), decode(tf.constant(upward))[::-1])
    core = b"BM" + bytes(8) + struct.pack("<IIHHHH", 26, 12, 32, 24, 1, 24)
    assert_same(decode, core + upward[54:])


@pytest.mark.parametrize("form", list(MODES))
def test_views_equal_those_of_training(decode, form):
    encoded = encode(smooth(90, 120), form)
    expected = evaluation_view(photos.decode(encoded), size=56)
    np.testing.assert_array_equal(evaluation_view_in_graph(decode(tf.constant(encoded)), size=56), expected)


def test_a_saved_model_takes_a_batch_of_photos_of_any_format(tiny_exports):
    assert b"PyFunc" not in (tiny_exports / "savedmodel" / "saved_model.pb").read_bytes()
    serve = tf.saved_model.load(str(tiny_exports / "savedmodel")).signatures["features"]
    forms = ("PNG", "WEBP", "GIF", "BMP", "JPEG")
    batch = [encode(smooth().point(lambda level, k=k: level * k // 5), form) for k, form in enumerate(forms, start=1)]
    views = np.stack([evaluation_view(photos.decode(encoded), size=42) for encoded in batch])
    network = keras.models.load_model(tiny_exports / "keras" / "model.keras")
    expected = keras.Model(network.input, network.get_layer("pool").output)(views, training=False)
    assert np.abs(np.diff(expected, axis=0)).max(axis=1).min() > 1e-3  # each photo is another one
    np.testing.assert_allclose(serve(photos=tf.constant(batch))["features"], expected, atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Expected the bytes of a JPEG"):
        serve(photos=tf.constant([*batch, b"no photo"]))


def riff(*chunks):
    content = b"WEBP" + b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(content)) + content


def huge_photos():
    """Small files of every format whose headers claim more pixels than Pillow allows."""
    jpeg = encode(noise(), "JPEG")
    lossy, lossless = (encode(noise(), "WEBP", lossless=lossless) for lossless in (False, True))
    gif = encode(noise("P"), "GIF")
    frame = gif.index(b",\0\0\0\0") + 5
    side = 16_000
    return {
        "JPEG": with_sizes(jpeg, jpeg.index(b"\xff\xc0") + 5, ">HH", 65_500, 65_500),
        "PNG": with_sizes(encode(noise(), "PNG"), 16, ">II", 2**31 - 1, 2**31 - 1),
        "PNG that overflows": with_sizes(encode(noise(), "PNG"), 16, ">II", 2**32 - 1, 2**32 - 1),
        "GIF canvas": with_sizes(gif, 6, "<HH", 65_535, 65_535),
        "GIF frame": with_sizes(gif, frame, "<HH", 65_535, 65_535),
        "BMP": with_sizes(encode(noise(), "BMP"), 18, "<ii", 2**31 - 1, 2**31 - 1),
        "BMP downward": with_sizes(encode(noise(), "BMP"), 18, "<ii", 2**31 - 1, -(2**24)),
        "WebP lossy": with_sizes(lossy, 26, "<HH", side, side),
        "WebP lossless": with_sizes(lossless, 21, "<I", side - 1 | side - 1 << 14),
        "WebP canvas": riff((b"VP8X", b"\2\0\0\0" + b"\xff" * 6), (b"ANIM", bytes(6))),
    }


@pytest.mark.parametrize("case", huge_photos())
def test_a_header_with_too_many_pixels_is_refused_before_decoding(decode, case):
    encoded = huge_photos()[case]
    with pytest.raises(photos.BadPhoto):
        photos.decode(encoded)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 178,956,970 pixels"):
        decode(tf.constant(encoded))


@pytest.mark.parametrize("form", list(MODES))
def test_the_limit_is_pillows(monkeypatch, form):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_in_graph(encode(noise(height=10, width=20), form)).shape == (10, 20, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 200 pixels"):
        decode_in_graph(encode(noise(height=10, width=21), form))


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "Expected the bytes of a JPEG"),
        (b"This is a page of text.\n" * 9, "Expected the bytes of a JPEG"),
        (encode(noise(), "TIFF"), "Expected the bytes of a JPEG"),
        (encode(noise(), "JPEG")[:300], None),
        (encode(noise(), "PNG")[:300], None),
        (encode(noise(), "WEBP")[:300], None),
        (encode(noise(), "GIF")[:-300], "whole first frame"),
        (encode(noise(), "BMP")[:-300], "Expected a whole BMP"),
        (with_sizes(encode(noise(), "BMP"), 30, "<I", 1), "without compression"),
        (with_sizes(encode(noise(), "PNG"), 12, "4s", b"IDAT"), "starts with its header"),
    ],
)
def test_what_is_no_whole_photo_is_an_error(decode, encoded, reason):
    with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
        decode(tf.constant(encoded))


def valid_photos():
    modes = [(form, mode) for form, modes in MODES.items() for mode in modes]
    photos = [encode(noise(mode, seed=index), form) for index, (form, mode) in enumerate(modes)]
    photos += [encode(smooth(), form, orientation=6) for form in ("JPEG", "PNG", "WEBP")]
    photos += [
        encode(noise(mode), "WEBP", save_all=True, append_images=[noise(mode, seed=1)]) for mode in ("RGB", "RGBA")
    ]
    photos += [encode(noise("P"), "GIF", save_all=True, append_images=[noise("P", seed=1)], transparency=3)]
    photos += [encode(smooth(mode="CMYK"), "JPEG"), encode(smooth(), "JPEG", progressive=True), png_of_16_bits(6, 4)]
    return [*photos, gif_with_a_small_frame()]


STARTS = (
    b"\xff\xd8\xff",
    b"\xff\xd8\xff\xe1",
    b"\x89PNG\r\n\x1a\n",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"GIF87a",
    b"GIF89a",
    b"BM",
)
STARTS += tuple(b"RIFF\xff\xff\0\0WEBP" + name for name in (b"", b"VP8 ", b"VP8L", b"VP8X"))
OTHERS = (
    b"",
    b"\0",
    b"A page of text.\n",
    b"PK\3\4" + bytes(99),
    b"%PDF-1.7\n",
    b"\xff\x0a\xfa\x1f",
    b"II\x2a\0" + bytes(99),
)


def hostile_inputs(count, seed):
    """Bytes that a decoder had better survive: `count` of them, the same ones for a seed."""
    generator = np.random.default_rng(seed)
    valid, huge = valid_photos(), list(huge_photos().values())

    def choose(values):
        return values[generator.integers(len(values))]

    def truncated():
        photo = choose(valid)
        return photo[: generator.integers(len(photo))]

    def damaged(photo):
        photo = np.frombuffer(photo, np.uint8).copy()
        # Most of what a parser can get wrong is in the first bytes.
        last = choose([40, 120, len(photo)])
        places = generator.integers(0, min(last, len(photo)), generator.integers(1, 9))
        photo[places] ^= generator.integers(1, 256, len(places)).astype(np.uint8)
        return photo.tobytes()

    def flipped_bits():
        return damaged(choose(valid))

    def random_bytes():
        return choose([b"", *STARTS]) + generator.bytes(generator.integers(1, 400))

    def damaged_exif():
        block = damaged(exif(int(generator.integers(1, 9))))
        return encode(smooth(), choose(["JPEG", "PNG", "WEBP"]), exif=block[: generator.integers(len(block) + 1)])

    def spliced():
        photo, other = choose(valid), choose(valid)
        return photo[: generator.integers(len(photo))] + other[generator.integers(len(other)) :]

    def huge_claims():
        return choose([choose(huge), damaged(choose(huge))])

    def no_photo():
        return choose(OTHERS)

    kinds = (truncated, flipped_bits, random_bytes, damaged_exif, flipped_bits, spliced, huge_claims, no_photo)
    for index in range(count):
        yield kinds[index % len(kinds)]()


def _decode_all(folder, count, seed):
    """In a process of its own: what each of the inputs came to; the one that is being decoded is a file."""
    decode = tf.function(decode_in_graph, input_signature=[SPECIFICATION], autograph=False)
    outcomes = {"decoded": 0, "refused": 0}
    for encoded in hostile_inputs(count, seed):
        (folder / "current").write_bytes(encoded)
        try:
            image = decode(tf.constant(encoded))
        except tf.errors.InvalidArgumentError:
            outcomes["refused"] += 1
        else:
            assert image.shape[0] > 0
            assert image.shape[2] == 3
            outcomes["decoded"] += 1
    (folder / "outcomes").write_text(json.dumps(outcomes))


@pytest.mark.parametrize(
    ("count", "seed"),
    [(150, 0), pytest.param(1000, 1, marks=pytest.mark.slow), pytest.param(10_000, 2, marks=pytest.mark.long)],
)
def test_hostile_bytes_are_decoded_or_refused_and_the_process_survives(tmp_path, count, seed):
    process = start(_decode_all, tmp_path, count, seed)
    process.join(240)
    if process.is_alive():
        process.kill()
        pytest.fail(f"hangs on {(tmp_path / 'current').read_bytes()!r}")
    assert process.exitcode == 0, (tmp_path / "current").read_bytes()
    outcomes = json.loads((tmp_path / "outcomes").read_text())
    assert sum(outcomes.values()) == count
    assert min(outcomes.values()) > count / 10


def test_hostile_inputs_are_a_function_of_their_seed():
    assert list(hostile_inputs(24, 3)) == list(hostile_inputs(24, 3))
    assert list(hostile_inputs(24, 3)) != list(hostile_inputs(24, 4))
