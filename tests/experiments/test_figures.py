"""experiments/figures.py: the figure and the table of a small study's stored results."""

import csv
import dataclasses
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from recomputed import assert_follows_from_its_photos
from support import REPOSITORY

from ktl.config.settings import StudyConfig
from ktl.errors import UserError
from ktl.studies import study as studies
from ktl.studies.design import RUNGS, Place, cells_of, cells_of_tries, tries_of
from ktl.studies.evidence import read_evidence
from ktl.studies.records import WHOLE, CellRun, Part
from ktl.studies.study_folder import StudyFolder

EXPERIMENTS = REPOSITORY / "experiments"
HEADS, DEPTHS = ("kept", "replaced"), ("block_relu", "all")
PLACES = list(itertools.starmap(Place, itertools.product(HEADS, DEPTHS)))
FILES = ("summary.csv", "result.json", "correct.json")
TITLES = ("head", "frozen up to", "test top-1, %", "difference to `replaced`, points", "verdict")
HEADER = f"| {' | '.join(TITLES)} | could have been shown, points |"
SAME = {"validation_top1": 0.5, "validation_loss": 1.0, "epochs": 1, "converged": 1, "seconds": 1.0, "cache": "off"}
"""What every run gave: the first of equally good tries is the best."""
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def studied(photo_folder, tiny_backbone, tmp_path_factory):
    """The folder of a study that has ended: it found all its runs there, made up, and summarised them."""
    folder = tmp_path_factory.mktemp("study") / "out"
    config = StudyConfig(
        dataset=str(photo_folder),
        backbone=str(tiny_backbone),
        heads=",".join(HEADS),
        depths=",".join(DEPTHS),
        shares="0.5",
        seeds=3,
        cache="off",
    )
    made_up = StudyFolder(folder, config)
    generator = np.random.default_rng(0)
    settings = {place: tries_of(place.head, pretrained=place.freeze_depth != "all") for place in PLACES}
    for part in (WHOLE, Part(0.5)):
        for place in PLACES:
            for cell in cells_of_tries(place, pretrained=place.freeze_depth != "all", part=part, seed=3):
                for rung in RUNGS:
                    epochs = rung.epochs(config.epochs)
                    made_up.write_cell(CellRun(cell, **SAME), epochs=epochs)
        for cell in cells_of({place: tries[0] for place, tries in settings.items()}, seeds=range(3), part=part):
            made_up.write_cell(CellRun(cell, **SAME, correct=generator.integers(2, size=12).tolist()))
    studies.study(config, output=folder)
    return folder


@pytest.fixture
def results(studied, tmp_path):
    """What is stored of it, under two names."""
    for name in ("first", "second"):
        (tmp_path / "results" / name).mkdir(parents=True)
        for file in FILES:
            shutil.copy(studied / file, tmp_path / "results" / name)
    return tmp_path / "results"


