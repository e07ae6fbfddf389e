"""WRITERS: how a network is written in each format. A new format is a new row."""

from collections.abc import Callable
from pathlib import Path

from ktl.exporting.litert import write_litert
from ktl.exporting.onnx import write_onnx
from ktl.exporting.saved_model import write_saved_model
from ktl.exporting.subject import Subject, deployed
from ktl.files import write_lines
from ktl.inference.formats import KERAS_MODEL, LABELS, LITERT_MODEL, ONNX_MODEL
from ktl.models.batchnorm_folding import fold_batch_normalization


def _write_saved_model(subject: Subject, folder: Path, quantization: str) -> None:
    write_saved_model(_deployed(subject), folder, features=subject.head_input, class_names=subject.class_names)


def _write_keras(subject: Subject, folder: Path, quantization: str) -> None:
    model = _deployed(subject)
    fold_batch_normalization(model.inputs[0], model.outputs).save(folder / KERAS_MODEL)
    write_lines(folder / LABELS, subject.class_names)


def _write_litert(subject: Subject, folder: Path, quantization: str) -> None:
    views = subject.training_views() if quantization == "int8" else None
    write_litert(_deployed(subject), folder / LITERT_MODEL, quantization=quantization, calibration=views)
    write_lines(folder / LABELS, subject.class_names)


def _write_onnx(subject: Subject, folder: Path, quantization: str) -> None:
    write_onnx(_deployed(subject), folder / ONNX_MODEL)
    write_lines(folder / LABELS, subject.class_names)


def _deployed(subject: Subject):
    return deployed(subject.model, temperature=subject.temperature)


WRITERS: dict[str, Callable[[Subject, Path, str], None]] = {
    "savedmodel": _write_saved_model,
    "litert": _write_litert,
    "onnx": _write_onnx,
    "keras": _write_keras,
}
"""Format -> what writes a network in it: gets the network, the folder and the quantization."""
