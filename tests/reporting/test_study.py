"""What a page says about a study, against its runs."""

import dataclasses
import json
import re
import shutil
import statistics

import numpy as np
import pytest
from html_page import HtmlPage as Page
from made_up_folders import interval, percent
from made_up_studies import LIMITS, STUDY, as_version_0_1_wrote, best_depths, mean_of, study_runs, together, write_study

from ktl.files import write_json
from ktl.reporting import page as report
from ktl.reporting.page import write_report


def test_the_answer_is_the_kept_layer_against_the_replaced_one(studied):
    _, page, runs, _ = studied
    groups = together(runs, "head", "freeze_depth", "share")
    best = best_depths(runs)
    assert len(set(best.values())) == 3
    tests = {head: mean_of(groups[head, depth, 1.0], "test") for head, depth in best.items()}
    headline = page.section("answer").one("p", kind="headline").text
    points = 100 * (tests["kept"] - tests["replaced"])
    shown = abs(points - 1) > 3  # the made-up interval goes from 4 below to 2 above
    opening = f"{'Gains' if points > 0 else 'Loses'} {abs(points):.1f} points" if shown else "No difference shown"
    assert headline.startswith(f"{opening} in test top-1: kept ({percent(tests['kept'])}, frozen up to {best['kept']})")
    assert f"against replaced ({percent(tests['replaced'])}, frozen up to {best['replaced']})" in headline
    interval = f"{points:+.1f} points, 95 % interval {points - 4:+.1f} to {points + 2:+.1f}."
    assert headline.endswith(interval if shown else f"{interval} T{LIMITS[1:]}.")
    rows = page.rows("answer")[1:]
    for head, row in zip(best, rows, strict=True):
        low, high = tests[head] - 0.03, tests[head] + 0.03
        assert row[0] == f"{head} frozen up to {best[head]}"
        assert row[1] == f"{percent(tests[head])} ({100 * low:.1f} to {percent(high)})"
        points = 100 * (tests[head] - tests["replaced"])
        words = f"({points - 4:+.1f} to {points + 2:+.1f})"
        if head == "replaced":
            assert row[3] == "the baseline"
        elif abs(points - 1) > 3:
            assert row[3].endswith(words)
        else:
            assert row[3] == f"no difference shown, {points:+.1f} points {words}; {LIMITS}"


def test_differences_are_drawn_to_scale_with_zero_marked(studied):
    _, page, runs, _ = studied
    groups, best = together(runs, "head", "freeze_depth", "share"), best_depths(runs)
    tests = {head: mean_of(groups[head, depth, 1.0], "test") for head, depth in best.items()}
    section = page.section("answer")
    caption = section.one("caption").text
    low, high = (float(end) for end in re.search(r"from (\S+) points at the left end to (\S+) at", caption).groups())
    tracks = section.all("span", kind="track")
    for head, track in zip(("kept", "kept_raw"), tracks, strict=True):
        middle = 100 * (tests[head] - tests["replaced"])
        drawn = [low + (high - low) * float(at) for at in re.findall(r": ([\d.e-]+)", track.attributes["style"])]
        np.testing.assert_allclose(drawn, [middle, middle - 4, middle + 2], atol=1e-6)
        zero = float(track.one("span", kind="zero").attributes["style"].removeprefix("--at: "))
        assert low + (high - low) * zero == pytest.approx(0, abs=1e-6)


def test_freeze_depths_stand_in_their_order_with_scores_and_seconds(studied):
    _, page, runs, _ = studied
    groups, best = together(runs, "head", "freeze_depth", "share"), best_depths(runs)
    header, *rows = page.rows("freezing")
    assert header == ["frozen up to", "seconds a run", "kept", "kept_raw", "replaced"]
    assert [row[0] for row in rows] == ["none", "block$2", "block10", "all"]
    for depth, seconds, *cells in rows:
        there = [run for run in runs if run["freeze_depth"] == depth and run["share"] == 1]
        assert seconds == f"{mean_of(there, 'seconds'):.1f}"
        assert cells == [percent(mean_of(groups[head, depth, 1.0], "test")) for head in header[2:]]
    section = page.section("freezing")
    bold = {mark.parent.parent.one("th").text: mark.text for mark in section.all("strong")}
    assert bold == {depth: percent(mean_of(groups[head, depth, 1.0], "test")) for head, depth in best.items()}
    words = [text.text for text in section.one("svg").all("text")]
    assert [word for word in words if word in STUDY.depths] == ["none", "block$2", "block10", "all"]
    spoken = section.one("svg").attributes["aria-label"]
    for head in STUDY.heads:
        scores = {depth: mean_of(groups[head, depth, 1.0], "test") for depth in STUDY.depths}
        highest = max(rows, key=lambda row: scores[row[0]])[0]
        assert f"{head} from {100 * min(scores.values()):.1f} % to {100 * max(scores.values()):.1f} %" in spoken
        assert f"the highest at {highest}" in spoken


