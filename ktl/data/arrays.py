"""Photos that are arrays of pixels or PIL images in memory."""

import dataclasses
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from PIL import Image

from ktl.data.found import Found
from ktl.data.images import BadPhoto, pixels_of
from ktl.data.listing import Listing
from ktl.data.split import FileVersion, Split
from ktl.errors import UserError, reason_of, shown
from ktl.names import check_classes, check_names, composed

Photos = np.ndarray | Sequence[Any]
"""uint8 [photos, height, width, 3], or a sequence of uint8 [height, width, 3] and PIL images."""

Labels = np.ndarray | Sequence[int] | Sequence[str]


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Photos that are arrays of pixels; they are kept as they are, and encoded when they are read."""

    pixels: Mapping[str, np.ndarray]

    def read(self, photo: str) -> bytes:
        file = io.BytesIO()
        Image.fromarray(self.pixels[photo]).save(file, "BMP")  # lossless, and quicker than compressing
        return file.getvalue()

    def stamp(self, photo: str) -> str:
        pixels = self.pixels[photo]
        return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()

    def version(self, photo: str) -> FileVersion | None:
        return None


def list_arrays(
    images: Photos,
    labels: Labels,
    *,
    class_names: Sequence[str] | None,
    validation: tuple[Photos, Labels] | None,
    test: tuple[Photos, Labels] | None,
) -> Listing:
    """The photos of arrays, see `ktl.Dataset.from_arrays`."""
    given = {"train": (images, labels), "validation": validation, "test": test}
    stored: dict[str, np.ndarray] = {}
    photos: dict[str, tuple[str, ...]] = {}
    values: dict[str, np.ndarray] = {}
    for split, part in given.items():
        if part is None:
            continue
        if not isinstance(part, tuple | list) or len(part) != 2:
            raise UserError(f"Expected `{split}` to be a pair (images, labels). Received: {type(part).__name__}")
        prefix = "" if split == "train" else f"`{split}` "
        pixels = _pixels(part[0], argument=f"{prefix}images")
        values[split] = _values(part[1], count=len(pixels), argument=f"{prefix}labels")
        photos[split] = tuple(f"{split}/{index:05}" for index in range(len(pixels)))
        stored.update(zip(photos[split], pixels, strict=True))
    names, source = _class_names(values, class_names), ArraySource(stored)
    splits = {
        split: Split(split, photos[split], _indices(values[split], names, split=split), source) for split in photos
    }
    labelled = np.concatenate([split.labels for split in splits.values()])
    counts = dict(zip(names, np.bincount(labelled, minlength=len(names)).tolist(), strict=True))
    return Listing("arrays", splits, names, found=Found(remarks=check_classes(counts, place="the class names")))


def _pixels(images: Iterable, *, argument: str) -> list[np.ndarray]:
    found = []
    if not np.iterable(images):
        raise UserError(f"Expected {argument} to be an array or a list of photos. Received: {type(images).__name__}")
    for index, image in enumerate(images):
        if isinstance(image, Image.Image):
            try:
                found.append(pixels_of(image))
            except BadPhoto as error:
                message = f"Expected {argument} that can be decoded. Received: {argument}[{index}] ({error})"
                raise UserError(message) from error
            continue
        try:
            array: np.ndarray = np.asarray(image)
        except ValueError:  # lists of lists of other lengths
            array = np.empty(0, object)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
            raise UserError(
                f"Expected {argument} to be uint8 [photos, height, width, 3] with pixels in 0..255, or a list of uint8 "
                f"[height, width, 3] and PIL images. Received: {argument}[{index}] is {described(array)}"
            )
        found.append(array)
    if not found:
        raise UserError(f"Expected {argument} to have photos. Received: none")
    return found


def _values(labels: Labels, *, count: int, argument: str) -> np.ndarray:
    """The labels as int64 or str [count]."""
    each = np.asarray(labels, object).ravel().tolist() if isinstance(labels, list | tuple | np.ndarray) else []
    if len({isinstance(label, str) for label in each}) > 1:
        raise UserError(f"Expected {argument} to be numbers, or to be class names. Received: both")
    try:
        values = np.asarray(np.asarray(labels).tolist())  # the latter tells an object array of strings from others
    except ValueError as error:
        raise UserError(f"Expected {argument} of one shape. Received: {reason_of(error)}") from error
    if values.dtype.kind == "U":
        values = np.vectorize(composed, otypes=[np.str_])(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]  # as keras.datasets.cifar10 has them
    if values.ndim != 1 or values.dtype.kind not in "iU":
        raise UserError(
            f"Expected {argument} to be whole numbers or class names, of shape [photos] or [photos, 1]. Received: "
            f"{described(values)}"
        )
    if len(values) != count:
        raise UserError(f"Expected as many {argument} as images. Received: {len(values)} for {count} images")
    return values


def _class_names(values: Mapping[str, np.ndarray], given: Sequence[str] | None) -> tuple[str, ...]:
    kinds = {part.dtype.kind for part in values.values()}
    if len(kinds) > 1:
        raise UserError("Expected the labels of all splits to be of one kind. Received: both numbers and class names")
    every = np.concatenate(list(values.values()))
    if given is None and kinds == {"i"} and every.max(initial=0) > len(every):
        raise UserError(f"Expected labels to be names, or numbers from 0 without gaps. Received: {every.max()}")
    if given is None:
        names = sorted(set(every.tolist())) if kinds == {"U"} else range(int(every.max(initial=-1)) + 1)
        names = tuple(map(str, names))
    else:
        ordered = np.iterable(given) and not isinstance(given, str | Mapping | Set)
        listed = list(given) if ordered else []
        names = tuple(composed(name) for name in listed if isinstance(name, str))
        if not listed or len(set(names)) < len(listed):
            raise UserError(f"Expected `class_names` to be different strings, in an order. Received: {shown(given)}")
    check_names(names, place="class_names" if given is not None else "labels")
    return names


def _indices(values: np.ndarray, class_names: tuple[str, ...], *, split: str) -> np.ndarray:
    """The labels as indices into the class names, int32 [photos]."""
    if values.dtype.kind == "U":
        numbers = {name: number for number, name in enumerate(class_names)}
        unknown = sorted(set(values.tolist()) - set(numbers))
        if unknown:
            raise UserError(f"Expected labels to be among class_names. Received: {unknown[0]!r} in the {split} split")
        return np.array([numbers[name] for name in values.tolist()], np.int32)
    outside = values[(values < 0) | (values >= len(class_names))]
    if outside.size:
        raise UserError(
            f"Expected labels from 0 to {len(class_names) - 1}, of {len(class_names)} `class_names`. Received: "
            f"{outside[0]} in the {split} split"
        )
    return values.astype(np.int32)


def described(array: np.ndarray) -> str:
    """The type and the shape of an array, as errors show them."""
    return f"{array.dtype} {list(array.shape)}"
