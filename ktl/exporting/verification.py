"""Compares an export with the network that it is of, in a process of its own:

python -m ktl.exporting.verification EXPORT EVIDENCE.npz
"""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ktl.data.images import BadPhoto, decode, large_one_by_one, photo_threads
from ktl.data.views import view_of
from ktl.errors import DamagedError, UserError, one_line, reason_of
from ktl.exporting.image_decoding import decode_in_graph
from ktl.exporting.record import Verification
from ktl.exporting.subject import Evidence, Subject
from ktl.inference.formats import SAVED_MODEL
from ktl.inference.predictor import load_predictor
from ktl.process import child_environment, set_up_keras

PROGRAM = (
    "import runpy; from ktl.process import end_with_parent; end_with_parent(); "
    "runpy.run_module('ktl.exporting.verification', run_name='__main__', alter_sys=True)"
)
"""Of the fresh process: it ends with this one, also while it still loads TensorFlow."""

BATCH = 32

TOLERANCES = {"none": 1e-4, "float16": 2e-2}
"""Quantization -> the most that a probability may differ from that of the network."""

ROUNDED_TOLERANCE = 2e-2
"""The same where the network itself was in mixed precision, or on a GPU."""

MOST_LOST = 0.05
"""Top-1 accuracy that int8 quantization may cost before the export is refused."""


OTHERWISE = {"int8": "`quantization` float16"}
"""Quantization -> what may do where it does not; otherwise another format."""

MOST_NAMED = 3
"""Photos of a kind that are named."""

ALIKE, UNDECODED, DECODED_OTHERWISE = range(3)


class ExportError(UserError):
    """An exported model does not give what the network gives that it is of."""


def verify(export: Path, subject: Subject, *, quantization: str) -> Verification:
    """Opens an export in a fresh process, and compares it with the network that it is of.

    Raises:
        UserError: the photos are not there, or TensorFlow decodes none of them.
        ExportError: the export does not load, or differs by more than its format may.
    """
    with tempfile.TemporaryDirectory(prefix="ktl-export-") as folder:
        evidence = subject.make_evidence(Path(folder))
        file = Path(folder, "evidence.npz")
        _write_evidence(file, evidence)
        command = [sys.executable, "-c", PROGRAM, str(export), str(file)]
        # The memory of a GPU may be this process's, all of it.
        hidden = {} if subject.run else {"CUDA_VISIBLE_DEVICES": "-1"}
        environment = {**os.environ, **hidden, **child_environment()}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode == 2:
        raise UserError(done.stderr.strip().splitlines()[-1])
    instead = f"The export is removed. Take {OTHERWISE.get(quantization, 'another `format`')}"
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ExportError(
            f"Expected an export that works in a fresh process. Received: {said[-1]}. {instead}"
        ) from RuntimeError(done.stderr)
    found: Verification = json.loads(done.stdout)
    problem = _problem(found, quantization, rounded=subject.rounded)
    if problem:
        origin = "run" if subject.run else "classifier"
        raise ExportError(
            f"Expected an export that gives what the {origin} gives. Received: {problem}; the photo that differs most "
            f"is {found.get('most_different')}. {instead}, or see whether that photo has changed"
        )
    if evidence.labels is None:  # those that it was compared by were the network's own answers
        found["top1"] = found["run_top1"] = None
    return found


def compare(export: Path, evidence: Evidence) -> Verification:
    """What an export gives for photos against what is expected.

    Photos that a SavedModel refuses or decodes to other pixels are counted, named and left out: what is compared is
    the network. Without labels, the classes that are expected count as true.

    Raises:
        UserError: it decodes none as Pillow does.
    """
    names = [one_line(str(name)) for name in evidence.names or evidence.photos]
    decoded = _decodings(evidence.photos) if (export / SAVED_MODEL).exists() else np.full(len(names), ALIKE)
    refused = [name for name, kind in zip(names, decoded, strict=True) if kind == UNDECODED]
    otherwise = [name for name, kind in zip(names, decoded, strict=True) if kind == DECODED_OTHERWISE]
    rows = np.flatnonzero(decoded == ALIKE)
    if not len(rows):
        raise UserError(
            f"Expected photos that TensorFlow decodes as Pillow does. Received: {len(refused)} that it refuses and "
            f"{len(otherwise)} that it decodes otherwise, such as {names[0]}. Take another `format`"
        )
    expected = evidence.expected[rows]
    labels = expected.argmax(axis=1) if evidence.labels is None else evidence.labels[rows]
    received = probabilities_for(export, [evidence.photos[row] for row in rows.tolist()])
    differences = np.abs(received - expected).max(axis=1)
    top, expected_top = received.argmax(axis=1), expected.argmax(axis=1)
    return {
        "photos": len(rows),
        "undecoded": len(refused),
        "undecoded_photos": refused[:MOST_NAMED],
        "decoded_otherwise": len(otherwise),
        "decoded_otherwise_photos": otherwise[:MOST_NAMED],
        "top1": float(np.mean(top == labels)),
        "run_top1": float(np.mean(expected_top == labels)),
        "largest_difference": float(differences.max()),
        "most_different": names[int(rows[differences.argmax()])],
        "labels_changed": int(np.sum(top != expected_top)),
    }


