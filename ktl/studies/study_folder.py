"""The folder of a study."""

import dataclasses
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from ktl.files import FORMAT_VERSION, read_json, write_atomically
from ktl.runs.run_folder import RunFolder
from ktl.studies.analysis import SummaryRow, row_of
from ktl.studies.records import Cell, CellRun


class StudyFolder(RunFolder):
    """The files of one study: config.json, dataset.json and environment.json as a run has them, and

    runs.csv     one row a run
    summary.csv  one row for each head, freeze depth and share of the training photos: means over the seeds
    duplicates.csv
                 as a run has it
    result.json  the heads at the depths that validation chose for them, and the differences to the replaced layer; what
                 the backbone's own layer reaches on the classes that ImageNet has too; how many duplicates there are
    runs/        a folder a run: run.json, or tried.json of a try at its settings; checkpoint/ of one that has not ended
    """

    KIND = "study"
    WAYS_ON = "Name another `output`, or `overwrite` this one"

    def cell_folder(self, cell: Cell) -> Path:
        """The folder of a run of the study."""
        return self.path / "runs" / cell.name

    def cell_checkpoint(self, cell: Cell) -> Path:
        """The folder of a run's checkpoint while it is trained."""
        return self.cell_folder(cell) / "checkpoint"

    def read_cell(self, cell: Cell, *, tested: bool) -> CellRun | None:
        """What an earlier call found; None if that run has not ended.

        Args:
            cell: which run.
            tested: whether its test photos are scored; those of a try are not.
        """
        if not self.has_cell(cell, tested=tested):
            return None
        return CellRun.from_json(read_json(self._record(cell, tested=tested)))

    def has_cell(self, cell: Cell, *, tested: bool) -> bool:
        """Whether that run has ended."""
        return self._record(cell, tested=tested).exists()

    def write_cell(self, run: CellRun) -> None:
        """Writes what `read_cell` reads, on one line: it has a number for each test photo."""
        path = self._record(run.cell, tested=run.correct is not None)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"format_version": FORMAT_VERSION, **run.to_json()}) + "\n")

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

    def _record(self, cell: Cell, *, tested: bool) -> Path:
        return self.cell_folder(cell) / ("run.json" if tested else "tried.json")
