"""Test photos of a report, as small pictures inside of the page."""

import base64
import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ktl.data.images import BadPhoto, decode
from ktl.data.loading import load_dataset
from ktl.data.split import Source, sources_of
from ktl.data.tfds_facts import FACTS
from ktl.errors import UserError
from ktl.names import is_url
from ktl.runs.finished_run import FinishedRun
from ktl.streams import without_standard_error

THUMBNAIL_SIDE = 160
"""The long side of a thumbnail in pixels."""


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """A small JPEG inside of the page."""

    uri: str
    width: int
    height: int


@dataclasses.dataclass(frozen=True)
class ShownPhoto:
    """A test photo of the page.

    Attributes:
        number: its position in the test split.
        name: its id.
        label: name of the true class.
        prediction: name of the predicted class.
        probability: of the predicted class.
        label_probability: of the true class.
        thumbnail: None where the photo cannot be had.
    """

    number: int
    name: str
    label: str
    prediction: str
    probability: float
    label_probability: float
    thumbnail: Thumbnail | None


def thumbnails(run: FinishedRun, numbers: Sequence[int]) -> dict[int, Thumbnail]:
    """Small pictures of test photos.

    Args:
        run: whose test photos they are.
        numbers: positions in its test split.

    Returns:
        Number -> picture, of the photos that can be read; none if the data set is gone.
    """
    try:
        sources = _sources(run.settings["dataset"], run.settings["data_dir"])
    except (UserError, OSError):
        return {}
    found = {}
    for number in numbers:
        try:
            found[number] = _thumbnail(sources[run.test_photos[number]].read(run.test_photos[number]))
        except (KeyError, OSError, BadPhoto):  # another photo set under that name, or a photo that went
            continue
    return found


def _sources(dataset: str, data_dir: str | None) -> dict[str, Source]:
    """None of a data set that would have to be fetched: no page is worth a download."""
    return sources_of(load_dataset(dataset, data_dir=data_dir).splits) if _at_hand(dataset, data_dir) else {}


def _at_hand(dataset: str, data_dir: str | None) -> bool:
    if is_url(dataset):
        return False
    path = Path(os.path.expanduser(dataset))
    if dataset == "digits" or path.is_absolute() or (dataset not in FACTS and path.exists()):
        return True
    with without_standard_error():  # TensorFlow's messages at its start
        import tensorflow_datasets as tfds

        import ktl.data.caltech256  # noqa: F401  (registers the builder)

    try:
        return tfds.builder(dataset, data_dir=data_dir).is_prepared()
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError):
        return False


def _thumbnail(encoded: bytes) -> Thumbnail:
    image = Image.fromarray(decode(encoded))
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75, optimize=True)
    return Thumbnail("data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(), *image.size)
