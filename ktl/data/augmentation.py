"""What a network sees of a shrunk photo in training: the evaluation view, a random crop, or what a function gives."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from PIL import Image

from ktl.data.arrays import described
from ktl.data.views import centre_crop
from ktl.errors import unknown_name

AUGMENTATIONS = ("standard", "none")

Augmentation = Literal["standard", "none"] | Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""What is done to training photos.

"standard": random resized crops, mirrored half of the time. "none": the evaluation view. A function gets a copy of the
shrunk photo, uint8 [height, width, 3] with pixels in 0..255, and a generator that depends on the photo's bytes and the
view's number alone; it gives uint8 [height, width, 3] of any size. Of that, the largest central square is taken and
resized to the size that the network needs. The function runs in several threads at a time: it may draw from its
generator, but must not keep anything between calls. There are as many views of a photo as the argument `views` says.

Example:
    >>> def darker(pixels, generator):
    ...     return (pixels * generator.uniform(0.5, 1)).astype("uint8")
    >>> ktl.run(dataset="photos", augmentation=darker)
"""

VIEW_SEED = 0
"""Fixed, so that trainings with different seeds, cached or not, have the same views: they differ in when each is shown.
"""

CROP_AREA = (0.35, 1.0)
"""Share of the photo that a training crop covers. The 0.08 used for training from scratch often misses the subject."""

CROP_ASPECT = (3 / 4, 4 / 3)
"""Width over height of a training crop, before it is resized to a square."""


def check_augmentation(augmentation: Augmentation) -> None:
    """Refuses what is no augmentation.

    Raises:
        UserError: `augmentation` is no function, and none of `AUGMENTATIONS`.
    """
    if not callable(augmentation) and augmentation not in AUGMENTATIONS:
        raise unknown_name("augmentation", augmentation, (*AUGMENTATIONS, "a function"))


def training_view(
    image: np.ndarray, augmentation: Augmentation, *, size: int, digest: bytes, view: int, flip: bool, name: str
) -> np.ndarray:
    """What the network sees of a photo in training: a pure function of the arguments.

    Args:
        image: uint8 [height, width, 3], already shrunk.
        augmentation: see `Augmentation`.
        size: pixels.
        digest: of the photo's bytes, see `ktl.data.digest`: views of another one are drawn otherwise.
        view: number of the view, from 0: another one is drawn otherwise.
        flip: whether "standard" mirrors photos.
        name: of the photo, for errors.

    Returns:
        uint8 [size, size, 3].

    Raises:
        ValueError: `augmentation` is a function and gives no pixels.
    """
    if augmentation == "none":
        return centre_crop(image, size=size)
    # By its bytes, not by its name or place: a photo that is renamed or moved has the views that it had.
    generator = np.random.default_rng([VIEW_SEED, view, int.from_bytes(digest[:8], "big")])
    if augmentation == "standard":
        return random_crop(image, generator, size=size, flip=flip)
    # A copy: the photo is kept in memory for the next passes.
    seen = np.asarray(augmentation(image.copy(), generator))
    if seen.dtype != np.uint8 or seen.ndim != 3 or seen.shape[2] != 3 or not seen.size:
        raise ValueError(
            f"Expected augmentation to give uint8 [height, width, 3]. Received: {described(seen)} for {name}"
        )
    return _central_square(seen, size=size)


def random_crop(image: np.ndarray, generator: np.random.Generator, *, size: int, flip: bool) -> np.ndarray:
    """A random part of a photo, resized to a square and, if `flip`, mirrored half of the time.

    The filter is Pillow's BILINEAR, in one step: no exported model has to repeat it.

    Args:
        image: uint8 [height, width, 3], already shrunk.
        generator: is drawn from.
        size: pixels.
        flip: False where a mirrored photo means something else, as digits do.

    Returns:
        uint8 [size, size, 3].

    Reference:
        Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6 (there 8 % to 100 % of the area).
    """
    height, width = _crop_extent(image.shape, generator)
    top = generator.integers(image.shape[0] - height, endpoint=True)
    left = generator.integers(image.shape[1] - width, endpoint=True)
    crop = Image.fromarray(image[top : top + height, left : left + width])
    view = crop.resize((size, size), Image.Resampling.BILINEAR)
    if flip and generator.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(view)


def _crop_extent(shape: Sequence[int], generator: np.random.Generator) -> tuple[int, int]:
    """Height and width of a random crop that fits, or of the largest square after ten tries that did not fit."""
    for _ in range(10):
        area = shape[0] * shape[1] * generator.uniform(*CROP_AREA)
        aspect = math.exp(generator.uniform(*np.log(CROP_ASPECT)))
        height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < height <= shape[0] and 0 < width <= shape[1]:
            return height, width
    side = min(shape[0], shape[1])
    return side, side


def _central_square(image: np.ndarray, *, size: int) -> np.ndarray:
    square = centre_crop(image, size=min(image.shape[:2]))
    if len(square) == size:
        return square
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))
