"""A run's folder, safe to copy; an export, a resume and a report's thumbnails read the photos of its data set too.

config.json       the settings
dataset.json      how many photos each split has, and a digest of which; of weights and other files that were named, too
environment.json  versions, machine, and the precision, XLA and strategy in force
history.csv       one row an epoch
result.json       scores on validation and test, settings, seconds, parameters
model.keras       pixels in 0..255 to logits, with its preprocessing
labels.txt        class names, a line each, in the order of the logits
predictions.csv   one row a test photo
duplicates.csv    one row a test or validation photo that looks like one of an earlier split, or is the same file
confusion.csv     rows: true class; columns: predicted class
classes.csv       photos, precision, recall and F1 of each class on the test photos
probabilities.npz class probabilities and labels: validation, validation_labels, test, test_labels
kept_layer.csv    for each class the ImageNet classes that drive it on its test photos, an explanation that nothing is
                  chosen by; of heads alone whose last Dense layer reads a pre-trained layer of 1000 classes
checkpoint/       of a run that has not ended; checkpoint-refit/ of its second training
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ktl.config.settings import TrainingConfig
from ktl.data.dataset import Dataset
from ktl.data.duplicates import COLUMNS, Duplicate, read_duplicates, rows
from ktl.errors import UserError
from ktl.evaluation.metrics import ClassScores
from ktl.files import (
    format_version,
    is_temporary,
    read_json,
    write_atomically,
    write_checksums,
    write_csv,
    write_json,
    write_lines,
)
from ktl.folders import empty_folder, make_folder, missing_folders, refuse_links, remove_empty
from ktl.runs.finished_run import EXTRAS, reading_result
from ktl.runs.identity import difference_between, identity_of
from ktl.runs.locks import lock, unlock

if TYPE_CHECKING:  # a folder is held and read without TensorFlow
    from ktl.training.checkpoint import EpochRow

LOCK = ".lock"
"""Held while a process is at work in a folder, and gone afterwards."""


class RunFolder:
    """The files of one run.

    Args:
        path: the folder; made if it is not there.
        config: the settings; must equal those of a run that is already there.
        overwrite: remove what is there, if it is such a folder.
        extras: what a training takes that no setting can say, as JSON.

    Raises:
        UserError: the folder holds a run with other settings (the differences are listed), or something else.
    """

    KIND = "run"
    WORK = ("checkpoint", "trials", "runs", "result.json")  # of any kind: a search does not take over a run's folder
    BEGINNING = ("config.json", "dataset.json", "environment.json")  # what there is before any work
    WAYS_ON = "Name another `output`"

    def __init__(
        self,
        path: str | os.PathLike,
        config: TrainingConfig,
        *,
        overwrite: bool = False,
        extras: Mapping[str, Any] | None = None,
    ):
        self.path, self.config = Path(path), config
        wanted = {**config.as_dict(), **({EXTRAS: dict(extras)} if extras else {})}
        recorded = self._read_json("config.json")
        self._begins = recorded is None
        if overwrite and recorded is not None:
            self._empty(recorded)
            recorded = None
        if recorded is None and self._holds_something_else():
            raise UserError(f"Expected `output` to be a new or empty folder, or a {self.KIND}'s. Received: {self.path}")
        self._made = missing_folders(self.path)
        make_folder(self.path)
        refuse_links(self.path)
        if self._holds_work():
            self._refuse_others(recorded or {}, wanted)
        elif recorded != wanted:
            with self.held():  # nothing is there yet, but another process may be at work on it
                self.write_json("config.json", wanted)

    def _empty(self, recorded: Mapping) -> None:
        there = self.config.renamed(recorded)
        unlike = (set(self.config.as_dict()) ^ set(there)) - {EXTRAS, *self.config.ADDED, *self.config.VARIED}
        if unlike:  # many a program writes a config.json
            raise UserError(f"Expected a {self.KIND} to overwrite. Received: {self.path}, a folder of something else")
        with self.held():
            empty_folder(self.path, last="config.json", keep=(LOCK,))

    def _refuse_others(self, recorded: Mapping, wanted: Mapping) -> None:
        """Raises UserError where work of other settings would be lost, or cannot go on."""
        settings = {name: value for name, value in recorded.items() if name != EXTRAS}
        changed = self.config.differences(settings)
        there, here = recorded.get(EXTRAS), wanted.get(EXTRAS)
        if there != here:
            changed.append(f"{EXTRAS} {there!r} there, {here!r} here")
        if changed:
            raise UserError(
                f"Expected the settings of the {self.KIND} in {self.path}. Received: {'; '.join(changed)}. "
                f"{self.WAYS_ON}"
            )
        if self.result is None and format_version(self.path / "config.json") < 1:
            raise UserError(
                f"Expected a {self.KIND} that this version of ktl began in {self.path}. Received: one that version 0.1 "
                f"began. Finish it with that version. {self.WAYS_ON}"
            )

    @property
    def checkpoint_dir(self) -> Path:
        """Where an unfinished training's state is."""
        return self.path / "checkpoint"

    @property
    def refit_dir(self) -> Path:
        """Where the state of its second training is, see `ktl.runs.refit`."""
        return self.path / "checkpoint-refit"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes out meanwhile; the lock goes with the process. See `undone_on_failure` too.

        Raises:
            UserError: another process is at work there.
        """
        refuse_links(self.path)  # such as of the lock: what it leads to would be made empty
        taken = lock(self.path / LOCK, work=f"the {self.KIND} in {self.path}", instead="another `output`")
        with self.undone_on_failure():
            try:
                yield
            finally:
                unlock(taken)

    @contextlib.contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Removes what was made for work that has failed before there was any, and nothing else."""
        try:
            yield
        except BaseException:
            if self._begins and not self._holds_work():
                for path in (self.path / name for name in self.BEGINNING):
                    path.unlink(missing_ok=True)
                self._remove_temporaries()
                remove_empty(self._made)
            raise

    @property
    def result(self) -> dict[str, Any] | None:
        """What result.json holds; None of what has not ended."""
        with reading_result(self.KIND):
            return self._read_json("result.json")

    def hold_to(self, dataset: Dataset) -> None:
        """Writes down which photos are in which split, and what the settings' files hold, or compares.

        A photo more or less may move test photos to train.

        Raises:
            UserError: there is work of others.
        """
        found, recorded = identity_of(dataset, self.config.files), self._read_json("dataset.json")
        difference = difference_between(recorded, found, set_aside=dataset.found.set_aside)
        if difference and self._holds_work():
            raise UserError(
                f"Expected the photos, classes, splits and files that the {self.KIND} in {self.path} began with. "
                f"Received: {difference}. {self.WAYS_ON}"
            )
        if recorded != found:
            self.write_json("dataset.json", found)

    def remove_leftovers(self) -> None:
        """Removes what a run that has ended needs no more: its checkpoints, and files that a kill left half written."""
        for folder in (self.checkpoint_dir, self.refit_dir):
            shutil.rmtree(folder, ignore_errors=True)
        self._remove_temporaries()

    def _remove_temporaries(self) -> None:
        for path in self.path.glob(".*"):
            if is_temporary(path.name) and path.is_file():
                path.unlink()

    def write_result(self, result: Mapping[str, Any]) -> None:
        """result.json ends the work; what is there then gets its checksums."""
        self.write_json("result.json", result)
        write_checksums(self.path)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        write_json(self.path / name, value)

    def write_csv(self, name: str, header, rows) -> None:
        write_csv(self.path / name, header, rows)

    def write_history(self, history: "Sequence[EpochRow]") -> None:
        self.write_csv("history.csv", history[0].keys(), (row.values() for row in history))

    def write_labels(self, class_names) -> None:
        write_lines(self.path / "labels.txt", class_names)

    def write_predictions(self, photos, labels: np.ndarray, probabilities: np.ndarray, class_names) -> None:
        """predictions.csv: photo, label, prediction, probability, runner_up, runner_up_probability."""
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
        rows = []
        for photo, label, (first, second), row in zip(photos, labels, order, probabilities, strict=True):
            names = [class_names[i] for i in (label, first, second)]
            rows.append([photo, *names[:2], f"{row[first]:.6f}", names[2], f"{row[second]:.6f}"])
        header = ("photo", "label", "prediction", "probability", "runner_up", "runner_up_probability")
        self.write_csv("predictions.csv", header, rows)

    def write_confusion(self, matrix: np.ndarray, class_names) -> None:
        rows = ([name, *row.tolist()] for name, row in zip(class_names, matrix, strict=True))
        self.write_csv("confusion.csv", ["label", *class_names], rows)

    def write_classes(self, scores: Sequence[ClassScores], class_names) -> None:
        """classes.csv; a cell is empty where there is nothing to divide by."""
        rows = zip(class_names, *zip(*scores, strict=True), strict=True)
        texts = ([name, photos, *("" if v is None else f"{v:.6f}" for v in values)] for name, photos, *values in rows)
        self.write_csv("classes.csv", ["class", *ClassScores._fields], texts)

    def write_probabilities(self, probabilities: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> None:
        """probabilities.npz: split -> float32 [photos, classes], and split_labels -> int32 [photos]."""
        arrays: dict[str, Any] = {split: values.astype(np.float32) for split, values in probabilities.items()}
        arrays |= {f"{split}_labels": values for split, values in labels.items()}
        write_atomically(self.path / "probabilities.npz", lambda file: np.savez_compressed(file, **arrays))

    def write_kept_layer(self, rows: Sequence[dict]) -> None:
        """kept_layer.csv, from the rows of `ktl.runs.attribution.strongest_classes`."""
        header = ("class", "rank", "synset", "imagenet_class", "contribution", "share", "activation")
        values = ([row[name] for name in header] for row in rows)
        self.write_csv("kept_layer.csv", header, [[*v[:4], *(f"{number:.6g}" for number in v[4:])] for v in values])

    def read_duplicates(self) -> tuple[Duplicate, ...] | None:
        """What duplicates.csv holds; None if it is not there."""
        path = self.path / "duplicates.csv"
        return read_duplicates(path) if path.exists() else None

    def write_duplicates(self, duplicates: Sequence[Duplicate]) -> None:
        """Writes duplicates.csv."""
        self.write_csv("duplicates.csv", COLUMNS, rows(duplicates))

    def write_model(self, model) -> None:
        """model.keras; a model that was not compiled, so that no optimizer or loss goes with it."""
        descriptor, temporary = tempfile.mkstemp(prefix=".model-", suffix=".keras", dir=self.path)
        os.close(descriptor)
        try:
            model.save(Path(temporary))
            os.chmod(temporary, 0o644)
            os.replace(temporary, self.path / "model.keras")
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _holds_something_else(self) -> bool:
        if not self.path.is_dir():
            return self.path.exists()
        # A kill in the middle of the first write leaves a hidden temporary file; that is nobody's work.
        return any(file.name != LOCK and not file.name.startswith(".config.json-") for file in self.path.iterdir())

    def _holds_work(self) -> bool:
        """Whether an epoch or a result would be lost. A run that failed on bad input has neither."""
        return any((self.path / name).exists() for name in self.WORK)

    def _read_json(self, name: str) -> dict | None:
        try:
            return read_json(self.path / name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UserError as error:
            raise type(error)(f"{error}. {self.WAYS_ON}") from error
