"""Folders that version 0.1 left: they are read, and its unfinished run is not gone on with."""

import csv
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from html_page import HtmlPage
from support import REPOSITORY

import ktl
from ktl.cli.main import main
from ktl.reporting.page import write_report

ZIP = REPOSITORY / "tests" / "version_0_1" / "folders.zip"

FLAGS = ["--dataset", "photos", "--backbone", "tiny.keras", "--epochs", "2", "--batch-size", "8", "--cache", "off"]
FLAGS += ["--least-steps", "1", "--weight-decay", "1e-4", "--refit", "off"]
"""Those of the folders' runs; version 0.1 had no floor on the steps of an epoch, another default of the decay, and no
second training."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """Do not write here."""
    folder = tmp_path_factory.mktemp("version_0_1")
    with zipfile.ZipFile(ZIP) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def old(unpacked, monkeypatch) -> Path:
    """The folders, of which one is the working directory: their settings name `photos` and `tiny.keras`."""
    monkeypatch.chdir(unpacked)
    return unpacked


def read_csv(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def predictions(folder: Path) -> dict[str, str]:
    """Path of each test photo -> the label that the run of version 0.1 gave it."""
    return {f"photos/{row['photo']}": row["prediction"] for row in read_csv(folder / "predictions.csv")}


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


@pytest.mark.parametrize(("name", "folder"), [("run", "run"), ("search", "search/best")])
def test_a_report_has_the_results_and_the_photos(old, tmp_path, name, folder):
    page = HtmlPage(write_report([name], output=tmp_path / "report.html"))
    result = json.loads((old / folder / "result.json").read_text())
    assert page.section("result").one("strong").text == percent(result["test"]["top1"])
    assert result["test"]["top5"] == 1.0  # of three classes, which says nothing
    assert "top-5" not in {row[0] for row in page.rows("result")}
    assert len(page.rows("curves")) == 1 + result["epochs"]
    assert len(page.root.all("symbol")) == result["photos"]["test"] == 6
    if name == "search":
        assert len(page.rows("trials")) == 1 + 2


def test_a_report_of_a_study(old, tmp_path):
    page = HtmlPage(write_report(["study"], output=tmp_path / "report.html"))
    best = {row["head"]: row for row in json.loads((old / "study" / "result.json").read_text())["best"]}
    rows = page.rows("answer")[1:]
    assert [row[0] for row in rows] == [f"{head} frozen up to {row['freeze_depth']}" for head, row in best.items()]
    assert [row[1].split(" (")[0] for row in rows] == [percent(row["test_top1"]["estimate"]) for row in best.values()]
    assert len(page.rows("summary")) == 1 + 2 * 2


def test_a_report_that_compares(old, tmp_path):
    page = HtmlPage(write_report(["run", "search"], output=tmp_path / "report.html"))
    assert page.root.one("h1").text == "2 runs compared"
    assert {"run", "search best of 2 trials"} <= {row[0] for row in page.rows("comparison", 1)}


@pytest.mark.parametrize(
    ("model", "folder"),
    [("run", "run"), ("search", "search/best"), ("exported", "run"), ("exported_keras", "run")],
)
def test_predictions_are_those_of_the_run(old, capsys, model, folder):
    expected = predictions(old / folder)
    assert main(["predict", "--model", model, "--json", *expected]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["photo"]: row["label"] for row in rows} == expected


def test_an_export_gives_what_the_best_run_of_a_search_gave(old, tmp_path, capsys):
    """The command compares them itself, and fails if they differ."""
    output = tmp_path / "exported"
    assert main(["export", "--run", "search", "--output", str(output), "--format", "keras", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["test"]["top1"] == json.loads((old / "search" / "best" / "result.json").read_text())["test"]["top1"]
    assert (output / "model.keras").exists()


def test_an_export_is_known_as_one_and_is_not_taken_for_that_of_a_new_run(old, capsys):
    assert main(["run", *FLAGS, "--output", "new", "--export", "exported"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--export exported, an export by version 0.1 of ktl. Name another folder" in error
    assert not Path("new").exists(), "it trained before it looked"


def test_an_unfinished_run_is_not_gone_on_with(unpacked, tmp_path, monkeypatch, capsys):
    shutil.copytree(unpacked, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    before = {path: path.read_bytes() for path in Path("unfinished").rglob("*") if path.is_file()}
    assert main(["run", *FLAGS, "--output", "unfinished"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "version 0.1" in error
    assert {path: path.read_bytes() for path in Path("unfinished").rglob("*") if path.is_file()} == before


def test_a_finished_run_gives_its_result_back_and_stays_as_it_is(unpacked, tmp_path, monkeypatch, capsys):
    shutil.copytree(unpacked, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    assert main(["run", *FLAGS, "--output", "run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["test"] == json.loads(before[Path("run/result.json")])["test"]
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    assert main(["run", *FLAGS, "--output", "run", "--seed", "1"]) == 2
    assert "seed 0 there, 1 here" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["search", "study"])
def test_so_do_a_finished_search_and_study(old, name):
    config = json.loads((old / name / "config.json").read_text())
    kind, go_on = {"search": (ktl.SearchConfig, ktl.search), "study": (ktl.StudyConfig, ktl.study)}[name]
    before = {path: path.read_bytes() for path in (old / name).rglob("*") if path.is_file()}
    result = go_on(kind.from_dict(config), output=name, verbose=0)
    assert result == json.loads((old / name / "result.json").read_text())
    assert {path: path.read_bytes() for path in (old / name).rglob("*") if path.is_file()} == before
