"""Labels for photos: photos in, one prediction a photo out."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ktl.arguments import checked_arguments
from ktl.data.batches import made_ahead
from ktl.data.images import WORKERS, BadPhoto
from ktl.errors import UserError
from ktl.inference.photos import NamedPhoto, Photos, name_photos, place_of
from ktl.inference.predictor import TOP_K, Predictor, predictor_of
from ktl.models.classifier import TransferClassifier
from ktl.names import is_url
from ktl.progress import Reporter, Verbose, reporter_for
from ktl.remote import READERS

BATCH_SIZE = 64
"""Photos that the network sees at a time."""

BATCHES_AHEAD = 2
"""Batches that are decoded while the network has one: one that is ready next, and one to make up for large photos."""


COLUMNS = ("photo", "label", "probability", "runner_up", "runner_up_probability")
"""Of tables of predictions."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a network says of one photo.

    Attributes:
        photo: its name: the path of its file, or `photos[2]` of the third image or array.
        top: (label, probability) of the `TOP_K` most probable classes, the best first; empty if it cannot be read.
        reason: why it cannot be read; else None.
    """

    photo: str
    top: tuple[tuple[str, float], ...] = ()
    reason: str | None = None

    @property
    def label(self) -> str | None:
        """The most probable class; None if the photo cannot be read."""
        return self.top[0][0] if self.top else None

    @property
    def probability(self) -> float | None:
        """The probability of that class, 0 to 1; None if the photo cannot be read."""
        return self.top[0][1] if self.top else None


@checked_arguments
def predict(
    classifier: TransferClassifier | Predictor | str | os.PathLike, photos: Photos, *, verbose: Verbose = 1
) -> list[Prediction]:
    """Labels photos, in their order.

    Nothing in the process is changed. A photo that cannot be read gets a prediction without a label, and a reason.

    Args:
        classifier: a `TransferClassifier`; or the folder of a run, of a search (its best run), or of an export; or what
            `ktl.load` gives for one, which is quicker when there are more photos later.
        photos: paths or URLs of files or folders (all photos at any depth), PIL images, or arrays of pixels in 0..255,
            uint8 [height, width, 3] each or [photos, height, width, 3].
        verbose: see `ktl.progress.reporter_for`.

    Raises:
        UserError: there is no photo, what is given is no photo, or there is no classifier.

    Example:
        >>> rose, broken = ktl.predict("runs/flowers", ["rose.jpg", "broken.jpg"])
        >>> rose.label, round(rose.probability, 3)
        ('rose', 0.974)
        >>> broken.label, broken.reason
        (None, 'the file is empty')
    """
    named = name_photos(photos)
    return list(label_photos(predictor_of(classifier), named, reporter=reporter_for(verbose)))


def label_photos(
    predictor: Predictor, photos: Sequence[NamedPhoto | str | Path], *, reporter: Reporter | None = None
) -> Iterator[Prediction]:
    """Labels photos one by one, in their order; the next ones are decoded while the network has a batch.

    Args:
        predictor: the network.
        photos: photos, or paths or URLs of files. Little more than (BATCHES_AHEAD + 1) * BATCH_SIZE views are in
            memory.
        reporter: is told of the progress.

    Yields:
        One for each photo, one that cannot be read too.
    """

    def seen(photo: NamedPhoto | str | Path) -> tuple[str, np.ndarray | BadPhoto]:
        named = photo if isinstance(photo, NamedPhoto) else NamedPhoto(f"{photo}", place_of(photo))
        try:
            return named.name, named.view(predictor.image_size)
        except BadPhoto as error:
            return named.name, error

    done, threads = 0, READERS if any(map(_is_remote, photos)) else WORKERS
    with (
        contextlib.closing(made_ahead(seen, photos, threads=threads, waiting=BATCHES_AHEAD * BATCH_SIZE)) as views,
        (reporter or Reporter()).photos("photos", len(photos)) as progress,
    ):
        while batch := list(itertools.islice(views, BATCH_SIZE)):
            yield from _classified(predictor, batch)
            done += len(batch)
            progress(done)


def _is_remote(photo: NamedPhoto | str | Path) -> bool:
    return is_url(photo.content if isinstance(photo, NamedPhoto) else photo)


def row_of(prediction: Prediction) -> tuple[str, ...]:
    """The values of `COLUMNS` for a photo that was read."""
    best = [(label, f"{probability:.6f}") for label, probability in prediction.top[:2]]
    return (printable(prediction.photo), *itertools.chain(*best), *("", "") * (2 - len(best)))


def printable(name: str) -> str:
    """A file's name may be bytes in no encoding; what stands for those cannot be printed."""
    return os.fsencode(name).decode(errors="backslashreplace")


def top_classes(predictor: Predictor, probabilities: np.ndarray) -> tuple[tuple[str, float], ...]:
    """(label, probability) of the `TOP_K` most probable classes, the best first, from float32 [classes]."""
    best = np.argsort(-probabilities, kind="stable")[:TOP_K]
    return tuple((predictor.class_names[index], float(probabilities[index])) for index in best)


def _classified(predictor: Predictor, batch: list[tuple[str, np.ndarray | BadPhoto]]) -> Iterator[Prediction]:
    views = [view for _, view in batch if isinstance(view, np.ndarray)]
    probabilities = predictor.classify(np.stack(views)) if views else np.empty(0)
    if not np.isfinite(probabilities).all():
        read = [photo for photo, view in batch if isinstance(view, np.ndarray)]
        index, label = np.argwhere(~np.isfinite(probabilities))[0]
        raise UserError(
            f"Expected {predictor.name} to give finite probabilities. Received: {probabilities[index, label]} for "
            f"{read[index]}"
        )
    rows = iter(probabilities)
    for photo, view in batch:
        if isinstance(view, BadPhoto):
            yield Prediction(photo, reason=f"{view}")
        else:
            yield Prediction(photo, top_classes(predictor, np.asarray(next(rows))))