def probabilities_for(export: Path, photos: Sequence[Path]) -> np.ndarray:
    """What an export gives for files: of a SavedModel from their encoded bytes, of others from their views."""
    batches = [photos[start : start + BATCH] for start in range(0, len(photos), BATCH)]
    if (export / SAVED_MODEL).exists():
        served: Any = tf.saved_model.load(str(export))
        signature = served.signatures["serving_default"]
        encoded = ([photo.read_bytes() for photo in batch] for batch in batches)
        return np.concatenate([signature(photos=tf.constant(batch))["probabilities"] for batch in encoded])
    try:
        predictor = load_predictor(export)
    except UserError as error:  # nobody has touched it yet
        raise ExportError(str(error)) from error
    size = predictor.image_size
    views = (np.stack([view_of(photo.read_bytes(), size=size) for photo in batch]) for batch in batches)
    return np.concatenate([predictor.classify(batch) for batch in views])


_decode = tf.function(decode_in_graph, input_signature=[tf.TensorSpec([], tf.string)])


def _decodings(photos: Sequence[Path]) -> np.ndarray:
    """How a SavedModel decodes photos, against what the network was given: ALIKE, ... [photos]."""
    with photo_threads() as pool:
        return np.array(list(pool.map(_decoding, photos)))


def _decoding(photo: Path) -> int:
    encoded = photo.read_bytes()
    with large_one_by_one(encoded):
        try:
            pixels = _decode(tf.constant(encoded)).numpy()
        except tf.errors.InvalidArgumentError:
            return UNDECODED
        try:
            return ALIKE if np.array_equal(pixels, decode(encoded)) else DECODED_OTHERWISE
        except BadPhoto:  # it has changed since
            return DECODED_OTHERWISE


def _problem(found: Verification, quantization: str, *, rounded: bool) -> str | None:
    """What is wrong with an export, or None."""
    if quantization == "int8":
        lost = (found["run_top1"] or 0) - (found["top1"] or 0)
        return f"test top-1 is {lost:.3f} lower, over {MOST_LOST} allowed" if lost > MOST_LOST else None
    # A label can then only change where two classes are as good as equal.
    tolerance = max(TOLERANCES[quantization], ROUNDED_TOLERANCE if rounded else 0)
    if found["largest_difference"] <= tolerance:
        return None
    return f"a probability that differs by {found['largest_difference']:.2g}, over {tolerance} allowed"


def _write_evidence(file: Path, evidence: Evidence) -> None:
    photos = np.array([str(photo) for photo in evidence.photos])
    arrays: dict[str, Any] = {"photos": photos, "expected": evidence.expected}
    if evidence.labels is not None:
        arrays["labels"] = evidence.labels
    if evidence.names is not None:
        arrays["names"] = np.array(evidence.names, dtype=str)
    np.savez(file, **arrays)


def _read_evidence(file: str) -> Evidence:
    with np.load(file, allow_pickle=False) as arrays:
        photos = [Path(str(photo)) for photo in arrays["photos"]]
        names = [str(name) for name in arrays["names"]] if "names" in arrays else None
        return Evidence(photos, arrays["expected"], arrays.get("labels"), names)


if __name__ == "__main__":
    try:
        set_up_keras()
        found = compare(Path(sys.argv[1]), _read_evidence(sys.argv[2]))
    except Exception as error:
        # What was written just now is no input of the user's, whatever is wrong with it.
        if not isinstance(error, UserError) or isinstance(error, DamagedError | ExportError):
            traceback.print_exc()
            print(reason_of(error), file=sys.stderr)
            sys.exit(1)
        print(error, file=sys.stderr)
        sys.exit(2)
    print(json.dumps(found))
