"""A run as what is exported: verified on its test photos, with the probabilities that it wrote down itself."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ktl.data.images import BadPhoto
from ktl.data.loading import load_dataset
from ktl.data.split import sources_of
from ktl.data.views import view_of
from ktl.errors import UserError
from ktl.evaluation.calibration import Temperature, fit_temperature, with_temperature
from ktl.evaluation.metrics import expected_calibration_error
from ktl.exporting.record import Calibration
from ktl.exporting.subject import (
    CALIBRATION_PHOTOS,
    VERIFICATION_PHOTOS,
    Evidence,
    Subject,
    head_input,
    photo_files,
    spread,
)
from ktl.exporting.verification import probabilities_for
from ktl.files import format_version
from ktl.inference.formats import KERAS_MODEL, LABELS, check_classes, load_network
from ktl.runs.finished_run import FinishedRun


def subject_of_run(run: FinishedRun, *, calibrate: bool) -> Subject:
    """The network of a run.

    Args:
        run: one that has ended.
        calibrate: whether the logits are to be divided by the temperature that fits the validation photos.
    """
    model = load_network(run.path / KERAS_MODEL)
    check_classes(run.path / LABELS, run.class_names, model.output_shape[-1])
    calibration = _calibration(run) if calibrate else None
    temperature = calibration["temperature"] if calibration else 1.0
    machine = run.result["machine"]
    return Subject(
        model=model,
        head_input=head_input(model, dense_layers=2 if run.settings.get("hidden_units") else 1),
        class_names=run.class_names,
        calibration=calibration,
        # On a GPU float32 is multiplied as TensorFloat-32, with as many bits as float16.
        rounded=machine["precision"] != "float32" or machine["devices"] != ["CPU"],
        verified_on="test photos of the run",
        make_evidence=partial(evidence_of_run, run, temperature=temperature),
        training_views=partial(_training_views, run, model.input_shape[1]),
        run=run,
    )


def evidence_of_run(run: FinishedRun, folder: Path, *, temperature: float = 1.0) -> Evidence:
    """Test photos, evenly spread if there are many, and what the run gave for them.

    Of a run of version 0.1, what its network gives now: that version shrank photos with TensorFlow's filter. Its pixels
    differ by one grey level, and probabilities by up to 0.04.

    Args:
        run: one that has ended.
        folder: where photos that are no files of their own are written.
        temperature: what the logits are divided by.

    Raises:
        UserError: the photos are not there any more.
    """
    of_version_0_1 = format_version(run.path / "result.json") < 1
    rows = spread(len(run.test_photos), VERIFICATION_PHOTOS)
    photos = [run.test_photos[row] for row in rows]
    sources = sources_of(load_dataset(run.settings["dataset"], data_dir=run.settings["data_dir"]).splits)
    missing = [photo for photo in photos if photo not in sources]
    if missing:
        raise UserError(f"Expected the photos that the run was tested on. Received: none named {missing[0]}")
    files = photo_files(photos, sources, folder)
    probabilities = _given_now(run, files) if of_version_0_1 else run.probabilities["test"][rows]
    return Evidence(
        photos=files,
        expected=with_temperature(probabilities, temperature),
        labels=run.probabilities["test_labels"][rows],
        names=photos,
    )


def _given_now(run: FinishedRun, files: Sequence[Path]) -> np.ndarray:
    try:
        return probabilities_for(run.path, files)
    except BadPhoto as error:
        raise UserError(f"Expected the photos that the run was tested on. Received: one of which {error}") from error


def _calibration(run: FinishedRun) -> Calibration:
    values = run.probabilities
    found = fit_temperature(values["validation"], values["validation_labels"])
    after = with_temperature(values["test"], found.value)
    return {
        "temperature": found.value,
        "low": found.low,
        "high": found.high,
        "photos": found.photos,
        "warning": None if found.is_supported else _too_few(found),
        "ece_before": expected_calibration_error(values["test"], values["test_labels"]),
        "ece_after": expected_calibration_error(after, values["test_labels"]),
    }


def _too_few(found: Temperature) -> str:
    return (
        f"WARNING: {found.photos} validation photos do not tell the temperature, which may be {found.low:.2f} to "
        f"{found.high:.2f}: with more of them confidence can be set right"
    )


def _training_views(run: FinishedRun, image_size: int) -> Iterator[np.ndarray]:
    """Views of some training photos, spread over the classes."""
    split = load_dataset(run.settings["dataset"], data_dir=run.settings["data_dir"]).train
    for index in spread(len(split), CALIBRATION_PHOTOS):
        with contextlib.suppress(BadPhoto, OSError):  # the run has left it out too
            yield view_of(split.read(index), size=image_size)[np.newaxis]
