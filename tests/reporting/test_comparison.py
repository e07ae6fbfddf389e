"""What a page says about several runs."""

import json
import re
import statistics

import numpy as np
from html_page import HtmlPage as Page
from made_up_folders import interval, percent

from ktl.reporting.page import write_report


def test_a_comparison_groups_seeds_and_gives_their_spread(compared):
    folders, page = compared
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    test, validation = ([result[split]["top1"] for result in results] for split in ("test", "validation"))
    header, *rows = page.rows("comparison", 1)
    assert header[:5] == ["run", "test top-1", "validation top-1", "seed", "seconds"]
    assert [row[0] for row in rows] == ["y/run", "z/run", "x/run", "mean ± standard deviation", "x/other"]
    assert [row[3] for row in rows] == ["0", "1", "2", "3 runs", "0"]
    assert rows[0][1] == f"{percent(test[1])} ({interval(round(80 * test[1]), 80)})"
    assert rows[0][5:] == ["flowers", "tiny.keras", "kept", "auto", "label_smoothing 0"]
    assert rows[4][-1] == "label_smoothing 0.1"
    for column, values in ((1, test[:3]), (2, validation[:3])):
        assert rows[3][column] == f"{percent(statistics.mean(values))} ± {percent(statistics.stdev(values))}"
    assert [section.attributes["id"] for section in page.root.all("section")] == ["comparison"]


def test_dots_and_spreads_of_a_comparison_are_to_scale(compared):
    folders, page = compared
    scores = [json.loads((folder / "result.json").read_text())["test"]["top1"] for folder in folders[:3]]
    caption = page.section("comparison").all("caption")[0].text
    low, high = (
        float(number) / 100
        for number in re.findall(r"end is ([\d.]+)|right end ([\d.]+)", caption)
        for number in number
        if number
    )
    track = page.section("comparison").all("span", kind="track")[0]
    drawn = [low + (high - low) * float(number) for number in re.findall(r": ([\d.e-]+)", track.attributes["style"])]
    mean, spread = statistics.mean(scores), statistics.stdev(scores)
    np.testing.assert_allclose(drawn, [mean, mean - spread, mean + spread], atol=1e-9)
    ticks = [float(tick.attributes["style"].removeprefix("--at: ")) for tick in track.all("span", kind="tick")]
    np.testing.assert_allclose(sorted(low + (high - low) * at for at in ticks), sorted(scores), atol=1e-9)


def test_a_search_among_runs_is_its_best_run(searched, compared, tmp_path):
    page = Page(write_report([searched[0], compared[0][0]], output=tmp_path / "report.html"))
    first = page.rows("comparison", 1)[1]
    assert "best of 18 trials" in first[0]
    assert first[2] == percent(json.loads((searched[0] / "best" / "result.json").read_text())["validation"]["top1"])
