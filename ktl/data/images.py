"""One photo: encoded bytes -> upright RGB pixels, uint8 in 0..255. Pillow alone; TensorFlow is not loaded."""

import contextlib
import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps

from ktl.data import png
from ktl.process import cores

WORKERS = min(8, cores())
"""How many batches, or photos, are made at the same time."""

PHOTO_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
"""What Pillow calls the formats that are read; whatever else it can open is refused."""

PHOTO_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp")

PHOTO_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"RIFF")
"""How files of these formats begin."""

UNREAD_SUFFIXES = (
    *(".avif", ".heic", ".heif", ".hif", ".ico", ".j2k", ".jp2", ".jxl", ".tga", ".tif", ".tiff"),
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"),
    *(".eps", ".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".svg"),
)
"""Of pictures of other formats, which have to be converted."""

LARGE_PIXELS = 2**25
"""Of a photo that is decoded while no other such is, see `large_one_by_one`."""


class BadPhoto(ValueError):
    """A photo cannot be decoded. The message is a short reason and does not name the photo."""


@contextlib.contextmanager
def photo_threads(count: int = WORKERS) -> Iterator[ThreadPoolExecutor]:
    """Threads that decode photos. When the block ends early, photos that no thread has started on are not decoded."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def decode(encoded: bytes) -> np.ndarray:
    """The pixels of an encoded photo, as an image viewer shows them.

    The photo is turned upright as its EXIF orientation says. Of an animation, the first frame is taken; transparent
    parts become white; 16-bit grey is scaled to 8 bits. Colour profiles are not applied. An ordinary JPEG gives exactly
    the pixels of `tf.io.decode_jpeg(..., channels=3, dct_method="INTEGER_ACCURATE")`.

    Args:
        encoded: the bytes of a JPEG, PNG, GIF, BMP or WebP file.

    Returns:
        uint8 [height, width, 3], RGB.

    Raises:
        BadPhoto: the file is empty, truncated, damaged, no photo, or too large to be decoded safely.
    """
    if not encoded:
        raise BadPhoto("the file is empty")
    with _as_bad_photo(), _opened(encoded) as image:
        return _upright_rgb(image)


def size_of(encoded: bytes) -> tuple[int, int]:
    """The width and the height that an encoded photo says it has, in pixels; nothing is decoded.

    Raises:
        BadPhoto: it does not say so.
    """
    with _as_bad_photo(), _opened(encoded, load=False) as image:
        return image.size


@contextlib.contextmanager
def large_one_by_one(encoded: bytes) -> Iterator[None]:
    """Inside, no two threads have a photo of more than `LARGE_PIXELS`: to decode and shrink one of the largest that are
    read takes 1.7 GB."""
    try:
        width, height = size_of(encoded)
    except BadPhoto:  # whoever decodes it says why
        width = height = 0
    with _LARGE if width * height > LARGE_PIXELS else contextlib.nullcontext():
        yield


_LARGE = threading.Lock()


def _opened(encoded: bytes, *, load: bool = True) -> Image.Image:
    try:
        return _open(encoded, load=load)
    except MemoryError:
        raise
    except Exception as error:
        if not encoded.startswith(png.SIGNATURE):
            raise
        try:  # as TensorFlow reads it, and most viewers
            return _open(png.essence(encoded), load=load)
        except Image.UnidentifiedImageError:
            raise error from None


def _open(encoded: bytes, *, load: bool) -> Image.Image:
    image = Image.open(io.BytesIO(encoded), formats=PHOTO_FORMATS)
    if load:
        image.load()
    return image


def pixels_of(image: Image.Image) -> np.ndarray:
    """The pixels of a PIL image of any mode, as `decode` gives those of a file: uint8 [height, width, 3].

    Raises:
        BadPhoto: the image's file is damaged, or it has no pixels.
    """
    if 0 in image.size:
        raise BadPhoto("no pixels: {} x {}".format(*image.size))
    with _as_bad_photo():
        return _upright_rgb(image.copy())


@contextlib.contextmanager
def _as_bad_photo() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # Only Pillow runs here, and a damaged file makes its readers raise anything at all.
        raise BadPhoto(_reason(error)) from error


def _upright_rgb(image: Image.Image) -> np.ndarray:
    """The pixels of a loaded image, which is changed."""
    # A damaged EXIF block leaves good pixels, and viewers show those. In place, the photo is turned even if Pillow then
    # fails to write the rest of the block again.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(_to_rgb(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255. The high byte is what Pillow keeps of 16-bit colour, and TensorFlow too.
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image of a known format ({', '.join(PHOTO_FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    return " ".join(f"{error}".split()) or type(error).__name__
