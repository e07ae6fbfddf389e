"""Pages as a browser would read them: their parts, what they let in, and what `write_report` refuses."""

import base64
import csv
import hashlib
import re
import shutil
import subprocess
import sys

import pytest
from html_page import HtmlPage as Page
from made_up_folders import HOSTILE, percent, settings_in
from support import edit_json, few_tries, write_classes

import ktl
from ktl.config.settings import RunConfig, StudyConfig
from ktl.errors import UserError
from ktl.reporting.page import write_report
from ktl.studies.study import study


def test_every_anchor_is_there_once_and_nothing_is_fetched(page):
    ids = [element.attributes["id"] for element in page.root.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in page.root.all():
        for name in ("href", "src", "xlink:href", "action", "srcset"):
            address = element.attributes.get(name)
            assert address is None or address.startswith("data:image/") or address[1:] in ids, address
        for used in re.findall(
            r"url\(([^)]*)\)", element.attributes.get("style", "") + element.attributes.get("clip-path", "")
        ):
            assert used.strip("#") in ids
    assert not page.root.all("link")
    style = page.root.one("style").text
    assert "@import" not in style
    assert "url(" not in style


def test_the_policy_lets_only_the_pages_own_script_run(page):
    policy = page.root.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    script = re.search("<script>(.*?)</script>", page.source, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert len(page.root.all("script")) == 1
    assert not [e.tag for e in page.root.all() for name in e.attributes if name.startswith("on")]


def test_pictures_have_words_and_wide_tables_take_the_keyboard(page):
    for picture in page.root.all("svg"):
        assert picture.attributes.get("aria-hidden") == "true" or len(picture.attributes["aria-label"]) > 10
    for box in page.root.all("div", kind="scroll"):
        assert box.attributes["tabindex"] == "0"
        assert box.attributes["aria-label"]
    for table in page.root.all("table"):
        assert table.all("th", scope="col")
    for section in page.root.all("section"):
        assert page.root.one(id=section.attributes["aria-labelledby"]).text
    assert page.root.one("html").attributes["lang"] == "en"
    assert page.root.one("h1").text


def test_hostile_names_are_text(hostile):
    _, page, _, _, _, names = hostile
    assert set(names) == set(HOSTILE)
    assert "alert(1)" not in page.root.one("script").text
    assert not page.root.all("i") + page.root.all("u") + page.root.all("img") + page.root.all("b")
    assert {row[0] for row in page.rows("classes")[1:]} == set(HOSTILE)
    assert "{{ 7 * 7 }}" in page.source
    assert "<u>Made from</u> ImageNet." in page.section("result").text


def test_the_same_folder_gives_the_same_bytes(hostile, tmp_path):
    folder, page, *_ = hostile
    again = write_report([folder], output=tmp_path / "again.html")
    assert again.read_text(encoding="utf-8") == page.source


@pytest.mark.parametrize(
    ("folders", "output", "message"),
    [
        ([], "report.html", "Expected folders"),
        (["nothing"], "report.html", "Received: nothing, which is no folder"),
        (["run", "run"], "report.html", "each folder once"),
        (["run", "./run"], "report.html", "each folder once"),
        (["run"], "run", "a folder"),
        (["run"], "run/result.json", "a new file or an earlier report"),
        (["run"], "run/labels.txt/report.html", "a place that can be written to"),
        (["unfinished"], "report.html", "a search that has ended"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_touched(folders, output, message, tmp_path, compared, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(compared[0][0], tmp_path / "run")
    shutil.copytree(compared[0][0], tmp_path / "unfinished" / "best")
    (tmp_path / "unfinished" / "trials.csv").touch()
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(UserError, match=message) as error:
        write_report(folders, output=output)
    assert "\n" not in str(error.value)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("place", ["photos/report.html", "photos/new/report.html", "photos/ash/../report.html"])
def test_a_page_among_the_photos_is_refused_before_it_is_made(tmp_path, compared, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "photos", {"ash": 5, "birch": 5})
    runs = [shutil.copytree(compared[0][number], tmp_path / f"run{number}") for number in (0, 1)]
    edit_json(runs[1] / "config.json", dataset="photos", data_dir=None)
    before = sorted(tmp_path.rglob("*"))
    for folders in (runs[1:], runs):
        with pytest.raises(UserError, match=r"Expected `output` outside of the data set photos, .* Received: photos"):
            write_report(folders, output=place)
    assert sorted(tmp_path.rglob("*")) == before
    assert write_report(runs, output="report.html").exists()


def test_the_command_loads_neither_tensorflow_nor_keras_tuner(hostile, searched, compared, studied, tmp_path):
    """Thumbnails included: `hostile` has them. Of one process for all: what the first loads, the others need not."""
    pages = {"hostile": [hostile[0]], "searched": [searched[0]], "compared": compared[0], "studied": [studied[0]]}
    commands = [["report", *map(str, folders), "--output", f"{name}.html"] for name, folders in pages.items()]
    code = f"import sys; from ktl.cli.main import main; sys.exit(sum(map(main, {commands})))"
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    loaded = {line.rsplit("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "ktl.reporting.page" in loaded
    assert not loaded & {"tensorflow", "keras", "keras_tuner", "ktl.runs.run", "ktl.tuning", "ktl.studies"}
    assert done.stdout == "".join(f"{name}.html\n" for name in pages)


def test_an_earlier_report_is_replaced(compared, tmp_path):
    output = tmp_path / "report.html"
    write_report(compared[0], output=output)
    old = output.read_bytes()
    write_report(compared[0][:2], output=output)
    assert output.read_bytes() != old
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_real_run(photo_folder, tiny_backbone, tmp_path):
    config = RunConfig(
        dataset=str(photo_folder), backbone=str(tiny_backbone), freeze_depth="all", epochs=2, cache="off"
    )
    result = ktl.run(config, output=tmp_path / "run")
    page = Page(write_report([tmp_path / "run"], output=tmp_path / "report.html"))
    assert page.section("result").one("strong").text == percent(result["test"]["top1"])
    assert len(page.rows("curves")) == 1 + result["epochs"]
    found, script = settings_in("".join(page.section("settings").one("code").children))
    assert (found.as_dict(), script) == (config.as_dict(), "run")
    assert page.section("settings").one("caption").text == "Bold: other than the default."
    with open(tmp_path / "run" / "confusion.csv", newline="") as file:
        counts = [[cell.replace("0", "") if cell == "0" else cell for cell in row[1:]] for row in csv.reader(file)][1:]
    assert [row[1:] for row in page.rows("confusion")[1:]] == counts
    assert len(page.root.all("symbol")) == result["photos"]["test"]


@pytest.mark.slow
def test_a_real_study(photo_folder, tiny_backbone, tmp_path):
    config = StudyConfig(
        dataset=str(photo_folder),
        backbone=str(tiny_backbone),
        heads="kept,replaced",
        depths="all",
        shares="none",
        seeds=2,
        epochs=2,
        batch_size=8,
        cache="off",
    )
    with few_tries():
        result = study(config, output=tmp_path / "study")
    page = Page(write_report([tmp_path / "study"], output=tmp_path / "report.html"))
    found, script = settings_in("".join(page.section("settings").one("code").children))
    assert (found.as_dict(), script) == (config.as_dict(), "study")
    rows = page.rows("answer")[1:]
    for row, best in zip(rows, result["best"], strict=True):
        assert row[0] == f"{best['head']} frozen up to all"
        assert row[1].startswith(percent(best["test_top1"]["estimate"]))
        assert row[3].startswith(best["verdict"])
    rates = [
        (head, place, part, rate.startswith("["), float(rate.strip("[]")))
        for head, place, part, rate, *_ in page.rows("tuned")[1:]
    ]
    assert rates == [
        (row["head"], row["freeze_depth"], "100 %", "learning_rate" in row["edges"], row["learning_rate"])
        for row in result["tuned"]
    ]
    of_test = [row for row in page.rows("duplicates")[1:] if row[0] == "test"]
    assert len(of_test) == sum(result["duplicates"].values()) > 0


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium")
def test_a_browser_runs_the_script_and_nothing_else(searched, tmp_path):
    path = searched[0] / "report.html"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
    done = subprocess.run(["chromium", *flags, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    (tmp_path / "seen.html").write_text(done.stdout)
    buttons = re.findall(r'<th[^>]*><button type="button">([^<]*)</button>', done.stdout)
    assert buttons[:2] == ["trial", "validation top-1"]
    assert len(buttons) == 2 * 8
