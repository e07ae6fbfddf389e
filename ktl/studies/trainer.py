"""Trains the runs of a study one by one, or reads what an earlier call found."""

import dataclasses
import time
from collections.abc import Callable, Sequence

from ktl.data.dataset import Dataset
from ktl.errors import DivergedError, UserError
from ktl.evaluation.metrics import converged
from ktl.machine import OUT_OF_MEMORY
from ktl.progress import Reporter
from ktl.runs.session import FAILURES, Session, Training
from ktl.studies.records import Cell, CellRun
from ktl.studies.study_folder import StudyFolder
from ktl.training import evaluate
from ktl.training.checkpoint import EpochRow, best_epoch


class CellTrainer:
    """Trains runs of a study.

    Args:
        session: trains them.
        folder: has what earlier calls found, and gets what is found.
        cost_of: what a run computes compared with other runs.
        reporter: is told a line a run.
    """

    def __init__(self, session: Session, folder: StudyFolder, *, cost_of: Callable[[Cell], float], reporter: Reporter):
        self.session, self.folder, self.cost_of, self.reporter = session, folder, cost_of, reporter

    def on(self, dataset: Dataset) -> "CellTrainer":
        """The same for other photos."""
        return CellTrainer(self.session.on(dataset), self.folder, cost_of=self.cost_of, reporter=self.reporter)

    def train_all(self, cells: Sequence[Cell]) -> list[CellRun]:
        """Trains each of them and scores its test photos."""
        return self._all(cells, self.train, tested=True)

    def try_all(self, cells: Sequence[Cell]) -> list[CellRun]:
        """Trains each of them and leaves the test photos alone."""
        return self._all(cells, self.try_out, tested=False)

    def train(self, cell: Cell) -> CellRun:
        """Trains a run and scores its test photos.

        A run that diverges counts as a network that knows nothing, so that every head has all seeds.

        Raises:
            UserError: there is no memory for it, which says nothing of the head.
        """
        return self._train(cell, tested=True)

    def try_out(self, cell: Cell) -> CellRun:
        """Trains a run and leaves the test photos alone; settings that fail for any reason recognise nothing."""
        try:
            return self._train(cell, tested=False)
        except FAILURES as error:
            self.reporter.message(f"{cell.name} failed: {error}")
            return CellRun(cell, failed=f"{error}")

    def _all(self, cells: Sequence[Cell], train: Callable[[Cell], CellRun], *, tested: bool) -> list[CellRun]:
        """Tells after each of them how long the rest takes, by what it computes."""
        costs = list(map(self.cost_of, cells))
        runs, started, done = [], time.perf_counter(), 0.0
        kind = "runs" if tested else "tries"
        for number, (cell, cost) in enumerate(zip(cells, costs, strict=True), start=1):
            known = self.folder.has_cell(cell, tested=tested)
            runs.append(train(cell))
            done += 0 if known else cost
            left = (time.perf_counter() - started) / done * sum(costs[number:]) if done else 0
            self.reporter.message(
                f"{number}/{len(cells)}  {cell.head}  {cell.freeze_depth}  rate {cell.learning_rate:g}  "
                f"scale {cell.scale:g}  share {cell.share:g}  seed {cell.seed}  "
                f"validation {runs[-1].validation_top1:.4f}  about {left / 60:.0f} min of {kind} left"
            )
        return runs

    def _train(self, cell: Cell, *, tested: bool) -> CellRun:
        run = self.folder.read_cell(cell, tested=tested)
        if run is None:
            training = self.session.prepare(cell.values, seed=cell.seed)
            history, failed = self._fit(cell, training)
            correct = _correct(training, failed=failed) if tested else None
            run = _record(cell, training, history, failed=failed, correct=correct)
            self.folder.write_cell(run)
        self.folder.remove_cell_checkpoint(cell)  # a kill after an earlier call's last epoch may have left it
        return run

    def _fit(self, cell: Cell, training: Training) -> tuple[list[EpochRow], str]:
        """The history, and why it failed; empty if it did not."""
        try:
            return training.fit(self.folder.cell_checkpoint(cell), reporter=self.session.reporter), ""
        except DivergedError as error:
            self.reporter.message(f"{cell.name} failed: {error}")
            return [], f"{error}"
        except OUT_OF_MEMORY as error:
            raise UserError(
                f"Expected memory for {cell.name}. Received: too little. Take a smaller `batch_size`, or name deeper "
                "`depths`"
            ) from error


def _correct(training: Training, *, failed: str) -> list[int]:
    """For each test photo 1 if it is recognised, else 0."""
    inputs = training.inputs
    test = inputs.dataset.test
    if failed:
        return [0] * len(test)
    part = inputs.trained_part(training.classifier)
    probabilities = evaluate.predict_probabilities(part, inputs.evaluation_batches(test))
    return (probabilities.argmax(axis=1) == test.labels).astype(int).tolist()


def _record(
    cell: Cell, training: Training, history: Sequence[EpochRow], *, failed: str, correct: list[int] | None
) -> CellRun:
    run = CellRun(
        cell,
        failed=failed,
        cache=training.lasting_config.cache,
        bad_photos=[photo for photo, _ in training.inputs.bad_photos],
        correct=correct,
    )
    if not history:
        return run
    best, scores = history[best_epoch(history) - 1], [row["validation_top1"] for row in history]
    return dataclasses.replace(
        run,
        validation_top1=best["validation_top1"],
        validation_loss=best["validation_loss"],
        epochs=len(history),
        converged=converged(scores),
        seconds=sum(row["seconds"] for row in history),
        history=scores,
    )
