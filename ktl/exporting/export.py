"""A run's model as others use it: photos in, labels out, proven in a fresh process before it is handed over."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np

from ktl.config.settings import RunConfig
from ktl.data.images import BadPhoto
from ktl.data.views import view_of
from ktl.errors import UserError, unknown_name
from ktl.evaluation import calibration
from ktl.evaluation import metrics as evaluation
from ktl.exporting import model_card
from ktl.exporting.litert import QUANTIZATIONS, write_litert
from ktl.exporting.model_card import MODEL_CARD
from ktl.exporting.onnx import write_onnx
from ktl.exporting.saved_model import write_saved_model
from ktl.files import make_folder, new_folder, read_lines, write_lines
from ktl.inference.formats import KERAS_MODEL, LABELS, LITERT_MODEL, ONNX_MODEL, SAVED_MODEL, probabilities_of
from ktl.models.batchnorm_folding import fold_batch_normalization
from ktl.progress import Reporter
from ktl.runs.finished_run import FinishedRun, read_run

PARTIAL = ".ktl-partial"
"""Where an export is made: in the folder if that is there, else beside it, with its name before."""

CALIBRATION_PHOTOS = 128
"""Training photos that show int8 quantization the range of each layer's output."""

PROOF_PHOTOS = 1000
"""The most test photos that an export is proven with."""

TOLERANCES = {"none": 1e-4, "float16": 2e-2}
"""Quantization -> the most that a probability may differ from the run's."""

ROUNDED_TOLERANCE = 2e-2
"""The same where the run itself was in mixed precision, or on a GPU."""

MOST_LOST = 0.05
"""Test accuracy that int8 quantization may cost before the export is refused."""