def test_curves_are_means_of_as_many_epochs_as_every_seed_has(studied):
    _, page, runs, _ = studied
    groups = together(runs, "head", "freeze_depth", "share")
    rows = page.rows("convergence")[1:]
    for (head, depth), row in zip(best_depths(runs).items(), rows, strict=True):
        group = groups[head, depth, 1.0]
        spreads = [[run[name] for run in group] for name in ("converged", "epochs")]
        assert row[:2] == [head, depth]
        assert row[2:4] == [f"{statistics.fmean(values):.1f} ({min(values)} to {max(values)})" for values in spreads]
        assert row[4] == percent(mean_of(group, "validation_top1"))
        epochs = min(len(run["history"]) for run in group)
        means = [statistics.fmean(run["history"][at] for run in group) for at in range(epochs)]
        check_drawn(page.section("convergence"), head, range(1, epochs + 1), means)
        spoken = page.section("convergence").one("svg").attributes["aria-label"]
        assert f"{head} from {100 * means[0]:.1f} % to {100 * means[-1]:.1f} % at epoch {epochs}" in spoken


def test_scores_with_fewer_photos_over_a_logarithmic_axis(studied):
    _, page, runs, _ = studied
    groups, best = together(runs, "head", "freeze_depth", "share"), best_depths(runs)
    header, *rows = page.rows("shares")
    assert header[1:] == list(best)
    assert [row[0] for row in rows] == ["10 % (123)", "50 % (617)", "100 % (1234)"]
    for share, row in zip((0.1, 0.5, 1.0), rows, strict=True):
        assert row[1:] == [percent(mean_of(groups[head, depth, share], "test")) for head, depth in best.items()]
    for head, depth in best.items():
        scores = [mean_of(groups[head, depth, share], "test") for share in (0.1, 0.5, 1.0)]
        check_drawn(page.section("shares"), head, np.log([123, 617, 1234]), scores)
        spoken = page.section("shares").one("svg").attributes["aria-label"]
        assert f"{head} from {100 * scores[0]:.1f} % to {100 * scores[-1]:.1f} %" in spoken


def test_lines_by_freeze_depth_are_drawn_to_scale(studied):
    _, page, runs, _ = studied
    groups = together(runs, "head", "freeze_depth", "share")
    for head in STUDY.heads:
        scores = [mean_of(groups[head, depth, 1.0], "test") for depth in ("none", "block$2", "block10", "all")]
        check_drawn(page.section("freezing"), head, range(4), scores)


DRAWN_IN = {"kept": "var(--one)", "kept_raw": "var(--three)", "replaced": "var(--two)"}


def check_drawn(section, head, at, values):
    """A head's markers lie where a linear scale puts these numbers, and nowhere else but in the legend."""
    style = f"fill: {DRAWN_IN[head]}; stroke: {DRAWN_IN[head]}"
    marks = [
        use.attributes for use in section.one("svg").all("use") if use.attributes.get("style", "").startswith(style)
    ]
    places = np.array([[float(mark[axis]) for axis in ("x", "y")] for mark in marks[: len(values)]])
    assert len(marks) == len(values) + 1
    for drawn, numbers, sign in zip(places.T, (at, values), (1, -1), strict=True):
        slope, start = np.polyfit(list(numbers), drawn, 1)
        np.testing.assert_allclose(start + slope * np.array(numbers), drawn, atol=0.01)
        assert sign * slope > 0


