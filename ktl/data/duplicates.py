"""Test photos that are among the training photos too: the very same file, or one that looks the same."""

import contextlib
import dataclasses
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import imagehash
import numpy as np
from PIL import Image, ImageOps

from ktl.data.dataset import Dataset
from ktl.data.images import FORMATS, BadPhoto, decode
from ktl.data.input_pipeline import photo_threads
from ktl.data.split import Split
from ktl.files import read_csv

NEAR = 6
"""The most of the 64 bits in which photos that look the same differ.

Of 1,730 photos of flowers and pets, 1.5 million pairs, 70 pairs differ in at most 8 bits, and each of these shows one
photo twice. Of pairs that show two photos, 1 differs in 10 bits, 16 in 12, and 139 in 14: in 6, fewer than one of 100
million would. Of copies of these photos, all differ in at most 6 bits at JPEG quality 20, in half or twice the size, in
a quarter of it, squashed to a square, or in grey; 99 % where a fifth brighter; all with 1 % cut away at every edge,
95 % with 2 %, and 40 % with 4 %; none where mirrored, or cut to a square.
"""

HASHED_SIDE = 32
"""The short side, in pixels, of the smallest photo that is hashed: the hash is made of so many pixels. Of smaller ones,
such as drawn digits, a sixth would be taken for another."""

DECODED_SIDE = 128
"""JPEGs are decoded at a half, a quarter or an eighth of their size, but no smaller than this. The hash of 19 of 20
photos stays the same, and none changes by more than 4 bits."""

BLOCK = 2**23
"""Pairs that are compared at a time: 72 MiB."""

COLUMNS = ("test", "train", "distance", "exact")


@dataclasses.dataclass(frozen=True)
class Duplicate:
    """A test photo and the training photo that it is most like.

    Attributes:
        test: the test photo's id.
        train: the training photo's id.
        distance: bits of 64 in which their hashes differ.
        exact: whether they have the same bytes.
    """

    test: str
    train: str
    distance: int
    exact: bool


@dataclasses.dataclass(frozen=True)
class _Print:
    """What one photo is known by.

    Attributes:
        digest: of its bytes.
        bits: of its pixels, uint64; None where they cannot be had, or are too few.
    """

    digest: bytes
    bits: np.uint64 | None


def find_duplicates(dataset: Dataset, *, progress: Callable[[int], None] | None = None) -> tuple[Duplicate, ...]:
    """Finds the test photos that are among the training photos, or look like one of them.

    Photos look alike if their perceptual hashes differ in at most `NEAR` bits. That finds a copy in another size,
    quality or format, not one that is mirrored or cut much. Photos smaller than `HASHED_SIDE` are only found by their
    bytes, and one that cannot be read is left out. Drawings on an empty ground may look alike to the hash alone.

    Args:
        dataset: its validation photos play no part.
        progress: called with the number of photos read so far, of training and test.

    Returns:
        One for each such test photo, in the split's order, with the nearest training photo, the first of several.

    Reference:
        Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2 (DCT based).
    """
    train, test = _prints((dataset.train, dataset.test), progress)
    same: dict[bytes, int] = {}
    for index, known in train.items():
        same.setdefault(known.digest, index)
    alike = _nearest(_bits(test), _bits(train))
    found = []
    for index, known in test.items():
        exact = known.digest in same
        nearest = (same[known.digest], 0) if exact else alike.get(index)
        if nearest is not None and nearest[1] <= NEAR:
            place, distance = nearest
            found.append(Duplicate(dataset.test.photos[index], dataset.train.photos[place], distance, exact))
    return tuple(found)


def rows(duplicates: Iterable[Duplicate]) -> Iterator[list]:
    """Rows of a CSV file with `COLUMNS`."""
    return ([found.test, found.train, found.distance, int(found.exact)] for found in duplicates)


def read_duplicates(path: str | os.PathLike) -> tuple[Duplicate, ...]:
    """What such a file holds."""
    rows = read_csv(path)
    return tuple(Duplicate(row["test"], row["train"], int(row["distance"]), row["exact"] == "1") for row in rows)


def count(duplicates: Sequence[Duplicate]) -> dict[str, int]:
    """Test photos that are exact duplicates, and those that are near ones only."""
    exact = sum(found.exact for found in duplicates)
    return {"exact": exact, "near": len(duplicates) - exact}


def _prints(splits: Sequence[Split], progress: Callable[[int], None] | None) -> list[dict[int, _Print]]:
    """For each split, position -> what the photo is known by."""
    work = [(number, index) for number, split in enumerate(splits) for index in range(len(split))]
    found: list[dict] = [{} for _ in splits]
    with photo_threads() as pool:
        prints = pool.map(lambda at: _print(splits[at[0]], at[1]), work)
        for done, ((number, index), known) in enumerate(zip(work, prints, strict=True), start=1):
            if known is not None:
                found[number][index] = known
            if progress:
                progress(done)
    return found


def _print(split: Split, index: int) -> _Print | None:
    try:
        encoded = split.read(index)
        picture = _picture(encoded)
    except (OSError, BadPhoto):
        return None
    hashed = min(picture.size) >= HASHED_SIDE
    bits = np.packbits(imagehash.phash(picture).hash.ravel()).view(np.uint64)[0] if hashed else None
    return _Print(hashlib.sha256(encoded).digest(), bits)


def _picture(encoded: bytes) -> Image.Image:
    """The photo upright, and small where that saves time.

    Raises:
        BadPhoto: it cannot be decoded.
    """
    with contextlib.suppress(Exception):  # whatever this way meets, `decode` gets along with or has a reason for
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
        if image.format == "JPEG":
            image.draft("L", (DECODED_SIDE, DECODED_SIDE))
            return ImageOps.exif_transpose(image)
    return Image.fromarray(decode(encoded))


def _bits(prints: Mapping[int, _Print]) -> dict[int, np.uint64]:
    return {index: known.bits for index, known in prints.items() if known.bits is not None}


def _nearest(test: Mapping[int, np.uint64], train: Mapping[int, np.uint64]) -> dict[int, tuple[int, int]]:
    """Each test photo's nearest training photo, the first of several, and its distance."""
    if not test or not train:
        return {}
    (test_numbers, test_bits), (train_numbers, train_bits) = (
        (list(bits), np.array(list(bits.values()))) for bits in (test, train)
    )
    found, size = {}, max(1, BLOCK // len(train_bits))
    for start in range(0, len(test_bits), size):
        distances = np.bitwise_count(test_bits[start : start + size, None] ^ train_bits)
        for row, place in enumerate(distances.argmin(axis=1)):
            found[test_numbers[start + row]] = (train_numbers[place], int(distances[row, place]))
    return found
