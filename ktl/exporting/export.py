"""A trained network as others use it: photos in, labels out, verified in a fresh process before it is handed over."""

import os
import shutil
from pathlib import Path
from typing import TypedDict

import keras

from ktl.arguments import check_in_utf8, checked_arguments
from ktl.data.split import Split
from ktl.errors import UserError, unknown_name
from ktl.exporting.classifier_subject import subject_of_classifier
from ktl.exporting.litert import QUANTIZATIONS
from ktl.exporting.model_card import render
from ktl.exporting.place import LOCK, MARK, MODEL_CARD, clear_partial, held, make_partial, move_into_place
from ktl.exporting.place_at import folder_for
from ktl.exporting.record import (
    EXPORT_JSON,
    Calibration,
    ExportRecord,
    Verification,
    identity_of,
    is_of_run,
    left_out,
    read_record,
    write_record,
)
from ktl.exporting.run_subject import subject_of_run
from ktl.exporting.subject import Subject
from ktl.exporting.verification import ExportError, verify
from ktl.exporting.writers import WRITERS
from ktl.files import CHECKSUMS, write_checksums
from ktl.folders import new_folder
from ktl.inference.formats import SAVED_MODEL
from ktl.inference.photos import Photos
from ktl.models.classifier import TransferClassifier
from ktl.process import logging_kept, random_state_kept
from ktl.progress import Reporter, Verbose, reporter_for
from ktl.runs.finished_run import read_run
from ktl.runs.places import refuse_within, refuse_within_dataset

__all__ = ["ExportError", "ExportResult", "export", "export_once"]


class ExportResult(TypedDict):
    """What an export is, and what was found when it was verified."""

    format: str
    quantization: str
    mebibytes: float
    calibration: Calibration | None
    verified_on: str
    test: Verification


# Long by what it tells of its arguments.
@checked_arguments
def export(
    classifier: TransferClassifier | str | os.PathLike | None = None,
    output: str | os.PathLike | None = None,
    *,
    run: str | os.PathLike | None = None,
    photos: Split | Photos | None = None,
    format: str = "savedmodel",
    quantization: str = "none",
    calibrate: bool = False,
    verbose: Verbose = 1,
) -> ExportResult:
    """Writes a trained network for use elsewhere, with its class names and a model card, and verifies it.

    A fresh process opens the export and compares it with what the network gives for photos. An export that differs is
    removed. What is asked for a second time is there, and is given back. The process that calls, and the classifier,
    stay as they are.

    Args:
        classifier: a `TransferClassifier`; or the folder of a run, or of a search (its best run).
        output: a new or empty folder outside of the data set, or one that has this very export of the same run; or its
            URL.
        run: the folder of a run or search, in the place of `classifier`.
        photos: on which the export of a `TransferClassifier` is verified: a split of a data set, or what `ktl.predict`
            takes. Without them it is verified on noise with a fixed seed; the model card says which. A run is verified
            on its own test photos.
        format: a name in `ktl.exporting.writers.WRITERS`: `savedmodel`, `litert`, `onnx` or `keras`.
        quantization: a name in `ktl.exporting.litert.QUANTIZATIONS`: `none`, `float16` or `int8`; other than none for
            `litert` alone. The numbers' ranges for `int8` come from the run's training photos, or from `photos`.
        calibrate: divide the logits by the temperature that fits the run's validation photos.
        verbose: see `ktl.progress.reporter_for`.

    Returns:
        format, quantization, mebibytes; verified_on: on which photos; test: what was found there, see
        `ktl.exporting.record.Verification`; calibration: temperature, and expected calibration error on the run's test
        photos before and after.

    Raises:
        UserError: bad input.
        ExportError: the export does not give what the network gives.

    Example:
        >>> found = ktl.export(classifier, "model", photos=dataset.test)
        >>> found["verified_on"], found["test"]["photos"], found["test"]["labels_changed"]
        ('test photos that were given', 340, 0)
    """
    _check(format, quantization)
    source = _one_of(classifier, run)
    if output is None:
        raise UserError("Expected `output`, a new or empty folder. Received: None")
    reporter = reporter_for(verbose)
    with folder_for(output) as folder, random_state_kept(), logging_kept():
        check_in_utf8(folder, argument="output")
        subject = _subject(source, photos, quantization=quantization, calibrate=calibrate)
        _refuse_within_photos(subject, output)
        result = _export(subject, folder, format=format, quantization=quantization, reporter=reporter)
    for line in left_out(result["test"]):
        reporter.message(line)
    return result


