"""Trains the runs and tries of a study, or reads what an earlier call found."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ktl.data.dataset import Dataset, Split
from ktl.errors import DamagedError, DivergedError, UserError
from ktl.evaluation.metrics import converged
from ktl.evaluation.objectives import OBJECTIVES
from ktl.machine import OUT_OF_MEMORY, trains_together
from ktl.progress import Reporter
from ktl.runs.reuse import ReusedNetwork
from ktl.runs.session import FAILURES, Session, Training
from ktl.runs.together import HeadTrainer, Wanted
from ktl.studies.analysis import merit
from ktl.studies.design import RUNGS
from ktl.studies.records import Cell, CellRun
from ktl.studies.study_folder import StudyFolder
from ktl.training import evaluate
from ktl.training.checkpoint import EpochRow, best_epoch


class _Scored(NamedTuple):
    """For each photo of a split 1 if it is recognised, else 0; None where that was not looked at."""

    test: list[int] | None = None
    validation: list[int] | None = None


UNSCORED = _Scored()


class CellTrainer:
    """Trains runs of a study.

    Args:
        session: trains them.
        folder: has what earlier calls found, and gets what is found.
        cost_of: what an epoch of a run computes compared with other runs.
        trains_head_alone: whether a run has everything frozen but its new layers.
        dataset_of: the data set whose photos a run sees; the session's if None.
        reporter: is told a line a run.
    """

    def __init__(
        self,
        session: Session,
        folder: StudyFolder,
        *,
        cost_of: Callable[[Cell], float],
        trains_head_alone: Callable[[Cell], bool],
        dataset_of: Callable[[Cell], Dataset] | None = None,
        reporter: Reporter,
    ):
        self.session, self.folder, self.reporter = session, folder, reporter
        self.cost_of, self.trains_head_alone, self.dataset_of = cost_of, trains_head_alone, dataset_of
        self._together = HeadTrainer(session)

    def on(self, dataset_of: Callable[[Cell], Dataset]) -> "CellTrainer":
        """The same for other photos."""
        return CellTrainer(
            self.session,
            self.folder,
            cost_of=self.cost_of,
            trains_head_alone=self.trains_head_alone,
            dataset_of=dataset_of,
            reporter=self.reporter,
        )

    def train_all(self, cells: Sequence[Cell]) -> list[CellRun]:
        """Trains each of them and scores its test photos; tells after each how long the rest takes."""
        countdown = _Countdown(list(map(self.cost_of, cells)))
        runs = []
        for number, cell in enumerate(cells, start=1):
            known = self.folder.has_cell(cell)
            if not known:
                self._train_at_once([other for other in cells if self._place(other) == self._place(cell)])
            runs.append(self.train(cell))
            left = countdown.after(known=known)
            self.reporter.message(f"{number}/{len(cells)}  {_described(runs[-1])}  about {left:.0f} min of runs left")
        return runs

    def choose_all(self, groups: Sequence[Sequence[Cell]]) -> list[list[CellRun]]:
        """Of each group of tries, what `choose` gives; tells after each how long the rest takes."""
        countdown = _Countdown([self.cost_of(cells[0]) for cells in groups])
        found = []
        for number, cells in enumerate(groups, start=1):
            known = self.folder.has_cell(cells[-1], epochs=self._rung_epochs()[0])
            found.append(self.choose(cells))
            left = countdown.after(known=known)
            best = f"{_described(found[-1][0])}, the best of {len(cells)} tries"
            self.reporter.message(f"{number}/{len(groups)}  {best}  about {left:.0f} min of tries left")
        return found

    def choose(self, cells: Sequence[Cell]) -> list[CellRun]:
        """Tries settings by successive halving, see `ktl.studies.design.RUNGS`. The test photos are left alone.

        Tries are given up by their log loss: after few epochs it is much surer than how many photos are recognised,
        which would give up the settings that are the best in the end, by chance. The last round goes by the objective.

        Returns:
            The last round's tries, the best by validation first; then what the others had come to when they were given
            up, those of the later rounds first.
        """
        given_up: list[CellRun] = []
        runs = [CellRun(cell) for cell in cells]
        network = ReusedNetwork(self._session_of(cells[0]))
        for rung, epochs in zip(RUNGS, self._rung_epochs(), strict=True):
            given_up = runs[rung.tries :] + given_up
            cells_left = [run.cell for run in runs[: rung.tries]]
            self._train_at_once(cells_left, epochs=epochs)
            rank = _rank if rung is RUNGS[-1] else _loss
            # Sorting keeps the order of equals.
            runs = sorted((self.try_out(cell, epochs=epochs, network=network) for cell in cells_left), key=rank)
        for cell in cells:
            self.folder.remove_cell_checkpoint(cell)
        return runs + given_up

    def train(self, cell: Cell) -> CellRun:
        """Trains a run and scores its test photos.

        A run that diverges counts as a network that knows nothing, so that every head has all seeds.

        Raises:
            UserError: there is no memory for it, which says nothing of the head.
        """
        run = self.folder.read_cell(cell)
        if run is None:
            training = self._session_of(cell).prepare(cell.values, seed=cell.seed)
            history, failed = self._fit(cell, training)
            run = _record(cell, training, history, failed=failed, scored=_scored(training, failed=failed))
            self.folder.write_cell(run)
        self.folder.remove_cell_checkpoint(cell)  # a kill after an earlier call's last epoch may have left it
        return run

    def try_out(self, cell: Cell, *, epochs: int, network: ReusedNetwork | None = None) -> CellRun:
        """Trains a run's first epochs, or goes on to there, and leaves the test photos alone; settings that fail for
        any reason recognise nothing. A network that tries share is not built for each."""
        try:
            run = self.folder.read_cell(cell, epochs=epochs)
            if run is None:
                training = (network or self._session_of(cell)).prepare(cell.values, seed=cell.seed)
                history, failed = self._fit(cell, training, epochs=epochs)
                run = _record(cell, training, history, failed=failed)
                self.folder.write_cell(run, epochs=epochs)
            return run
        except DamagedError:  # no fault of the settings
            raise
        except FAILURES as error:
            self.reporter.message(f"{cell.name} failed: {error}")
            return CellRun(cell, failed=f"{error}", objective=self.session.config.objective)

    def _train_at_once(self, cells: Sequence[Cell], *, epochs: int | None = None) -> None:
        """Writes down those of these runs, or of their first epochs, that are not known yet, if that can be done at
        once."""
        cells = [cell for cell in cells if not self.folder.has_cell(cell, epochs=epochs)]
        if len(cells) < 2 or not trains_together(head_alone=self.trains_head_alone(cells[0])):
            return
        wanted = [Wanted(cell.values, cell.seed, self.folder.cell_checkpoint(cell)) for cell in cells]
        found = self._together.train(wanted, session=self._session_of(cells[0]), stop_after=epochs)
        if found is None:
            return
        training, outcomes = found
        for cell, outcome in zip(cells, outcomes, strict=True):
            history, failed = self._told(cell, outcome) if isinstance(outcome, DivergedError) else (outcome, "")
            scored = UNSCORED
            if epochs is None:
                if history:
                    training.restore_best(self.folder.cell_checkpoint(cell))
                scored = _scored(training, failed=failed)
            run = _record(cell, training, history, failed=failed, scored=scored)
            self.folder.write_cell(run, epochs=epochs)

    def _place(self, cell: Cell) -> tuple:
        """The same for runs on the same photos that may be done at once."""
        return cell.head, cell.freeze_depth, cell.part, None if self.dataset_of is None else cell.seed

    def _session_of(self, cell: Cell) -> Session:
        return self.session if self.dataset_of is None else self.session.on(self.dataset_of(cell))

    def _told(self, cell: Cell, error: DivergedError) -> tuple[list[EpochRow], str]:
        """The history of a run that diverged, and why it failed; says so."""
        self.reporter.message(f"{cell.name} failed: {error}")
        return [], f"{error}"

    def _rung_epochs(self) -> list[int]:
        return [rung.epochs(self.session.config.epochs) for rung in RUNGS]

    def _fit(self, cell: Cell, training: Training, *, epochs: int | None = None) -> tuple[list[EpochRow], str]:
        """The history, and why it failed; empty if it did not."""
        try:
            checkpoint = self.folder.cell_checkpoint(cell)
            return training.fit(checkpoint, stop_after=epochs, reporter=self.session.reporter), ""
        except DivergedError as error:
            return self._told(cell, error)
        except OUT_OF_MEMORY as error:
            raise UserError(
                f"Expected memory for {cell.name}. Received: too little. Take a smaller `batch_size`, or name deeper "
                "`depths`"
            ) from error


class _Countdown:
    """How many minutes the rest takes, by what it computes."""

    def __init__(self, costs: Sequence[float]):
        self.costs, self.started, self.done, self.number = costs, time.perf_counter(), 0.0, 0

    def after(self, *, known: bool) -> float:
        """After the next one, which took no time if it was known."""
        self.done += 0 if known else self.costs[self.number]
        self.number += 1
        if not self.done:
            return 0.0
        return (time.perf_counter() - self.started) / self.done * sum(self.costs[self.number :]) / 60


def _described(run: CellRun) -> str:
    cell = run.cell
    return (
        f"{cell.head}  {cell.freeze_depth}  rate {cell.learning_rate:g}  scale {cell.scale:g}  multiplier "
        f"{cell.head_multiplier:g}  {cell.part.name}  seed {cell.seed}  validation {run.validation_top1:.4f}"
    )


def _loss(run: CellRun) -> float:
    return math.inf if run.validation_loss is None else run.validation_loss


def _rank(run: CellRun) -> tuple[float, float]:
    top1, negative_loss = merit([run])
    return -top1, -negative_loss


def _scored(training: Training, *, failed: str) -> _Scored:
    dataset = training.inputs.dataset
    return _Scored(*(_correct(training, split, failed=failed) for split in (dataset.test, dataset.validation)))


def _correct(training: Training, split: Split, *, failed: str) -> list[int]:
    """For each photo 1 if it is recognised, else 0."""
    if failed:
        return [0] * len(split)
    inputs = training.inputs
    part = inputs.trained_part(training.classifier)
    probabilities = evaluate.predict_probabilities(part, inputs.evaluation_batches(split))
    return (probabilities.argmax(axis=1) == split.labels).astype(int).tolist()


def _record(
    cell: Cell,
    training: Training,
    history: Sequence[EpochRow],
    *,
    failed: str,
    scored: _Scored = UNSCORED,
) -> CellRun:
    objective = training.config.objective
    run = CellRun(
        cell,
        failed=failed,
        objective=objective,
        cache=training.lasting_config.cache,
        bad_photos=[photo for photo, _ in training.inputs.bad_photos],
        correct=scored.test,
        validation_correct=scored.validation,
    )
    if not history:
        return run
    best, scores = history[best_epoch(history, objective) - 1], [row["validation_top1"] for row in history]
    return dataclasses.replace(
        run,
        validation_top1=best["validation_top1"],
        validation_loss=best["validation_loss"],
        validation_score=best[OBJECTIVES[objective].column],
        epochs=len(history),
        converged=converged(scores),
        seconds=sum(row["seconds"] for row in history),
        history=scores,
    )
