"""Test photos of a report, as small pictures inside of the page."""

import base64
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ktl.config.settings import RunConfig
from ktl.data.images import BadPhoto, decode
from ktl.data.loading import load_dataset
from ktl.data.tfds import FACTS
from ktl.errors import UserError
from ktl.runs.finished_run import FinishedRun

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
    """Of the photos that can be read; none if the data set is gone."""
    try:
        split = load_dataset(run.config.dataset, data_dir=run.config.data_dir).test if _at_hand(run.config) else None
    except (UserError, OSError):
        split = None
    if split is None:
        return {}
    places = {photo: index for index, photo in enumerate(split.photos)}
    found = {}
    for number in numbers:
        try:
            found[number] = _thumbnail(split.read(places[run.test_photos[number]]))
        except (KeyError, OSError, BadPhoto):  # another photo set under that name, or a photo that went
            continue
    return found


def _at_hand(config: RunConfig) -> bool:
    """False for a data set that TensorFlow Datasets would have to fetch: no page is worth a download."""
    path = Path(config.dataset).expanduser()
    if config.dataset == "digits" or path.is_absolute() or (config.dataset not in FACTS and path.exists()):
        return True
    import tensorflow_datasets as tfds

    import ktl.data.caltech256  # noqa: F401  (registers the builder)

    try:
        return tfds.builder(config.dataset, data_dir=config.data_dir).is_prepared()
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError):
        return False


def _thumbnail(encoded: bytes) -> Thumbnail:
    image = Image.fromarray(decode(encoded))
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75, optimize=True)
    return Thumbnail("data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(), *image.size)