def export_once(run: str | os.PathLike, *, output: str | os.PathLike, verbose: Verbose = 1) -> None:
    """Exports a run as a SavedModel, unless the folder has that already.

    Args:
        run: folder of a run, or of a search (its best run).
        output: a new or empty folder, or a SavedModel of this very run; or its URL.
        verbose: see `ktl.progress.reporter_for`.

    Raises:
        UserError: bad input, or the export of another run is there.
        ExportError: the export does not give what the run gave.
    """
    with folder_for(output, argument="export") as folder:
        clear_partial(folder)
        record = read_record(folder)
        if record is None:
            export(run, folder, verbose=verbose)
        elif not (is_of_run(record, read_run(run)) and (folder / SAVED_MODEL).exists()):
            expected = "Expected a new or empty folder, or the SavedModel of this run"
            raise UserError(f"{expected}. Received: `export` {folder}")


def _one_of(classifier: TransferClassifier | str | os.PathLike | None, run: str | os.PathLike | None):
    if (classifier is None) == (run is None):
        raise UserError("Expected either `classifier` or `run`. Received: " + ("both" if run else "neither"))
    return classifier if run is None else run


def _check(format: str, quantization: str) -> None:
    for argument, value, known in (("format", format, WRITERS), ("quantization", quantization, QUANTIZATIONS)):
        if value not in known:
            raise unknown_name(f"`{argument}`", value, known)
    if quantization != "none" and format != "litert":
        raise UserError(f"Expected `format` to be litert with `quantization` {quantization}. Received: {format}")


def _subject(source, photos: Split | Photos | None, *, quantization: str, calibrate: bool) -> Subject:
    if isinstance(source, keras.Model) and not isinstance(source, TransferClassifier):
        kind = type(source).__name__
        raise UserError(
            f"Expected a TransferClassifier, or the folder of a run or of a search. Received: a {kind} model"
        )
    if isinstance(source, TransferClassifier):
        if calibrate:
            raise UserError(
                "Expected the folder of a run with `calibrate`, which reads its validation photos. Received: a model"
            )
        if photos is None and quantization == "int8":
            raise UserError("Expected `photos` with `quantization` int8, which is fitted to them. Received: None")
        return subject_of_classifier(source, photos)
    if photos is not None:
        raise UserError("Expected no `photos` with a run, which is verified on its test photos. Received: photos")
    return subject_of_run(read_run(source), calibrate=calibrate)


def _refuse_within_photos(subject: Subject, output: str | os.PathLike) -> None:
    if subject.run:
        refuse_within_dataset(subject.run.settings["dataset"], subject.run.settings["data_dir"], output=output)
    for folder in subject.photo_folders:
        refuse_within(folder, output=output)


def _export(subject: Subject, output: Path, *, format: str, quantization: str, reporter: Reporter) -> ExportResult:
    clear_partial(output)
    found = _found(subject, output, format=format, quantization=quantization)
    if found:
        return found
    new_folder(output, argument="output")
    with held(output) as partial:
        new_folder(output, argument="output", but=(f"{partial.name}{LOCK}",))  # still: now nobody else can make it
        make_partial(partial)
        try:
            reporter.message(f"writing {format}")
            result = _write(subject, partial, format=format, quantization=quantization, reporter=reporter)
            move_into_place(partial, output)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return result


def _write(subject: Subject, partial: Path, *, format: str, quantization: str, reporter: Reporter) -> ExportResult:
    """Writes an export into a folder and verifies it there."""
    WRITERS[format](subject, partial, quantization)
    size = _mebibytes(partial)
    reporter.message("verifying it in a fresh process")
    verification = verify(partial, subject, quantization=quantization)
    result = ExportResult(
        format=format,
        quantization=quantization,
        mebibytes=size,
        calibration=subject.calibration,
        verified_on=subject.verified_on,
        test=verification,
    )
    (partial / MODEL_CARD).write_text(render(subject, result), encoding="utf-8")
    write_record(partial, _record(subject, result))
    write_checksums(partial, pattern="**/*")
    return result


def _found(subject: Subject, output: Path, *, format: str, quantization: str) -> ExportResult | None:
    """What was found when this very export was made; None where something else is there, or nothing."""
    record = read_record(output)
    if record is None or subject.run is None or not is_of_run(record, subject.run):
        return None
    if (record.format, record.quantization, record.temperature) != (format, quantization, subject.temperature):
        return None
    return ExportResult(
        format=format,
        quantization=quantization,
        mebibytes=_mebibytes(output),
        calibration=subject.calibration,
        verified_on=record.verified_on,
        test=record.verification,
    )


def _mebibytes(export: Path) -> float:
    """Size of what was exported, without what tells of it."""
    about = (MARK, MODEL_CARD, EXPORT_JSON, CHECKSUMS)
    return sum(file.stat().st_size for file in export.rglob("*") if file.is_file() and file.name not in about) / 2**20


def _record(subject: Subject, result: ExportResult) -> ExportRecord:
    return ExportRecord(
        format=result["format"],
        quantization=result["quantization"],
        class_names=subject.class_names,
        image_size=subject.image_size,
        temperature=subject.temperature,
        verified_on=result["verified_on"],
        verification=result["test"],
        run=identity_of(subject.run) if subject.run else None,
    )