def export(
    run: str | Path,
    *,
    output: str | Path,
    format: str = "savedmodel",
    quantization: str = "none",
    calibrate: bool = False,
    reporter: Reporter | None = None,
) -> dict:
    """Writes a run's model for use elsewhere, with its labels and a model card, and proves that it gives the same.

    The proof is a fresh process that loads the export and compares it with what the run gave on its test photos. An
    export that fails it is removed.

    Args:
        run: folder of a run, or of a search (its best run).
        output: a new or empty folder.
        format: of `FORMATS`.
        quantization: of `ktl.inference.formats.QUANTIZATIONS`; other than none for litert alone.
        calibrate: divide the logits by the temperature that fits the validation photos.
        reporter: is told of the progress.

    Returns:
        format, quantization, mebibytes; test: top1 of the run and of the export, and the largest difference of a
        probability, over how many photos; calibration: temperature, and ECE on the test photos before and after.

    Raises:
        UserError: bad input.
        ExportError: the export does not give what the run gave.
    """
    reporter = reporter or Reporter()
    _check(format, quantization)
    # One that is there is filled, not replaced: it may be a link, a mount, or where somebody's shell is.
    output = Path(output)
    partial = remove_partial(output)
    finished, output = read_run(run), new_folder(output, argument="output")
    found = {"format": format, "quantization": quantization, "calibration": _calibration(finished, calibrate)}
    make_folder(partial)
    try:
        model = deployed(keras.models.load_model(finished.path / KERAS_MODEL, compile=False), found["calibration"])
        reporter.message(f"writing {format}")
        FORMATS[format](model, finished, partial, quantization)
        found["mebibytes"] = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file()) / 2**20
        found["test"] = _prove(partial, finished, found, reporter)
        (partial / MODEL_CARD).write_text(model_card.render(finished, found), encoding="utf-8")
        _move(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def remove_partial(output: Path) -> Path:
    """Removes what a kill has left of an export, and gives the folder that one is written to until it is whole."""
    partial = output / PARTIAL if output.is_dir() else output.with_name(f".{output.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    return partial


def export_once(run: str | Path, *, output: str | Path, reporter: Reporter | None = None) -> None:
    """Exports a run as `export` does by default, unless the folder has that already.

    Args:
        run: folder of a run, or of a search (its best run).
        output: a new or empty folder, or a SavedModel of this very run.
        reporter: is told of the progress.

    Raises:
        UserError: bad input, or the export of another run is there.
        ExportError: the export does not give what the run gave.
    """
    finished, card = read_run(run), Path(output) / MODEL_CARD
    check_same_run(RunConfig.from_dict(finished.settings), output)
    if not card.exists():
        export(run, output=output, reporter=reporter)
    elif not (set(model_card.scores(finished)) <= set(read_lines(card)) and (Path(output) / SAVED_MODEL).exists()):
        raise UserError(f"Expected a new or empty folder, or the SavedModel of this run. Received: {output}")


def check_same_run(config: RunConfig, output: str | Path) -> None:
    """Raises UserError if an export is there, and is of a run with other settings."""
    card = Path(output) / MODEL_CARD
    recorded = RunConfig(**config.as_dict())  # as the run's folder has it, without what decides no number
    if card.exists() and recorded.command() not in read_lines(card):
        raise UserError(
            f"Expected a new or empty folder, or an export of the same run. Received: {output}, an export of "
            "another run"
        )


def _move(partial: Path, output: Path) -> None:
    """The model card last: with it, an export is whole."""
    if not output.is_dir():
        os.replace(partial, output)
        return
    for entry in sorted(partial.iterdir(), key=lambda entry: entry.name == MODEL_CARD):
        os.replace(entry, output / entry.name)


class ExportError(RuntimeError):
    """An exported model does not give what its run gave."""


def deployed(model: keras.Model, calibration: dict | None) -> keras.Model:
    """The model from pixels to probabilities, its logits divided by the temperature.

    Args:
        model: from pixels to logits, as a run saves it.
        calibration: has `temperature`; None for 1.
    """
    if calibration is None:
        return probabilities_of(model)
    scaled = keras.layers.Rescaling(1 / calibration["temperature"], dtype="float32", name="temperature")(model.output)
    return probabilities_of(keras.Model(model.input, scaled))


def head_input(model: keras.Model):
    """What the first new Dense layer reads, [batch, channels]: for `kept`, the normalised and scaled kept logits."""
    names = {layer.name for layer in model.layers}
    return model.get_layer("head_hidden" if "head_hidden" in names else "head_classifier").input


def _check(format: str, quantization: str) -> None:
    for name, value, known in (("format", format, FORMATS), ("quantization", quantization, QUANTIZATIONS)):
        if value not in known:
            raise unknown_name(f"`{name}`", value, known)
    if quantization != "none" and format != "litert":
        raise UserError(f"Expected `format` litert with `quantization`. Received: `format` {format}")


def _calibration(run: FinishedRun, wanted: bool) -> dict | None:
    if not wanted:
        return None
    values = run.probabilities
    temperature = calibration.fit_temperature(values["validation"], values["validation_labels"])
    after = calibration.with_temperature(values["test"], temperature)
    return {
        "temperature": temperature,
        "ece_before": evaluation.expected_calibration_error(values["test"], values["test_labels"]),
        "ece_after": evaluation.expected_calibration_error(after, values["test_labels"]),
    }


def _write_saved_model(model: keras.Model, run: FinishedRun, folder: Path, quantization: str) -> None:
    write_saved_model(model, folder, features=head_input(model), class_names=run.class_names)


def _write_keras(model: keras.Model, run: FinishedRun, folder: Path, quantization: str) -> None:
    fold_batch_normalization(model.input, [model.output]).save(folder / KERAS_MODEL)
    _write_labels(run, folder)


def _write_litert(model: keras.Model, run: FinishedRun, folder: Path, quantization: str) -> None:
    views = _training_views(run, model.input_shape[1]) if quantization == "int8" else None
    write_litert(model, folder / LITERT_MODEL, quantization=quantization, calibration=views)
    _write_labels(run, folder)


def _write_onnx(model: keras.Model, run: FinishedRun, folder: Path, quantization: str) -> None:
    write_onnx(model, folder / ONNX_MODEL)
    _write_labels(run, folder)


FORMATS: dict[str, Callable] = {
    "savedmodel": _write_saved_model,
    "litert": _write_litert,
    "onnx": _write_onnx,
    "keras": _write_keras,
}
"""Format -> what writes a model from pixels to probabilities in it."""


def _write_labels(run: FinishedRun, folder: Path) -> None:
    write_lines(folder / LABELS, run.class_names)


def _training_views(run: FinishedRun, image_size: int) -> Iterator[np.ndarray]:
    """Views of some training photos, spread over the classes: uint8 [1, image_size, image_size, 3] each."""
    from ktl.data.loading import load_dataset

    split = load_dataset(run.settings["dataset"], data_dir=run.settings["data_dir"]).train
    for index in np.unique(np.linspace(0, len(split) - 1, CALIBRATION_PHOTOS).astype(int)):
        with contextlib.suppress(BadPhoto, OSError):  # the run has left it out too
            yield view_of(split.read(index), size=image_size)[np.newaxis]


def _prove(folder: Path, run: FinishedRun, export: dict, reporter: Reporter) -> dict:
    """What a fresh process finds.

    Raises:
        ExportError: the export does not load, or differs by more than its format may.
    """
    reporter.message("checking it in a fresh process")
    calibration = export["calibration"]
    temperature = calibration["temperature"] if calibration else 1.0
    command = [
        sys.executable,
        "-m",
        "ktl.exporting.verification",
        str(folder),
        str(run.path),
        str(temperature),
        str(PROOF_PHOTOS),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 2:
        raise UserError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise ExportError(f"the exported model does not work in a fresh process:\n{done.stderr}")
    found = json.loads(done.stdout)
    machine = run.result["machine"]
    # On a GPU float32 is multiplied as TensorFloat-32, with as many bits as float16.
    rounded = machine["precision"] != "float32" or machine["devices"] != ["CPU"]
    problem = _problem(found, export["quantization"], rounded=rounded)
    if problem:
        raise ExportError(f"the exported model differs from the run's: {problem}")
    return found


def _problem(found: dict, quantization: str, *, rounded: bool) -> str | None:
    """What is wrong with a proof, or None."""
    if quantization == "int8":
        lost = found["run_top1"] - found["top1"]
        return f"test top-1 is {lost:.3f} lower, over {MOST_LOST} allowed" if lost > MOST_LOST else None
    # A label can then only change where two classes are as good as equal.
    tolerance = max(TOLERANCES[quantization], ROUNDED_TOLERANCE if rounded else 0)
    if found["largest_difference"] <= tolerance:
        return None
    return f"a probability by {found['largest_difference']:.2g}, over {tolerance} allowed"
