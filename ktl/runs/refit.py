"""The second training of a run: on training and validation photos, for as many epochs as validation chose, or for all
where it is too few photos to choose one."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np

from ktl.data.dataset import Dataset
from ktl.progress import QuietReporter, Reporter
from ktl.runs.session import Session, Training
from ktl.training.checkpoint import EpochRow, best_epoch
from ktl.training.evaluate import predict_probabilities
from ktl.training.few_photos import has_few_photos


@dataclasses.dataclass(frozen=True)
class Selected:
    """What is left of the training that chose the epoch, or of those of all folds, when the next network is trained.

    Attributes:
        dataset: its photos, without bad ones.
        validation: float64 [photos, classes], its probabilities for validation photos, which it was not fitted to.
        labels: int32 [photos], the true classes of these.
        history: a row an epoch.
        seconds: that features and epochs took.
        epochs: how many the next training has.
        few: whether these are all epochs, as so few photos cannot choose one; else validation chose.
    """

    dataset: Dataset
    validation: np.ndarray
    labels: np.ndarray
    history: Sequence[EpochRow]
    seconds: float
    epochs: int
    few: bool


def is_refitted(setting: str, dataset: Dataset) -> bool:
    """Whether a training on validation photos too follows the first one.

    Args:
        setting: `refit` of a run.
        dataset: with its validation photos apart.
    """
    return has_few_photos(dataset) if setting == "auto" else setting == "on"


def selected_by(session: Session, training: Training, history: Sequence[EpochRow]) -> Selected:
    """What a training that has ended gave.

    Args:
        session: of the training.
        training: its classifier has the best epoch's weights.
        history: of it.
    """
    inputs, config = training.inputs, training.config
    few = has_few_photos(session.dataset)  # with bad photos, as `is_refitted` was asked
    epochs = config.epochs if few else best_epoch(history, config.objective)
    batches = inputs.evaluation_batches(inputs.dataset.validation)
    return Selected(
        dataset=inputs.dataset,
        validation=predict_probabilities(inputs.trained_part(training.classifier), batches),
        labels=inputs.dataset.validation.labels,
        history=history,
        seconds=inputs.seconds + sum(row["seconds"] for row in history),
        epochs=epochs,
        few=few,
    )


def refit(
    session: Session,
    selected: Selected,
    *,
    checkpoint_dir: str | os.PathLike,
    values: Mapping | None = None,
    reporter: Reporter,
) -> tuple[Training, list[EpochRow]]:
    """Trains anew on training and validation photos, or goes on: with the same settings and schedule, as many
    epochs as `selected` says.

    Args:
        session: of the training that chose; its data set is a part, see `ktl.data.pooling.part_of_pooled`.
        selected: what that training gave.
        checkpoint_dir: a folder of its own.
        values: see `ktl.runs.session.Session.prepare`.
        reporter: is told of the progress.

    Returns:
        The training, which has ended with its last epoch's weights, and a row an epoch; what a row has of validation is
        of photos that were trained on, and says nothing.
    """
    whole = session.dataset.whole
    assert whole is not None
    photos = len(selected.dataset.train) + len(selected.dataset.validation)
    if selected.few:
        told = f"for all epochs, {selected.epochs}: too few photos of a class to choose one"
    else:
        told = f"up to epoch {selected.epochs}, which validation chose"
    reporter.message(f"refit: training and validation photos, {photos:,}, {told}")
    training = session.on(whole).prepare(values)
    history = training.fit(
        checkpoint_dir, stop_after=selected.epochs, keep="last", reporter=_RefitReporter(reporter, selected.epochs)
    )
    return training, history


class _RefitReporter(QuietReporter):
    """Tells of epochs without validation."""

    def __init__(self, reporter: Reporter, epochs: int):
        super().__init__(reporter)
        self._message, self._epochs = reporter.message, epochs

    def epoch(self, row):
        self._message(
            f"refit, epoch {row['epoch']}/{self._epochs}  loss {row['loss']:.3f}  top-1 {row['top1']:.3f}  "
            f"{row['seconds']:.1f} s"
        )
