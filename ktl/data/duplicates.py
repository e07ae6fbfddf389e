"""Finds photos that are in an earlier split too, from train over validation to test: the same file, or a photo that
looks the same."""

import contextlib
import dataclasses
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypedDict

import imagehash
import numpy as np
from PIL import Image, ImageOps

from ktl.data.dataset import Dataset
from ktl.data.digest import photo_digest
from ktl.data.images import PHOTO_FORMATS, BadPhoto, decode, photo_threads
from ktl.data.split import FileVersion, Split
from ktl.data.urls import readers_of
from ktl.files import read_csv, reading

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

COLUMNS = ("photo", "split", "other", "other_split", "distance", "exact")


@dataclasses.dataclass(frozen=True)
class Duplicate:
    """A test or validation photo and the photo of an earlier split that it resembles most.

    Attributes:
        photo: its id.
        split: the split that it is in: test or validation.
        other: the id of the photo that it resembles.
        other_split: the split of that one: train, or for a test photo validation too.
        distance: the number of bits, of 64, in which their hashes differ.
        exact: whether their files have the same bytes.
    """

    photo: str
    split: str
    other: str
    other_split: str
    distance: int
    exact: bool


@dataclasses.dataclass(frozen=True)
class Print:
    """What a photo is recognised by.

    Attributes:
        digest: of its bytes, see `ktl.data.digest`.
        bits: the perceptual hash of its pixels, uint64; None if the photo is too small.
    """

    digest: bytes
    bits: np.uint64 | None


class PrintMemory(Protocol):
    """Remembers prints by their photos' files, so that no photo is read twice for its own."""

    def find(self, versions: Sequence[FileVersion | None]) -> Sequence[Print | None]:
        """The print of each file as it is now, None where it is not known."""
        ...

    def keep(self, prints: Mapping[FileVersion, Print]) -> None:
        """Remembers prints."""
        ...


class _Photo(NamedTuple):
    """A photo's split and id."""

    split: str
    id: str


def find_duplicates(
    dataset: Dataset, *, progress: Callable[[int], None] | None = None, memory: PrintMemory | None = None
) -> tuple[Duplicate, ...]:
    """Finds test photos that are among the training or validation photos or look like one of them, and validation
    photos that are among the training photos or look like one.

    Scores of test photos are then too good as scores of new photos, and validation photos choose what has learned the
    training photos by heart.

    Photos look alike if their perceptual hashes differ in at most `NEAR` bits. This finds copies in another size,
    quality or format, but no copies that are mirrored or cut a lot. Photos smaller than `HASHED_SIDE` are compared by
    their bytes only. Photos that cannot be read are left out. Different drawings on an empty background may be found
    by mistake.

    Args:
        dataset: the data set.
        progress: is called with the number of photos read so far.
        memory: what is known of photos' files, and gets what is learned.

    Returns:
        One `Duplicate` for each photo that was found: first those of test, then those of validation, in the order of
        their split. It has the nearest photo, and the first one if several are equally near, training photos before
        validation photos.

    Reference:
        Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2 (DCT based).
    """
    train, validation, test = _prints(dataset.splits, progress, memory)
    return (*_twins(test, {**train, **validation}), *_twins(validation, train))


def _twins(prints: Mapping[_Photo, Print], others: Mapping[_Photo, Print]) -> list[Duplicate]:
    same: dict[bytes, _Photo] = {}
    for photo, known in others.items():
        same.setdefault(known.digest, photo)
    alike = _nearest(_bits(prints), _bits(others))
    found = []
    for photo, known in prints.items():
        exact = known.digest in same
        nearest = (same[known.digest], 0) if exact else alike.get(photo)
        if nearest is not None and nearest[1] <= NEAR:
            other, distance = nearest
            found.append(Duplicate(photo.id, photo.split, other.id, other.split, distance, exact))
    return found


def rows(duplicates: Iterable[Duplicate]) -> Iterator[list]:
    """The rows of a CSV file with `COLUMNS`, which `read_duplicates` reads."""
    return ([*dataclasses.astuple(found)[:-1], int(found.exact)] for found in duplicates)