def draw(monkeypatch, capsys, results) -> list[str]:
    """The lines that it prints."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    import figures

    monkeypatch.setattr(sys, "argv", ["figures.py", str(results)])
    figures.main()
    return capsys.readouterr().out.splitlines()


def test_a_folder_without_results_is_one_line(tmp_path):
    done = subprocess.run([sys.executable, EXPERIMENTS / "figures.py", tmp_path], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"figures.py: Expected folders with summary.csv and result.json. Received: none in {tmp_path}"
    ]


def test_the_table_is_the_answer_of_the_study(results, monkeypatch, capsys):
    lines = draw(monkeypatch, capsys, results)
    tables = [number for number, line in enumerate(lines) if line == HEADER]
    assert len(tables) == 2
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[tables[0] + 2 : tables[0] + 4]]
    best = {row["head"]: row for row in json.loads((results / "first" / "result.json").read_text())["best"]}
    assert {row[0] for row in rows} == {"`kept`", "`replaced`"}
    for head, depth, score, difference, verdict, smallest in rows:
        expected = best[head.strip("`")]
        assert (depth, verdict) == (f"`{expected['freeze_depth']}`", expected["verdict"])
        assert score == "{estimate:.1f} ({low:.1f} to {high:.1f})".format_map(percent(expected["test_top1"]))
        assert smallest == ("" if expected["smallest"] is None else f"{100 * expected['smallest']:.1f}")
        if expected["difference"]:
            form = "{estimate:+.1f} ({low:+.1f} to {high:+.1f})"
            assert difference == form.format_map(percent(expected["difference"]))
        else:
            assert (head, difference) == ("`replaced`", "")
    scores = [float(row[2].split()[0]) for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_a_second_table_has_the_heads_with_parts_of_the_photos(results, monkeypatch, capsys):
    lines = draw(monkeypatch, capsys, results)
    header = f"| training photos | {' | '.join(TITLES)} |"
    start = lines.index(header) + 2
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start : lines.index("", start)]]
    with open(results / "first" / "summary.csv", newline="") as file:
        expected = [row for row in csv.DictReader(file) if float(row["share"]) == 0.5]
    found = {(head, depth): (part, score, verdict) for part, head, depth, score, _, verdict in rows}
    assert found == {
        (f"`{row['head']}`", f"`{row['freeze_depth']}`"): (
            "50 %",
            "{:.1f} ({:.1f} to {:.1f})".format(*(100 * float(row[f"test_{name}"]) for name in ("top1", "low", "high"))),
            row["verdict"],
        )
        for row in expected
    }


def percent(interval: dict) -> dict:
    return {name: 100 * value for name, value in interval.items()}


@pytest.mark.parametrize(
    ("name", "what", "labels"),
    [
        ("depths", "freeze depth", {"kept", "replaced", "block_relu", "all", "test top-1, %"}),
        ("shares", "share of the training photos", {"kept", "replaced", "training photos", "test top-1, %"}),
    ],
)
def test_a_figure_stands_alone(results, monkeypatch, capsys, name, what, labels):
    lines = draw(monkeypatch, capsys, results)
    path = results / "second" / f"{name}.svg"
    assert f"![second: test top-1 by {what}]({os.path.relpath(path, 'docs')})" in lines
    root = ElementTree.parse(path).getroot()
    texts = ["".join(text.itertext()).strip() for text in root.iter(f"{SVG}text")]
    assert labels <= set(texts)
    style = "".join(root.find(f"{SVG}style").itertext())
    used = set(re.findall(r"var\((--\w+)\)", path.read_text()))
    assert used
    assert all(style.count(f"{name}:") == 2 for name in used), "each colour is defined for light and dark"
    assert "http" not in path.read_text().replace(SVG[1:-1], "")


def test_the_figure_is_the_same_bytes_each_time(results, monkeypatch, capsys):
    draw(monkeypatch, capsys, results)
    first = (results / "first" / "depths.svg").read_bytes()
    draw(monkeypatch, capsys, results)
    assert (results / "first" / "depths.svg").read_bytes() == first
    assert (results / "second" / "depths.svg").read_bytes() == first


def test_the_figure_has_an_interval_for_each_head_and_depth(results, monkeypatch, capsys):
    """Two heads with two depths: four upright lines more than without them."""
    uprights = []
    for bounds in (True, False):
        path = results / "first" / "summary.csv"
        if not bounds:
            header, *rows = (line.split(",") for line in path.read_text().splitlines())
            for row in rows:
                for name in ("test_low", "test_high"):
                    row[header.index(name)] = "nan"  # of one seed
            path.write_text("".join(",".join(row) + "\n" for row in (header, *rows)))
        draw(monkeypatch, capsys, results)
        root = ElementTree.parse(results / "first" / "depths.svg").getroot()
        paths = [re.findall(r"[\d.]+", path.get("d")) for path in root.iter(f"{SVG}path") if path.get("clip-path")]
        uprights.append(sum(len(path) == 4 and path[0] == path[2] for path in paths))
    assert uprights[0] - uprights[1] == 4


def test_stored_results_follow_from_which_photos_were_recognised(results):
    """Those of this study, and all that the docs show, but for those of version 0.1, which has no such file."""
    stored = [path.parent for path in (EXPERIMENTS / "results").glob("*/result.json")]
    assert stored
    for folder in [*results.iterdir(), *stored]:
        assert_follows_from_its_photos(folder)


@pytest.mark.parametrize(("version", "figures"), [("", 4), ("0.1", 5)])
def test_the_docs_have_the_lines_of_the_stored_results(version, figures, tmp_path, monkeypatch, capsys):
    stored = shutil.copytree(EXPERIMENTS / "results", tmp_path / "experiments" / "results") / version
    monkeypatch.chdir(tmp_path)
    lines = draw(monkeypatch, capsys, stored.relative_to(tmp_path))
    assert len(lines) > 4 * len(list(stored.glob("*/result.json")))
    assert set(lines) <= set((REPOSITORY / "docs" / "results.md").read_text().splitlines())
    shown = re.findall(r"!\[.*?\]\((.*?)\)", "\n".join(lines))
    assert len(shown) == figures
    assert all((REPOSITORY / "docs" / path).exists() for path in shown)


def test_two_heads_are_compared_as_a_study_of_these_alone_would(results):
    """Of `kept` and `replaced` the study has no others, so that its own answer is theirs."""
    evidence = read_evidence(results / "first")
    found = evidence.comparison("kept", "replaced")
    assert found == evidence.conclusions.answers["kept"]
    turned = evidence.comparison("replaced", "kept")
    assert found.difference
    assert turned.difference
    bounds = (turned.difference.estimate, turned.difference.high, turned.difference.low)
    assert tuple(-bound for bound in bounds) == pytest.approx(dataclasses.astuple(found.difference))
    assert turned.p_value == pytest.approx(found.p_value)
    with pytest.raises(UserError, match=r"head of the study.*kept, replaced.*kept_raw"):
        evidence.comparison("kept_raw", "kept")
    with pytest.raises(UserError, match=r"^Expected two heads of the study\. Received: kept, twice$"):
        evidence.comparison("kept", "kept")


def test_the_docs_say_of_two_heads_what_the_stored_results_have():
    """Numbers in sentences, of flowers, pets and caltech50."""
    text = " ".join((REPOSITORY / "docs" / "results.md").read_text().split())
    best = {"kept_softened": [], "replaced_normalized": []}
    ahead = []
    for name in ("flowers17", "oxford_pets37", "caltech50"):
        folder = EXPERIMENTS / "results" / f"{name}-mobilenet_0.75"
        for row in json.loads((folder / "result.json").read_text())["best"]:
            if row["head"] in best:
                best[row["head"]].append(f"{100 * row['test_top1']['estimate']:.1f}")
        rows = list(csv.DictReader((folder / "summary.csv").read_text().splitlines()))
        (one,) = [r for r in rows if (r["head"], r["freeze_depth"]) == ("replaced_normalized", "all")]
        assert one["verdict"] == "no difference shown"
        ahead.append(f"{100 * float(one['difference']):.1f}")
    assert "`kept_softened` has {}, {} and {} % on flowers".format(*best["kept_softened"]) in text
    assert "`replaced_normalized` {}, {} and {}: the lines below".format(*best["replaced_normalized"]) in text
    assert "it is {}, {} and {} points ahead; neither is shown".format(*ahead) in text


@pytest.mark.parametrize("name", ["flowers17", "oxford_pets37"])
def test_stored_choices_follow_from_the_stored_tries(name):
    """Those of studies of which tries and runs are kept too: rates, scales and multipliers, edges and depths."""
    folder = EXPERIMENTS / "results" / f"{name}-mobilenet_0.75"
    result = json.loads((folder / "result.json").read_text())
    tries, runs = (rows_of(folder / f"{name}.csv") for name in ("tries", "runs"))
    settings = ("learning_rate", "scale", "head_multiplier")
    for row in result["tuned"]:
        here = [one for one in tries if (one["head"], one["freeze_depth"]) == (row["head"], row["freeze_depth"])]
        assert len(here) == 13
        early = sorted((one for one in here if one["epochs"] == "2"), key=lambda one: float(one["validation_loss"]))
        last = [one for one in here if one["epochs"] == "5"]
        assert (len(early), len(last)) == (9, 4)
        best = max(last, key=lambda one: (float(one["validation_top1"]), -float(one["validation_loss"])))
        assert [one for one in here if one["chosen"] == "1"] == [best]
        assert {name: float(best[name]) for name in settings} == {name: row[name] for name in settings}
        varied = [name for name in settings if len({one[name] for one in here}) > 1]
        values = {name: [float(one[name]) for one in here] for name in varied}
        assert row["edges"] == [name for name in varied if row[name] in (min(values[name]), max(values[name]))]
    for head in {run["head"] for run in runs}:
        of_depths = {}
        for run in runs:
            if run["head"] == head:
                of_depths.setdefault(run["freeze_depth"], []).append(float(run["validation_top1"]))
        (best,) = [row for row in result["best"] if row["head"] == head]
        assert np.mean(of_depths[best["freeze_depth"]]) == pytest.approx(max(map(np.mean, of_depths.values())))
        tested = [
            float(run["test_top1"])
            for run in runs
            if (run["head"], run["freeze_depth"]) == (head, best["freeze_depth"])
        ]
        assert np.mean(tested) == pytest.approx(best["test_top1"]["estimate"])


def rows_of(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_docs_have_the_head_that_two_data_sets_choose_for_the_third():
    """Of the four heads of all three studies, each at its best depth by validation."""
    names = ("flowers17", "oxford_pets37", "caltech50")
    found = {name: best_by_validation(name) for name in names}
    table = (REPOSITORY / "docs" / "evidence.md").read_text().splitlines()
    for name in names:
        heads = sorted(found[name].keys() & found["caltech50"].keys())  # of equals the first
        assert len(heads) == 4
        others = {head: sum(found[other][head][0] for other in names if other != name) for head in heads}
        chosen, best = max(heads, key=others.get), max(heads, key=lambda head: found[name][head][1])
        cells = [name, *(f"`{head}`, {100 * found[name][head][1]:.1f} %" for head in (chosen, best))]
        assert f"| {' | '.join(cells)} |" in table


def best_by_validation(name: str) -> dict[str, tuple[float, float]]:
    """Head -> validation and test top-1 at the depth of the best validation top-1, of a stored study."""
    found = {}
    with open(EXPERIMENTS / "results" / f"{name}-mobilenet_0.75" / "summary.csv", newline="") as file:
        for row in csv.DictReader(file):
            scores = float(row["validation_top1"]), float(row["test_top1"])
            found[row["head"]] = max(found.get(row["head"], (0.0, 0.0)), scores)
    return found


def test_without_results_it_says_so(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        draw(monkeypatch, capsys, tmp_path)
    assert stopped.value.code == 2
    assert f"Received: none in {tmp_path}" in capsys.readouterr().err
