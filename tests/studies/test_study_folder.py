import csv
import json

import pytest

from ktl.config.settings import StudyConfig
from ktl.errors import UserError
from ktl.runs.run_folder import RunFolder
from ktl.studies.analysis import SummaryRow
from ktl.studies.records import Cell, CellRun
from ktl.studies.study_folder import StudyFolder

CELL = Cell("kept", "all", learning_rate=1e-3, scale=3.0, share=1.0, seed=0)


@pytest.fixture
def folder(tmp_path) -> StudyFolder:
    return StudyFolder(tmp_path / "out", StudyConfig(dataset="x"))


def test_a_run_and_its_try_are_two_files(folder):
    tried, run = CellRun(CELL, validation_top1=0.25), CellRun(CELL, validation_top1=0.75, correct=[1, 0])
    assert folder.read_cell(CELL, epochs=2) is None
    folder.write_cell(tried, epochs=2)
    assert (folder.has_cell(CELL, epochs=2), folder.has_cell(CELL, epochs=5), folder.has_cell(CELL)) == (
        True,
        False,
        False,
    )
    folder.write_cell(run)
    assert folder.read_cell(CELL, epochs=2).validation_top1 == 0.25
    assert folder.read_cell(CELL).correct == [1, 0]
    files = sorted(path.name for path in (folder.path / "runs" / "kept-all-0.001-3-1-0-10").iterdir())
    assert files == ["run.json", "tried-2.json"]
    (line,) = (folder.cell_folder(CELL) / "run.json").read_text().splitlines()
    assert json.loads(line)["format_version"] == 1


def test_what_a_run_needs_until_its_end_is_removed(folder):
    folder.cell_checkpoint(CELL).mkdir(parents=True)
    folder.remove_cell_checkpoint(CELL)
    folder.remove_cell_checkpoint(CELL)
    assert not folder.cell_checkpoint(CELL).exists()


def test_what_is_not_known_is_an_empty_cell_of_the_summary(folder):
    unknown = dict.fromkeys(("difference", "difference_low", "difference_high", "p_value", "smallest", "photos_needed"))
    row = SummaryRow(
        *("kept", "all", 1.0, None, 9, 1, 0.5, 0.5, 0.4, 0.6),
        **unknown,
        verdict="words",
        limits="",
        converged=None,
        seconds=0.0,
    )
    folder.write_summary([row])
    with open(folder.path / "summary.csv", newline="") as file:
        (read,) = csv.DictReader(file)
    assert {read[name] for name in (*unknown, "limits", "converged")} == {""}
    assert (read["head"], read["photos"], read["test_low"], read["verdict"]) == ("kept", "9", "0.4", "words")


def test_a_study_and_a_run_do_not_overwrite_one_another(folder, tmp_path):
    run = StudyConfig(dataset="x").run_config({})
    RunFolder(tmp_path / "run", run)
    with pytest.raises(UserError, match="Expected a study to overwrite"):
        StudyFolder(tmp_path / "run", folder.config, overwrite=True)
    with pytest.raises(UserError, match="Expected a run to overwrite"):
        RunFolder(folder.path, run, overwrite=True)
    assert (folder.path / "config.json").exists()


@pytest.mark.parametrize("work", [False, True])
def test_a_study_that_is_stopped_before_its_first_epoch_can_be_repeated(folder, work):
    """The search for duplicates comes before, and leaves a file."""
    with pytest.raises(KeyboardInterrupt):
        find_duplicates_and_stop(folder, work=work)
    again = StudyFolder(folder.path, folder.config)
    assert (again.read_duplicates() is not None) == work


def find_duplicates_and_stop(folder, *, work):
    with folder.held():
        folder.write_duplicates([])
        if work:
            (folder.path / "runs").mkdir()
        raise KeyboardInterrupt