def read_duplicates(path: str | os.PathLike) -> tuple[Duplicate, ...]:
    """The duplicates in a CSV file with `COLUMNS`, or as version 0.1 wrote it, which looked for test photos among the
    training photos alone."""
    with reading(path):
        return tuple(
            Duplicate(
                photo=row.get("photo") or row["test"],
                split=row.get("split", "test"),
                other=row.get("other") or row["train"],
                other_split=row.get("other_split", "train"),
                distance=int(row["distance"]),
                exact=row["exact"] == "1",
            )
            for row in read_csv(path)
        )


class DuplicateCounts(TypedDict):
    """How many photos of a split are exact duplicates, and how many are near ones only."""

    exact: int
    near: int


def count(duplicates: Sequence[Duplicate], *, split: str = "test") -> DuplicateCounts:
    """How many duplicates a split has."""
    exact = [found.exact for found in duplicates if found.split == split]
    return {"exact": sum(exact), "near": len(exact) - sum(exact)}


def unlike_others(duplicates: Iterable[Duplicate], photos: Sequence[str], *, split: str = "test") -> np.ndarray:
    """Which photos look like none of an earlier split: those on which a score says something of new photos.

    Args:
        duplicates: what `find_duplicates` found.
        photos: ids of photos of that split.
        split: whose they are.

    Returns:
        bool [photos].
    """
    twins = {found.photo for found in duplicates if found.split == split}
    return np.array([photo not in twins for photo in photos], bool)


def _prints(
    splits: Sequence[Split], progress: Callable[[int], None] | None, memory: PrintMemory | None
) -> list[dict[_Photo, Print]]:
    """For each split, what each photo that can be read is recognised by."""
    work = [(split, index) for split in splits for index in range(len(split))]
    versions = [split.source.version(split.photos[index]) if memory else None for split, index in work]
    known = list(memory.find(versions)) if memory else [None] * len(work)
    found: list[dict] = [{} for _ in splits]
    places = [number for number, split in enumerate(splits) for _ in range(len(split))]
    learned: dict[FileVersion, Print] = {}
    with photo_threads(readers_of(split.source for split in splits)) as pool:
        prints = pool.map(lambda at, before: before or _print(*at), work, known)
        for done, (number, (split, index), version, before, now) in enumerate(
            zip(places, work, versions, known, prints, strict=True), start=1
        ):
            if now is not None:
                found[number][_Photo(split.name, split.photos[index])] = now
            if version and before is None and now and split.source.version(split.photos[index]) == version:
                learned[version] = now
            if progress:
                progress(done)
    if memory:
        memory.keep(learned)
    return found


def _print(split: Split, index: int) -> Print | None:
    try:
        encoded = split.read(index)
        picture = _picture(encoded)
    except (OSError, BadPhoto):
        return None
    hashed = min(picture.size) >= HASHED_SIDE
    bits = np.packbits(imagehash.phash(picture).hash.ravel()).view(np.uint64)[0] if hashed else None
    return Print(photo_digest(encoded), bits)


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


def _bits(prints: Mapping[_Photo, Print]) -> dict[_Photo, np.uint64]:
    return {photo: known.bits for photo, known in prints.items() if known.bits is not None}


def _nearest(
    photos: Mapping[_Photo, np.uint64], others: Mapping[_Photo, np.uint64]
) -> dict[_Photo, tuple[_Photo, int]]:
    """The nearest other photo of each photo, the first one of several, and its distance."""
    if not photos or not others:
        return {}
    (names, bits), (other_names, other_bits) = (
        (list(known), np.array(list(known.values()))) for known in (photos, others)
    )
    found, size = {}, max(1, BLOCK // len(other_bits))
    for start in range(0, len(bits), size):
        distances = np.bitwise_count(bits[start : start + size, None] ^ other_bits)
        for row, place in enumerate(distances.argmin(axis=1)):
            found[names[start + row]] = (other_names[place], int(distances[row, place]))
    return found
