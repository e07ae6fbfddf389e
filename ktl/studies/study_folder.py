"""The folder of a study."""

import dataclasses
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

from ktl.files import format_version, reading, write_json
from ktl.runs.finished_run import reading_result
from ktl.runs.run_folder import RunFolder
from ktl.stored import read_record
from ktl.studies.analysis import SummaryRow, row_of, try_row_of
from ktl.studies.records import Cell, CellRecord, CellRun
from ktl.studies.results import EarlierResult, StudyResult


class StudyFolder(RunFolder):
    """The files of one study: config.json, dataset.json and environment.json as a run has them, and

    runs.csv     one row a run
    correct.json which test photos each run recognised: all intervals and verdicts follow from it, see `evidence`
    summary.csv  one row for each head, freeze depth and part of the training photos: means over the seeds
    duplicates.csv
                 as a run has it
    result.json  the heads at the depths that validation chose for them, and the differences to the replaced layer; what
                 the backbone's own layer reaches on the classes that ImageNet has too; how many duplicates there are
    tries.csv    one row for each try at settings: how far it came, and whether it was chosen
    runs/        a folder a run: run.json, or tried-N.json of a try of N epochs; checkpoint/ of one that has not ended
    """

    KIND = "study"
    BEGINNING = (*RunFolder.BEGINNING, "duplicates.csv")  # which are looked for before the first try
    WAYS_ON = "Name another `output`, or `overwrite` this one"

    def study_result(self) -> StudyResult:
        """What result.json of a finished study holds; of version 0.1, as that wrote it."""
        path = self.path / "result.json"
        with reading_result(self.KIND):
            return cast(StudyResult, read_record(path, EarlierResult if format_version(path) < 1 else StudyResult))

    def cell_folder(self, cell: Cell) -> Path:
        """The folder of a run of the study."""
        return self.path / "runs" / cell.name

    def cell_checkpoint(self, cell: Cell) -> Path:
        """The folder of a run's checkpoint while it is trained."""
        return self.cell_folder(cell) / "checkpoint"

    def read_cell(self, cell: Cell, *, epochs: int | None = None) -> CellRun | None:
        """What an earlier call found; None if that run has not ended.

        Args:
            cell: which run.
            epochs: of a try, how many it was to have; its test photos are not scored.
        """
        path = self._record(cell, epochs)
        if not path.exists():
            return None
        recorded = read_record(path, CellRecord)
        with reading(path):
            return CellRun.from_json(recorded)

    def has_cell(self, cell: Cell, *, epochs: int | None = None) -> bool:
        """Whether `read_cell` finds it."""
        return self._record(cell, epochs).exists()

    def write_cell(self, run: CellRun, *, epochs: int | None = None) -> None:
        """Writes what `read_cell` reads, on one line: it has a number for each test photo."""
        path = self._record(run.cell, epochs)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, run.to_json(), indent=None)

    def remove_cell_checkpoint(self, cell: Cell) -> None:
        """Removes what only a run that has not ended needs."""
        shutil.rmtree(self.cell_checkpoint(cell), ignore_errors=True)

    def write_runs(self, runs: Iterable[CellRun]) -> None:
        """Writes runs.csv."""
        table = [row_of(run) for run in runs]
        self.write_csv("runs.csv", table[0].keys(), (row.values() for row in table))

    def write_summary(self, summary: Iterable[SummaryRow]) -> None:
        """Writes summary.csv; what is None has an empty cell."""
        names = [field.name for field in dataclasses.fields(SummaryRow)]
        self.write_csv("summary.csv", names, (dataclasses.astuple(row) for row in summary))

    def write_tries(self, groups: Iterable[Sequence[CellRun]]) -> None:
        """Writes tries.csv."""
        rows = [try_row_of(run, chosen=number == 0) for runs in groups for number, run in enumerate(runs)]
        self.write_csv("tries.csv", rows[0].keys(), (row.values() for row in rows))

    def _record(self, cell: Cell, epochs: int | None) -> Path:
        return self.cell_folder(cell) / ("run.json" if epochs is None else f"tried-{epochs}.json")
