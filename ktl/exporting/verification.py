"""Compares an export with the network that it is of, in a process of its own:

python -m ktl.exporting.verification EXPORT EVIDENCE.npz
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ktl.data.views import view_of
from ktl.errors import DamagedError, UserError
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


class ExportError(RuntimeError):
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
    if done.returncode:
        raise ExportError(f"the exported model does not work in a fresh process:\n{done.stderr}")
    found: Verification = json.loads(done.stdout)
    problem = _problem(found, quantization, rounded=subject.rounded)
    if problem:
        origin = "the run's" if subject.run else "the classifier"
        raise ExportError(f"the exported model differs from {origin}: {problem}")
    if evidence.labels is None:  # those that it was compared by were the network's own answers
        found["top1"] = found["run_top1"] = None
    return found


def compare(export: Path, evidence: Evidence) -> Verification:
    """What an export gives for photos against what is expected. Photos that TensorFlow cannot decode are left out.

    Without labels, the classes that are expected count as true.

    Raises:
        UserError: it can decode none.
    """
    photos, expected = list(evidence.photos), evidence.expected
    labels = expected.argmax(axis=1) if evidence.labels is None else evidence.labels
    try:
        received = probabilities_for(export, photos)
    except tf.errors.InvalidArgumentError as error:
        decoded = np.flatnonzero([_is_decoded(photo.read_bytes()) for photo in photos])
        if len(decoded) == len(photos):
            raise  # it was something else
        if not len(decoded):
            raise UserError(
                f"Expected photos that TensorFlow decodes. Received: {len(photos)} that it does not"
            ) from error
        photos, expected, labels = [photos[index] for index in decoded], expected[decoded], labels[decoded]
        received = probabilities_for(export, photos)
    top, expected_top = received.argmax(axis=1), expected.argmax(axis=1)
    return {
        "photos": len(photos),
        "undecoded": len(evidence.photos) - len(photos),
        "top1": float(np.mean(top == labels)),
        "run_top1": float(np.mean(expected_top == labels)),
        "largest_difference": float(np.abs(received - expected).max()),
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


def _is_decoded(photo: bytes) -> bool:
    try:
        _decode(tf.constant(photo))
    except tf.errors.InvalidArgumentError:
        return False
    return True


def _problem(found: Verification, quantization: str, *, rounded: bool) -> str | None:
    """What is wrong with an export, or None."""
    if quantization == "int8":
        lost = (found["run_top1"] or 0) - (found["top1"] or 0)
        return f"test top-1 is {lost:.3f} lower, over {MOST_LOST} allowed" if lost > MOST_LOST else None
    # A label can then only change where two classes are as good as equal.
    tolerance = max(TOLERANCES[quantization], ROUNDED_TOLERANCE if rounded else 0)
    if found["largest_difference"] <= tolerance:
        return None
    return f"a probability by {found['largest_difference']:.2g}, over {tolerance} allowed"


def _write_evidence(file: Path, evidence: Evidence) -> None:
    photos = np.array([str(photo) for photo in evidence.photos])
    arrays: dict[str, Any] = {"photos": photos, "expected": evidence.expected}
    if evidence.labels is not None:
        arrays["labels"] = evidence.labels
    np.savez(file, **arrays)


def _read_evidence(file: str) -> Evidence:
    with np.load(file, allow_pickle=False) as arrays:
        photos = [Path(str(photo)) for photo in arrays["photos"]]
        return Evidence(photos, arrays["expected"], arrays.get("labels"))


if __name__ == "__main__":
    try:
        set_up_keras()
        found = compare(Path(sys.argv[1]), _read_evidence(sys.argv[2]))
    except DamagedError:  # what was written just now
        raise
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(json.dumps(found))
