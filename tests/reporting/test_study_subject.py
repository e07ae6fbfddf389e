"""How a study's folder is read."""

import dataclasses
import json
import shutil
import statistics
from pathlib import Path

import pytest
from html_page import HtmlPage as Page
from made_up_studies import best_depths, together
from support import edit_json

from ktl.errors import UserError
from ktl.files import write_json
from ktl.reporting.page import write_report
from ktl.reporting.study_subject import StudySubject, read_result


@pytest.mark.parametrize(
    ("depths", "ordered"),
    [
        (["all", "b", "none", "a"], ["none", "b", "a", "all"]),
        (["10", "9", "all", "0"], ["0", "9", "10", "all"]),
    ],
)
def test_order_of_depths(depths, ordered, studied):
    row = read_result(studied[0])[1][0]
    subject = StudySubject({}, [dataclasses.replace(row, freeze_depth=depth) for depth in [*depths, *depths]])
    assert subject.depths == ordered


def test_a_run_that_failed_and_one_at_a_rate_that_is_no_longer_chosen_have_no_curve(studied, tmp_path):
    folder = shutil.copytree(studied[0], tmp_path / "study")
    groups = together(studied[2], "head", "freeze_depth", "share")
    first, *others = groups["kept", best_depths(studied[2])["kept"], 1.0]
    failed = {**first, "failed": "Expected a finite loss.", "history": [0.0], "epochs": 0, "converged": 0}
    write_json(folder / "runs" / str(studied[2].index(first)) / "run.json", failed)
    (folder / "runs" / "left").mkdir()
    write_json(folder / "runs" / "left" / "run.json", {**first, "learning_rate": 1.0, "converged": 99})
    page = Page(write_report([folder], output=tmp_path / "report.html"))
    (row,) = [row for row in page.rows("convergence")[1:] if row[0] == "kept"]
    values = [run["converged"] for run in others]
    assert row[2] == f"{statistics.fmean(values):.1f} ({min(values)} to {max(values)})"


@pytest.mark.parametrize("missing", [["result.json"], ["result.json", "environment.json", "summary.csv"], ["runs"]])
def test_a_study_that_has_not_ended(studied, missing, tmp_path):
    folder = shutil.copytree(studied[0], tmp_path / "study")
    for name in missing:
        (shutil.rmtree if name == "runs" else Path.unlink)(folder / name)
    with pytest.raises(UserError, match="Expected a study that has ended") as error:
        write_report([folder], output=tmp_path / "report.html")
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(f"without {', '.join(missing)}")
    assert not (tmp_path / "report.html").exists()


def test_a_study_whose_runs_went(studied, tmp_path):
    folder = shutil.copytree(studied[0], tmp_path / "study")
    (folder / "runs" / "0" / "run.json").unlink()
    with pytest.raises(UserError, match=r"with 54 files runs.*, with 53$"):
        write_report([folder], output=tmp_path / "report.html")


def test_a_study_of_before_version_0_1(studied, tmp_path):
    folder = shutil.copytree(studied[0], tmp_path / "study")
    edit_json(folder / "result.json", tuned={"kept": {}})
    with pytest.raises(UserError, match="of this version of ktl"):
        write_report([folder], output=tmp_path / "report.html")


def test_a_study_of_a_later_version(studied, tmp_path):
    folder = shutil.copytree(studied[0], tmp_path / "study")
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 1000}))
    with pytest.raises(UserError, match="Update ktl"):
        write_report([folder], output=tmp_path / "report.html")
