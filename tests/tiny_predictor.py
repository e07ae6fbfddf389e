"""The tiny backbone as a trained model, and what it says of photos one by one."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ktl.data.images import decode
from ktl.data.views import evaluation_view
from ktl.files import write_lines
from ktl.inference.predictor import Predictor

LABELS = [f"flower {number}" for number in range(18)] + ["[red]rose", "a, b"]
SIZE = 42


def write_model(folder: Path, backbone: Path, labels: Sequence[str] = LABELS) -> Path:
    """A folder that `load_predictor` opens."""
    folder.mkdir(exist_ok=True)
    shutil.copy(backbone, folder / "model.keras")
    write_lines(folder / "labels.txt", labels)
    return folder


def label_one_by_one(predictor: Predictor, photos: list[Path]) -> list[list[tuple[str, float]]]:
    """(label, probability) of the five best classes of each photo, sorted."""
    views = [evaluation_view(decode(photo.read_bytes()), size=SIZE)[np.newaxis] for photo in photos]
    rows = [predictor.classify(view)[0] for view in views]
    return [sorted(zip(LABELS, map(float, row), strict=True), key=lambda pair: -pair[1])[:5] for row in rows]
