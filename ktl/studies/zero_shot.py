"""What ImageNet's own classification layer, untouched, says of the test photos whose classes ImageNet has too."""

import csv
import dataclasses
import functools
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ktl.copies import local_file
from ktl.data.dataset import Split
from ktl.data.imagenet_classes import CLASSES, Synset, are_named, synsets
from ktl.data.input_pipeline import PhotoCache, evaluation_batches
from ktl.errors import UserError, reason_of
from ktl.models.backbones import Backbone
from ktl.texts import read_text
from ktl.training.evaluate import predict_logits

COLUMNS = ["class", "synset"]

_WORDNET_ID = re.compile(r"(?<![A-Za-z0-9])n\d{8}(?!\d)")

Correspondence = Mapping[str, tuple[Synset, ...]]
"""Class name -> the classes of ImageNet that it is; a class that ImageNet does not have is not in it."""


@dataclasses.dataclass(frozen=True)
class ZeroShot:
    """Scores of the untouched classification layer.

    Attributes:
        chosen: int [photos], positions in the split of the photos whose class corresponds.
        top1: share of these for which the highest of all 1000 logits is of the photo's class.
        restricted_top1: the same among the logits of the corresponding classes alone.
    """

    chosen: np.ndarray
    top1: float
    restricted_top1: float


def find_correspondence(class_names: Sequence[str], *, mapping: str | None = None) -> Correspondence:
    """Which classes of a data set are classes of ImageNet.

    A class is what the mapping says of it. Where it says nothing, a class with a WordNet id in its name, as in
    `n02085620-chihuahua`, is that synset; any other one is the synset that has its name among its synonyms, letter by
    letter and in either case, if there is exactly one. By name a thing may be taken for another of the same name, as
    the boxer who is no dog: see what is found.

    Args:
        class_names: of the data set.
        mapping: the path or URL of a CSV file of `class,synset`, a row for each pair; the synset is a WordNet id.

    Raises:
        UserError: the file cannot be read, or names a class or a synset that there is not.
    """
    named = {}
    if mapping:
        with local_file(mapping, argument="synsets") as path:
            named = _read_mapping(Path(path), class_names)
    found = {name: named.get(name) or _by_name(name) for name in class_names}
    return {name: those for name, those in found.items() if those}


def is_scorable(backbone: Backbone, *, weights: str) -> bool:
    """Whether a backbone's classification layer knows the classes of ImageNet.

    Args:
        backbone: from `ktl.models.backbones.build_backbone`.
        weights: what it was built with.
    """
    return weights != "random" and backbone.logits.shape[-1] == CLASSES


def unnamed_classes(backbone: Backbone, *, weights: str) -> list[str]:
    """A warning where nobody can tell which classes a backbone's own classification layer knows; else nothing.

    Args:
        backbone: from `ktl.models.backbones.build_backbone`.
        weights: what it was built with.
    """
    if are_named() or not is_scorable(backbone, weights=weights):
        return []
    return [
        "WARNING: which classes are classes of ImageNet was not looked at: their names come with TensorFlow Datasets, "
        "which is not installed. Test photos of such classes may be training photos of the backbone"
    ]


def known_classes(
    backbone: Backbone, class_names: Sequence[str], *, weights: str, mapping: str | None = None
) -> Correspondence:
    """The classes of a data set that a backbone's own classification layer knows: none if it `is_scorable` not.

    Args:
        backbone: from `ktl.models.backbones.build_backbone`.
        class_names: of the data set.
        weights: what the backbone was built with.
        mapping: see `find_correspondence`, which raises the same errors.
    """
    correspondence = find_correspondence(class_names, mapping=mapping)
    return correspondence if is_scorable(backbone, weights=weights) else {}


def score_zero_shot(
    backbone: Backbone,
    split: Split,
    class_names: Sequence[str],
    correspondence: Correspondence,
    *,
    batch_size: int,
) -> ZeroShot | None:
    """Scores the untouched classification layer on the photos whose class corresponds.

    A photo is recognised if the highest logit is that of any synset of its class.

    Args:
        backbone: one that `is_scorable`.
        split: photos that can all be decoded.
        class_names: a label is an index into these.
        correspondence: from `find_correspondence`.
        batch_size: photos a step.

    Returns:
        The scores; None where no photo is of such a class.
    """
    belongs = _belongs(class_names, correspondence)
    chosen = np.flatnonzero(np.any(belongs, axis=1)[split.labels])
    if not chosen.size:
        return None
    part = split.take(chosen)
    batches = evaluation_batches(
        part, image_size=backbone.image_size, batch_size=batch_size, cache=PhotoCache(memory_gib=0)
    )
    logits = predict_logits(backbone.model, batches)
    restricted = np.where(np.any(belongs, axis=0), logits, -np.inf)
    top1, restricted_top1 = (
        float(np.mean(belongs[part.labels, scores.argmax(axis=1)])) for scores in (logits, restricted)
    )
    return ZeroShot(chosen, top1, restricted_top1)


def _belongs(class_names: Sequence[str], correspondence: Correspondence) -> np.ndarray:
    """bool [classes, 1000]: whether a class of ImageNet is the class."""
    numbers = {synset.id: number for number, synset in enumerate(synsets())}
    belongs = np.zeros((len(class_names), CLASSES), bool)
    for label, name in enumerate(class_names):
        belongs[label, [numbers[synset.id] for synset in correspondence.get(name, ())]] = True
    return belongs


def _by_name(class_name: str) -> tuple[Synset, ...]:
    wordnet_id = _WORDNET_ID.search(class_name)
    if wordnet_id:
        synset = _by_id().get(wordnet_id[0])
        return (synset,) if synset else ()
    found = _by_synonym().get(_letters(class_name), ())
    return found if len(found) == 1 else ()


@functools.cache
def _by_id() -> dict[str, Synset]:
    return {synset.id: synset for synset in synsets()}


@functools.cache
def _by_synonym() -> dict[str, tuple[Synset, ...]]:
    """Letters of a name -> the synsets that have it."""
    found: dict[str, tuple] = {}
    for synset in synsets():
        for name in dict.fromkeys(map(_letters, synset.synonyms)):
            found[name] = (*found.get(name, ()), synset)
    return found


def _letters(name: str) -> str:
    return "".join(filter(str.isalpha, name.lower()))


def _read_mapping(path: Path, class_names: Sequence[str]) -> dict[str, tuple[Synset, ...]]:
    """Class -> its synsets, of the classes that the file names."""
    if not are_named():
        raise UserError(
            f"Expected TensorFlow Datasets, which names the classes of `synsets`. Received: {path} without it"
        )
    try:
        text = read_text(path)
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row] or [[]]
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise UserError(f"Expected `synsets` to be a readable CSV file. Received: {path} ({reason})") from error
    if header != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise UserError(f"Expected `synsets` to have the columns {','.join(COLUMNS)}. Received: {path} with others")
    found: dict[str, dict] = {}
    for name, wordnet_id in rows:
        if name not in class_names:
            raise UserError(f"Expected classes of the data set in {path}. Received: {name!r}")
        if wordnet_id not in _by_id():
            raise UserError(
                f"Expected WordNet ids of the {CLASSES} classes of ImageNet in {path}. Received: {wordnet_id!r}"
            )
        found.setdefault(name, {})[wordnet_id] = _by_id()[wordnet_id]
    return {name: tuple(those.values()) for name, those in found.items()}
