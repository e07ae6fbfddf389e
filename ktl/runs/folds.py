"""Cross-validation chooses the epoch: for few photos, of which each is trained on and, once, validated on."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from ktl.data.dataset import Dataset, without
from ktl.data.pooling import folds_of
from ktl.progress import QuietReporter, Reporter
from ktl.runs.refit import Selected
from ktl.runs.session import Session
from ktl.training.checkpoint import EpochRow, best_epoch
from ktl.training.evaluate import predict_probabilities


def select_by_folds(session: Session, folds: int, *, checkpoint_dir: Path, reporter: Reporter) -> Selected:
    """Trains once for each fold, or goes on; the mean of their validation scores chooses the epoch.

    The probabilities of a photo are those of the network that was not trained on it, after that epoch.

    Args:
        session: its data set is a part of `ktl.data.pooling.crossed`.
        folds: number of them.
        checkpoint_dir: a folder of its own.
        reporter: is told of the progress.
    """
    whole = session.dataset.whole
    assert whole is not None
    parts, histories = folds_of(whole, folds), []
    for number, part in enumerate(parts, start=1):
        reporter.message(f"fold {number} of {folds}: {len(part.train):,} training, {len(part.validation):,} validation")
        histories.append(session.on(part).prepare().fit(checkpoint_dir / f"fold-{number}", reporter=reporter))
    history, objective = mean_history(histories), session.config.objective
    epochs = best_epoch(history, objective)
    reporter.message(f"epoch {epochs} is the best one of all folds")
    answers, labels, seconds, bad = [], [], sum(row["seconds"] for row in history), ()
    for number, (part, own) in enumerate(zip(parts, histories, strict=True), start=1):
        training = session.on(part).prepare()
        if best_epoch(own, objective) == epochs:
            training.fit(checkpoint_dir / f"fold-{number}")
        else:
            place, quiet = checkpoint_dir / f"fold-{number}-again", QuietReporter(reporter)
            again = training.fit(place, stop_after=epochs, keep="last", reporter=quiet)
            seconds += sum(row["seconds"] for row in again)
        inputs = training.inputs
        batches = inputs.evaluation_batches(inputs.dataset.validation)
        answers.append(predict_probabilities(inputs.trained_part(training.classifier), batches))
        labels.append(inputs.dataset.validation.labels)
        seconds, bad = seconds + inputs.seconds, inputs.bad_photos
        del training, inputs, batches  # makes room for the next network
    return Selected(
        dataset=_good(session.dataset, bad),
        validation=np.concatenate(answers),
        labels=np.concatenate(labels),
        history=history,
        seconds=seconds,
        epochs=epochs,
        few=False,
    )


def _good(dataset: Dataset, bad_photos: Sequence[tuple[str, str]]) -> Dataset:
    return without(dataset, {photo for photo, _ in bad_photos}) if bad_photos else dataset


def mean_history(histories: Sequence[Sequence[EpochRow]]) -> list[EpochRow]:
    """A row for each epoch that all trainings have had: the means, and the sum of their seconds."""
    found = []
    for rows in zip(*histories, strict=False):
        row = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        found.append({**row, "epoch": rows[0]["epoch"], "seconds": sum(row["seconds"] for row in rows)})
    return cast(list[EpochRow], found)
