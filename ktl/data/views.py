"""What a network sees of a photo: shrunk, then cut. Pixels are uint8 in 0..255; the filter is Pillow's."""

import numpy as np
from PIL import Image

from ktl.data.images import decode, large_one_by_one

EVALUATION_CROP = 0.875
"""Side of the centre crop / short side of the shrunk photo: 224 / 256, as is usual for ImageNet."""

MAX_ASPECT = 4
"""A photo longer than this many times its short side is cut. Resized to a short side of 256 pixels, a photo of 3000 x 1
pixels would take 590 MB."""


def shrunk_side(image_size: int) -> int:
    """The short side, in pixels, of the shrunk photo that views of `image_size` are cut from."""
    return round(image_size / EVALUATION_CROP)


def shrink(image: np.ndarray, *, short_side: int) -> np.ndarray:
    """Resizes a photo, up or down, so that its short side has a given length; the aspect ratio stays.

    The filter is Pillow's BILINEAR: a triangle as wide as the photo is shrunk, along columns and then along rows. A
    photo longer than `MAX_ASPECT` times its short side loses its ends: no centre crop shows them.

    Args:
        image: uint8 [height, width, 3].
        short_side: pixels.

    Returns:
        uint8 [height', width', 3] with min(height', width') == short_side.
    """
    height, width = image.shape[:2]
    longest = MAX_ASPECT * min(height, width)
    image = _cut(image, min(height, longest), min(width, longest))
    # In float32, in which a SavedModel computes them, too.
    sides = np.array(image.shape[:2], np.float32)
    height, width = np.rint(sides * (np.float32(short_side) / sides.min())).astype(int).tolist()
    # In two steps: which way comes first decides grey levels, and versions of Pillow choose it each in their own way.
    flat = Image.fromarray(image).resize((image.shape[1], height), Image.Resampling.BILINEAR)
    return np.asarray(flat.resize((width, height), Image.Resampling.BILINEAR))


def centre_crop(image: np.ndarray, *, size: int) -> np.ndarray:
    """The central size x size pixels of a photo.

    Args:
        image: uint8 [height, width, 3], both sides at least `size`.
        size: pixels.

    Returns:
        uint8 [size, size, 3], a part of the photo that shares its memory.
    """
    return _cut(image, size, size)


def evaluation_view(image: np.ndarray, *, size: int) -> np.ndarray:
    """What a network sees of a photo, except in training: the photo is shrunk, then its central square is taken.

    The short side of the shrunk photo is `size / EVALUATION_CROP` pixels. Several threads may call this at a time.

    Args:
        image: uint8 [height, width, 3], any size.
        size: pixels.

    Returns:
        uint8 [size, size, 3].
    """
    return centre_crop(shrink(image, short_side=shrunk_side(size)), size=size).copy()


def view_of(encoded: bytes, *, size: int) -> np.ndarray:
    """The evaluation view of an encoded photo: uint8 [size, size, 3]. Several threads may call this at a time.

    Raises:
        BadPhoto: the photo cannot be decoded.
    """
    with large_one_by_one(encoded):
        return evaluation_view(decode(encoded), size=size)


def _cut(image: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
