"""Compares an export with its run, in a process of its own:

python -m ktl.exporting.verification EXPORT RUN TEMPERATURE PHOTOS
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from ktl.data.dataset import Split
from ktl.data.loading import load_dataset
from ktl.data.views import view_of
from ktl.errors import UserError
from ktl.evaluation.calibration import with_temperature
from ktl.exporting.image_decoding import decode_in_graph
from ktl.inference.formats import SAVED_MODEL
from ktl.inference.predictor import load_predictor
from ktl.runs.finished_run import FinishedRun, read_run

BATCH = 32


def compare(export: Path, run: FinishedRun, *, temperature: float, photos: int) -> dict:
    """Scores an export on the run's test photos, evenly spread if there are more than `photos`.

    Returns:
        photos, undecoded (photos besides, that TensorFlow cannot decode), top1, run_top1, largest_difference (of a
        probability), labels_changed.

    Raises:
        UserError: the photos are not there, or it can decode none.
    """
    count = len(run.test_photos)
    rows = np.unique(np.linspace(0, count - 1, min(count, photos)).astype(int))
    split = _photos(run, rows)
    try:
        received = probabilities(export, split)
    except tf.errors.InvalidArgumentError as error:
        decoded = np.flatnonzero([_is_decoded(split.read(index)) for index in range(len(split))])
        if len(decoded) == len(split):
            raise  # it was something else
        if not len(decoded):
            message = f"Expected photos that TensorFlow decodes. Received: none in the test split of {run.path}"
            raise UserError(message) from error
        split, rows = split.take(decoded), rows[decoded]
        received = probabilities(export, split)
    labels = run.probabilities["test_labels"][rows]
    expected = with_temperature(run.probabilities["test"][rows], temperature)
    top, run_top = received.argmax(axis=1), expected.argmax(axis=1)
    return {
        "photos": len(rows),
        "undecoded": min(count, photos) - len(rows),
        "top1": float(np.mean(top == labels)),
        "run_top1": float(np.mean(run_top == labels)),
        "largest_difference": float(np.abs(received - expected).max()),
        "labels_changed": int(np.sum(top != run_top)),
    }


def probabilities(export: Path, split: Split) -> np.ndarray:
    """What an export gives for photos: of a SavedModel from their encoded bytes, of others from their views."""
    if (export / SAVED_MODEL).exists():
        served = tf.saved_model.load(str(export))
        signature = served.signatures["serving_default"]
        batches = ([split.read(index) for index in batch] for batch in _batches(len(split)))
        return np.concatenate([signature(photos=tf.constant(batch))["probabilities"] for batch in batches])
    predictor = load_predictor(export)
    size = predictor.image_size
    batches = (np.stack([view_of(split.read(index), size=size) for index in batch]) for batch in _batches(len(split)))
    return np.concatenate([predictor.classify(views) for views in batches])


_decode = tf.function(decode_in_graph, input_signature=[tf.TensorSpec([], tf.string)])


def _is_decoded(photo: bytes) -> bool:
    try:
        _decode(tf.constant(photo))
    except tf.errors.InvalidArgumentError:
        return False
    return True


def _photos(run: FinishedRun, rows: np.ndarray) -> Split:
    """The run's test photos at `rows`; those that it had to leave out are not among them."""
    split = load_dataset(run.settings["dataset"], data_dir=run.settings["data_dir"]).test
    place = {photo: index for index, photo in enumerate(split.photos)}
    missing = [run.test_photos[row] for row in rows if run.test_photos[row] not in place]
    if missing:
        raise UserError(f"Expected the photos that the run was tested on. Received: none named {missing[0]}")
    return split.take(np.array([place[run.test_photos[row]] for row in rows]))


def _batches(count: int) -> list[range]:
    return [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]


if __name__ == "__main__":
    export, run, temperature, photos = sys.argv[1:]
    try:
        found = compare(Path(export), read_run(run), temperature=float(temperature), photos=int(photos))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(json.dumps(found))
