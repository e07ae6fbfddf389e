"""Finds test photos that are among the training photos too: the same file, or a photo that looks the same."""

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
from ktl.data.images import PHOTO_FORMATS, BadPhoto, decode, photo_threads
from ktl.data.split import Split
from ktl.files import read_csv

NEAR = 6
"""Two photos look the same if their hashes, of 64 bits, differ in at most this many bits.

Measured on 1,730 photos of flowers and pets, which are 1.5 million pairs. 70 pairs differ in at most 8 bits, and each
of them shows one photo twice. Of the pairs that show two photos, 1 differs in 10 bits, 16 in 12, and 139 in 14; from
these numbers, fewer than one pair in 100 million would differ in 6. Copies of these photos differ in at most 6 bits:
all copies with JPEG quality 20, with half, twice or a quarter of the size, squashed to a square, or in grey; 99 % of
the copies that are a fifth brighter; all copies that lost 1 % at every edge, 95 % with 2 %, and 40 % with 4 %; no copy
that is mirrored or cut to a square.
"""

HASHED_SIDE = 32
"""Photos with a shorter side, in pixels, are not hashed: a hash is computed from 32 x 32 pixels. A sixth of smaller
pictures, such as drawn digits, would be taken for another one."""

DECODED_SIDE = 128
"""To save time, JPEGs are decoded at a half, a quarter or an eighth of their size, but with no side shorter than this,
in pixels. The hash of 19 photos in 20 stays the same, and no hash changes by more than 4 bits."""

BLOCK = 2**23
"""How many pairs are compared at a time; these take 72 MiB."""

COLUMNS = ("test", "train", "distance", "exact")


@dataclasses.dataclass(frozen=True)
class Duplicate:
    """A test photo and the training photo that it resembles most.

    Attributes:
        test: the test photo's id.
        train: the training photo's id.
        distance: the number of bits, of 64, in which their hashes differ.
        exact: whether their files have the same bytes.
    """

    test: str
    train: str
    distance: int
    exact: bool


@dataclasses.dataclass(frozen=True)
class _Print:
    """What a photo is recognised by.

    Attributes:
        digest: the SHA-256 digest of its bytes.
        bits: the perceptual hash of its pixels, uint64; None if the photo is too small.
    """

    digest: bytes
    bits: np.uint64 | None


def find_duplicates(dataset: Dataset, *, progress: Callable[[int], None] | None = None) -> tuple[Duplicate, ...]:
    """Finds the test photos that are among the training photos, or look like one of them.

    Photos look alike if their perceptual hashes differ in at most `NEAR` bits. This finds copies in another size,
    quality or format, but no copies that are mirrored or cut a lot. Photos smaller than `HASHED_SIDE` are compared by
    their bytes only. Photos that cannot be read are left out. Different drawings on an empty background may be found
    by mistake.

    Args:
        dataset: the data set. Its validation photos are not compared.
        progress: is called with the number of training and test photos read so far.

    Returns:
        One `Duplicate` for each test photo that was found, in the order of the test split. It has the nearest training
        photo, and the first one if several are equally near.

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
    """The rows of a CSV file with `COLUMNS`, which `read_duplicates` reads."""
    return ([found.test, found.train, found.distance, int(found.exact)] for found in duplicates)


def read_duplicates(path: str | os.PathLike) -> tuple[Duplicate, ...]:
    """The duplicates in a CSV file with `COLUMNS`."""
    rows = read_csv(path)
    return tuple(Duplicate(row["test"], row["train"], int(row["distance"]), row["exact"] == "1") for row in rows)


def count(duplicates: Sequence[Duplicate]) -> dict[str, int]:
    """How many test photos are exact duplicates, and how many are near ones only."""
    exact = sum(found.exact for found in duplicates)
    return {"exact": exact, "near": len(duplicates) - exact}


def _prints(splits: Sequence[Split], progress: Callable[[int], None] | None) -> list[dict[int, _Print]]:
    """For each split, what each photo that can be read is recognised by: index -> _Print."""
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
    """The photo turned upright; a JPEG may be decoded at a smaller size to save time.

    Raises:
        BadPhoto: it cannot be decoded.
    """
    with contextlib.suppress(Exception):  # `decode` then succeeds, or says what is wrong
        image = Image.open(io.BytesIO(encoded), formats=PHOTO_FORMATS)
        if image.format == "JPEG":
            image.draft("L", (DECODED_SIDE, DECODED_SIDE))
            return ImageOps.exif_transpose(image)
    return Image.fromarray(decode(encoded))


def _bits(prints: Mapping[int, _Print]) -> dict[int, np.uint64]:
    return {index: known.bits for index, known in prints.items() if known.bits is not None}


def _nearest(test: Mapping[int, np.uint64], train: Mapping[int, np.uint64]) -> dict[int, tuple[int, int]]:
    """The nearest training photo of each test photo, the first one of several, and its distance."""
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
