"""What a page says about a search, against its trials."""

import statistics

from html_page import HtmlPage as Page
from made_up_folders import SPACE, percent, settings_in, write_search

from ktl.files import read_json
from ktl.reporting.page import write_report


def test_each_trial_is_there_once_the_ten_best_in_front(searched):
    _, page, trials = searched
    completed = [row["trial"] for row in trials if row["status"] == "completed"]
    best, rest = ([row[0] for row in page.rows("trials", number)[1:]] for number in (0, 1))
    failed = [row[0] for row in page.rows("failures")[1:]]
    assert best == completed[:10]
    assert rest == completed[10:]
    assert sorted(best + rest + failed) == sorted(row["trial"] for row in trials)
    assert page.section("search").one("p", kind="notice").text == "WARNING: <few> photos"
    facts = page.section("search")
    shown = dict(zip([fact.text for fact in facts.all("dt")], [fact.text for fact in facts.all("dd")], strict=True))
    assert shown["seeds a trial"] == "3"
    first, row = page.rows("trials")[1], trials[0]
    assert first[1] == f"{percent(row['validation_top1'])} ± 1.3 %"
    assert first[2:5] == [str(row[name]) for name in SPACE]
    assert [row[-1] for row in page.rows("failures")[1:]] == [
        "out of <memory> 5",
        "out of <memory> 11",
        "out of <memory> 17",
    ]


def test_the_heat_map_has_the_best_over_the_rest(searched):
    _, page, trials = searched
    header, *rows = page.rows("heatmap")
    assert header[1:] == SPACE["freeze_depth"]
    for scale, row in zip(SPACE["scale"], rows, strict=True):
        assert row[0] == f"{scale:g}"
        for depth, cell in zip(SPACE["freeze_depth"], row[1:], strict=True):
            scores = [t["validation_top1"] for t in trials if (t["scale"], t["freeze_depth"]) == (scale, depth)]
            assert cell == f"{100 * max(score for score in scores if score):.1f}"


def test_accuracy_and_cost_by_freeze_depth(searched):
    _, page, trials = searched
    for row, depth in zip(page.rows("depths")[1:], SPACE["freeze_depth"], strict=True):
        there = [t for t in trials if t["freeze_depth"] == depth and t["status"] == "completed"]
        best, seconds = max(t["validation_top1"] for t in there), statistics.median(t["seconds"] for t in there)
        assert row == [depth, f"{100 * best:.1f}", f"{seconds:.1f}"]
    words = [text.text for text in page.section("depths").one("svg").all("text")]
    assert {"none", "a$b<i>", "all", "seconds a trial"} <= set(words)


def test_a_search_tells_of_itself_and_then_of_its_best_run(searched, hostile):
    _, page, trials = searched
    sections = [section.attributes["id"] for section in page.root.all("section")]
    own = ["search", "trials", "heatmap", "depths", "failures"]
    assert sections == own + [section.attributes["id"] for section in hostile[1].root.all("section")]
    text = page.section("search").text
    assert trials[0]["trial"] in text
    assert "15 completed, 3 failed" in text
    found, script = settings_in(page.section("search").one("code").text)
    assert script == "search"
    assert found.as_dict() == read_json(searched[0] / "config.json")


def test_a_search_of_other_settings_has_no_map_of_scale_and_depth(hostile, tmp_path):
    write_search(tmp_path / "search", hostile[0], {"learning_rate": [0.001, 0.01]})
    page = Page(write_report([tmp_path / "search"], output=tmp_path / "report.html"))
    sections = [section.attributes["id"] for section in page.root.all("section")]
    assert sections[:3] == ["search", "trials", "result"]


def test_what_chose_the_trial_is_the_objective_of_the_search(searched, hostile, tmp_path):
    write_search(tmp_path / "search", hostile[0], objective="log_loss")
    page = Page(write_report([tmp_path / "search"], output=tmp_path / "report.html"))
    assert "has the lowest validation log loss of all" in page.section("search").text
    assert "has the highest validation top-1 of all" in searched[1].section("search").text