def test_probes_stand_beside_the_heads(studied):
    _, page, _, _ = studied
    assert page.rows("probes")[1:] == [
        ["logits", "kept, kept_raw", "100 %", "61.0 % (52.0 to 70.0 %)", "60.0 %"],
        ["features", "replaced", "100 %", "61.0 % (52.0 to 70.0 %), not converged", "60.0 %"],
    ]


def test_the_untouched_layer_stands_beside_the_heads_with_a_warning(studied):
    _, page, runs, _ = studied
    groups, best = together(runs, "head", "freeze_depth", "share"), best_depths(runs)
    section = page.section("zero_shot")
    assert section.one("p", kind="notice").text.startswith("2 of the 7 classes are classes of ImageNet.")
    assert "the 1,234 test photos of these classes" in section.one("caption").text
    first, second, *heads = page.rows("zero_shot")[1:]
    assert first[1:] == ["1000", f"50.0 % ({interval(0.5 * 1234, 1234)})"]
    assert second[1:] == ["2", f"87.5 % ({interval(0.875 * 1234, 1234)})"]
    for (head, depth), row in zip(best.items(), heads, strict=True):
        score = mean_of(groups[head, depth, 1.0], "test")
        assert row == [
            f"{head} frozen up to {depth}",
            "7",
            f"{percent(score)} ({100 * score - 3:.1f} to {percent(score + 0.03)})",
        ]
    assert page.rows("zero_shot", 1)[1:] == [
        ["<b>crane", "crane (bird) n02012849, crane (machine) n03126707"],
        ["bird", "crane (bird) n02012849"],
    ]


def test_duplicates_are_listed_up_to_a_bound(studied):
    _, page, _, _ = studied
    section = page.section("duplicates")
    assert section.one("p", kind="notice").text.startswith(
        "1 photo of the test split is also among the training or validation photos, and 208 more look like one."
    )
    alone, listed = section.all("p", kind="caption")
    assert "Test top-1 on the 131 test photos that look like no training or validation photo" in alone.text
    assert [head.text for head in section.all("dt")] == list(STUDY.heads)
    assert "WARNING: <few> photos" in [text.text for text in page.section("answer").all("p", kind="notice")]
    assert "The first 200; duplicates.csv has all." in listed.text
    rows = page.rows("duplicates")[1:]
    assert len(rows) == 200
    assert rows[:2] == [
        ["test", "test/a/<i>&1.jpg", "train", "train/a/1.jpg", "4"],
        ["test", "test/a/2.jpg", "train", "train/b/2.png", "the same file"],
    ]
    sorted_by = [float(row.all("td")[-1].attributes["data-value"]) for row in section.all("tr")[1:3]]
    assert sorted_by == [4, -1]


def test_a_study_without_duplicates_says_so_and_one_of_before_has_no_such_sections(studied, tmp_path):
    folder = shutil.copytree(studied[0], tmp_path / "study")
    result = json.loads((folder / "result.json").read_text())
    (folder / "duplicates.csv").write_text("test,train,distance,exact\n")
    result |= {"duplicates": {"exact": 0, "near": 0}, "zero_shot": None}
    write_json(folder / "result.json", result)
    page = Page(write_report([folder], output=tmp_path / "report.html"))
    assert page.section("duplicates").one("p").text == (
        "No test photo is among the training or validation photos or looks like one of them, and no validation photo "
        "like a training photo."
    )
    assert "zero_shot" not in [section.attributes["id"] for section in page.root.all("section")]
    (folder / "duplicates.csv").unlink()
    del result["duplicates"], result["zero_shot"], result["settings"]["synsets"]
    write_json(folder / "result.json", result)
    config = json.loads((folder / "config.json").read_text())
    del config["synsets"]
    write_json(folder / "config.json", config)
    page = Page(write_report([folder], output=tmp_path / "report.html"))
    assert [section.attributes["id"] for section in page.root.all("section")] == [
        section.template for section in report.STUDY_SECTIONS if section.template not in ("duplicates", "zero_shot")
    ]


