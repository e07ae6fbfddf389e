"""Settings and commands in a page."""

import json
import shutil
from pathlib import Path

from html_page import HtmlPage as Page
from made_up_folders import made_up, settings_in, write_run
from made_up_studies import STUDY, best_depths, study_runs

from ktl.config.settings import RunConfig
from ktl.files import read_json, write_json
from ktl.reporting import page as report
from ktl.reporting.page import write_report


def command_on(page: Page) -> str:
    return "".join(page.section("settings").one("code").children)


def test_the_command_gives_the_same_settings(tmp_path):
    config = RunConfig(dataset="./my photos'", epochs=3, deterministic=True, scale=0.1, weights="random")
    write_run(
        tmp_path, config, class_names="ab", photos="xyz", validation=made_up(3, 2), test=made_up(3, 2), notice=None
    )
    page = Page(write_report([tmp_path], output=tmp_path / "report.html"))
    assert settings_in(command_on(page)) == (config, "run")
    values = {row[0]: row[1] for row in page.rows("settings")[1:]}
    assert (values["scale"], values["deterministic"], values["image_size"]) == ("0.1", "yes", "not given")
    assert {bold.text for bold in page.section("settings").all("strong")} == {
        "./my photos'",
        "3",
        "yes",
        "0.1",
        "random",
    }
    assert "no pre-trained layer" in page.section("result").text


def test_a_study_tells_its_settings_and_the_command(studied):
    _, page, _, _ = studied
    assert settings_in(command_on(page)) == (STUDY, "study")
    values = {row[0]: row[1] for row in page.rows("settings")[1:]}
    assert values["dataset"] == STUDY.dataset
    assert not {"head", "freeze_depth", "learning_rate", "scale"} & set(values)
    assert values["shares"] == "0.1,0.5"
    assert page.rows("tuned")[1:] == [
        [head, depth, "100 %", "[0.0003]", "3" if head == "kept" else "none", "10"]
        for head, depth in best_depths(study_runs(STUDY)).items()
    ]
    assert ["keras version", "3"] in page.rows("environment")
    assert page.rows("environment")[0][0] == "of the study"
    assert page.root.one("h1").text == "Study: <b>wild & 'ö' {{ 7 * 7 }}, tiny.keras"
    assert [section.attributes["id"] for section in page.root.all("section")] == [
        section.template for section in report.STUDY_SECTIONS
    ]


def test_what_no_flag_can_say_stands_beside_the_command(compared, tmp_path):
    folder = shutil.copytree(compared[0][0], tmp_path / "run")
    recorded = json.loads((folder / "config.json").read_text())
    extras = {"class_weight": {"0": 2.0}, "augmentation": "mine.<b>darker"}
    write_json(folder / "config.json", recorded | {"extras": extras})
    page = Page(write_report([folder], output=tmp_path / "report.html"))
    notice = page.section("settings").one("p", kind="notice").text
    assert "class_weight {'0': 2.0}, augmentation mine.<b>darker" in notice
    assert "extras" not in {row[0] for row in page.rows("settings")}
    both = Page(write_report([folder, compared[0][0]], output=tmp_path / "report.html"))
    assert len(both.rows("comparison")) == 1 + 2  # other settings: two groups


def without_command(folder: Path, copy: Path) -> Path:
    """A copy as version 0.1 wrote it."""
    shutil.copytree(folder, copy)
    path = copy / "result.json"
    result = json.loads(path.read_text())
    del result["command"]
    write_json(path, result)
    return copy


def test_without_a_recorded_command_every_setting_is_a_flag(compared, searched, studied, tmp_path):
    """A default of today may be another one than of the version that wrote the folder."""
    folder = without_command(compared[0][0], tmp_path / "run")
    page = Page(write_report([folder], output=tmp_path / "report.html"))
    found, script = settings_in(command_on(page))
    assert script == "run"
    assert found.as_dict() == read_json(folder / "config.json")
    assert "--batch-size 32" in command_on(page)
    assert not page.section("settings").all("caption")
    folder = without_command(searched[0], tmp_path / "search")
    page = Page(write_report([folder], output=tmp_path / "report.html"))
    found, script = settings_in(page.section("search").one("code").text)
    assert script == "search"
    assert found.as_dict() == read_json(folder / "config.json")
    folder = without_command(studied[0], tmp_path / "study")
    page = Page(write_report([folder], output=tmp_path / "report.html"))
    assert settings_in(command_on(page)) == (STUDY, "study")
    assert "--head " not in command_on(page)