def test_each_mean_of_a_study_is_there_once(studied):
    _, page, runs, summary = studied
    rows = page.rows("summary")[1:]
    keys = [(row["head"], row["freeze_depth"], f"{100 * row['share']:g} %") for row in summary]
    assert [tuple(row[:3]) for row in rows] == keys
    assert len(set(keys)) == len(keys) == 3 * 4 + 3 * 2
    groups = together(runs, "head", "freeze_depth", "share")
    best = best_depths(runs)
    for row, expected in zip(rows, summary, strict=True):
        head, depth, share = (expected[name] for name in ("head", "freeze_depth", "share"))
        group = groups[head, depth, share]
        baseline = groups["replaced", depth if share == 1 else best["replaced"], share]
        score = mean_of(group, "test")
        assert row[3] == f"{percent(score)} ({100 * score - 3:.1f} to {percent(score + 0.03)})"
        if head == "replaced":
            assert row[4:6] == ["", "the baseline"]
        else:
            points = 100 * (score - mean_of(baseline, "test"))
            assert row[4].split()[0] == f"{round(points, 1) + 0.0:+.1f}"
            assert "(" not in row[5]
        assert row[6] == percent(mean_of(group, "validation_top1"))
        assert row[7:] == [f"{mean_of(group, name):.1f}" for name in ("converged", "seconds")] + ["3"]
    section = page.section("summary")
    bold = [
        (row.one("th").text, *(cell.text for cell in row.all("td")[:2])) for row in section.all("tr", kind="chosen")
    ]
    assert bold == [(head, depth, "100 %") for head, depth in best.items()]
    assert section.one("table").attributes["class"] == "sortable"
    order = {row.all("td")[0].text: row.all("td")[0].attributes["data-value"] for row in section.all("tr")[1:]}
    assert sorted(order, key=lambda depth: int(order[depth])) == ["none", "block$2", "block10", "all"]


def test_of_one_seed_nothing_is_said_of_others(tmp_path):
    config = dataclasses.replace(STUDY, seeds=1, shares="none")
    write_study(tmp_path / "study", config, study_runs(config))
    page = Page(write_report([tmp_path / "study"], output=tmp_path / "report.html"))
    assert not re.search(r"\bnan\b", page.root.one("main").text)
    headline = page.section("answer").one("p", kind="headline").text
    assert "interval for other photos" in page.section("freezing").one("figcaption").text
    assert "of the mean over 1 seed, for other photos too" in page.section("answer").one("caption").text
    assert headline.startswith("Nothing can be said of one seed: how the kept layer compares")
    assert {row[3] for row in page.rows("answer")[1:]} == {"nothing can be said of one seed", "the baseline"}
    assert "shares" not in [section.attributes["id"] for section in page.root.all("section")]


def test_what_the_intervals_are_for_is_said(studied):
    _, page, *_ = studied
    caption = page.section("answer").one("caption").text
    assert "for other seeds and other photos too" in caption
    assert "also for other validation photos, which might choose other freeze depths" in caption
    assert "Holm" in caption
    assert "other seeds and other photos" in page.section("freezing").one("figcaption").text
    assert "Holm's procedure" in page.section("summary").text


def test_of_version_0_1_other_intervals_are_told(studied, tmp_path):
    shutil.copytree(studied[0], tmp_path / "study")
    as_version_0_1_wrote(tmp_path / "study")
    page = Page(write_report([tmp_path / "study"], output=tmp_path / "report.html"))
    caption = page.section("answer").one("caption").text
    assert "for other seeds. Intervals are not widened" in caption
    assert "that other validation photos may choose other freeze depths is not counted" in caption
    assert "for other seeds on the same photos" in page.section("freezing").one("figcaption").text
    assert "Holm" not in page.root.one("main").text
    assert LIMITS not in page.root.one("main").text


def test_a_study_without_the_replaced_layer_compares_nothing(tmp_path):
    config = dataclasses.replace(STUDY, heads="kept,kept_raw", weights="random")
    write_study(tmp_path / "study", config, study_runs(config), notice="<u>The photos</u> come from ImageNet.")
    page = Page(write_report([tmp_path / "study"], output=tmp_path / "report.html"))
    assert "does not compare" in page.section("answer").one("p", kind="headline").text
    assert [row[3] for row in page.rows("answer")[1:]] == ["not compared"] * 2
    assert {row[5] for row in page.rows("summary")[1:]} == {"not compared"}
    random, _, notice = (text.text for text in page.section("answer").all("p", kind="notice"))
    assert "no pre-trained layer" in random
    assert notice == "<u>The photos</u> come from ImageNet."
