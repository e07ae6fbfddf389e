"""Reports as a browser would read them, against numbers computed anew from what the runs left."""

import base64
import collections
import csv
import dataclasses
import hashlib
import io
import itertools
import json
import math
import re
import shlex
import shutil
import statistics
import subprocess
from pathlib import Path

import numpy as np
import pytest
from html_page import HtmlPage as Page
from PIL import Image
from support import write_photos

import ktl
from ktl.cli.flags import config_from
from ktl.cli.main import build_parser
from ktl.config.settings import RunConfig, SearchConfig, StudyConfig
from ktl.data.loading import load_dataset
from ktl.errors import UserError
from ktl.evaluation import metrics as evaluation
from ktl.reporting import comparison as report_comparison
from ktl.reporting import page as report
from ktl.reporting import study as report_study
from ktl.reporting import thumbnails as report_photos
from ktl.reporting.page import write_report
from ktl.runs.finished_run import read_run
from ktl.runs.run_folder import RunFolder
from ktl.studies.study import study
from ktl.studies.study_folder import StudyFolder
from ktl.tuning.search_folder import SearchFolder

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{a}$ {{ 7 * 7 }} {% raw %}",
    "ひまわり & 'ö' <b>",
    "w" * 200,
    "&lt;plain&gt;",
)


def percent(fraction) -> str:
    return f"{100 * fraction:.1f} %"


def wilson(right, total) -> tuple[float, float]:
    """The interval by its closed form."""
    z, p = statistics.NormalDist().inv_cdf(0.975), right / total
    middle = p + z * z / (2 * total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return tuple((middle + sign * half) / (1 + z * z / total) for sign in (-1, 1))


def interval(right, total) -> str:
    low, high = wilson(right, total)
    return f"{100 * low:.1f} to {percent(high)}"


def made_up(photos, classes, *, seed=0, sure=4.0):
    """Probabilities of a classifier that is right more often than not."""
    generator = np.random.default_rng(seed)
    labels = np.arange(photos, dtype=np.int32) % classes
    logits = generator.normal(size=(photos, classes))
    logits[np.arange(photos), labels] += sure * generator.random(photos)
    exponents = np.exp(logits)
    return exponents / exponents.sum(axis=1, keepdims=True), labels


def write_run(folder, config, *, class_names, photos, validation, test, photo_counts=None, **changes) -> RunFolder:
    """A finished run's folder, but for its model."""
    run = RunFolder(folder, config)
    splits = {"validation": validation, "test": test}
    epochs = [
        {"epoch": 1, "loss": 2.5, "top1": 0.25, "validation_loss": 1.5, "validation_top1": 0.5, "seconds": 1.0},
        {"epoch": 2, "loss": 1.0, "top1": 0.75, "validation_loss": 1.25, "validation_top1": 0.625, "seconds": 1.0},
        {"epoch": 3, "loss": 0.5, "top1": 0.875, "validation_loss": 1.75, "validation_top1": 0.5625, "seconds": 1.0},
    ]
    run.write_json(
        "environment.json", {"python": "3.11.0", "devices": ["CPU"], "xla": False, "versions": {"keras": "3"}}
    )
    run.write_history(epochs)
    run.write_labels(class_names)
    run.write_probabilities({name: split[0] for name, split in splits.items()}, {n: s[1] for n, s in splits.items()})
    run.write_predictions(photos, test[1], test[0], class_names)
    result = {name: evaluation.score(*split) for name, split in splits.items()}
    result |= {
        "settings": config.as_dict(),
        "frozen_up_to": "block",
        "parameters": {"total": 3000, "frozen": 2000, "trained": 1000},
        "photos": {"train": 1234, "validation": len(validation[1]), "test": len(test[1])},
        "bad_photos": [],
        "notice": None,
        "epochs": 3,
        "best_epoch": 2,
        "seconds": 3.0,
    }
    run.write_json("result.json", result | changes)
    return run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A CSV of 36 test photos, of classes and photos with the names of `HOSTILE`."""
    root = tmp_path_factory.mktemp("hostile")
    sources = sorted(write_photos(root / "plain", classes=6, each=8).rglob("*.*g"))
    lines = [["path", "label", "split"]]
    for number, source in enumerate(sources):
        name = f"{number:02} <i>'\"& ö.{source.suffix}"
        shutil.copy(source, root / name)
        split = "train" if number % 8 == 0 else "validation" if number % 8 == 1 else "test"
        lines.append([name, HOSTILE[number // 8], split])
    with open(root / "photos.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return root / "photos.csv"


@pytest.fixture(scope="module")
def hostile(dataset, tmp_path_factory):
    """(folder, page, probabilities, labels, test split, class names)."""
    loaded = load_dataset(str(dataset))
    probabilities, _ = made_up(36, 6, sure=0.0, seed=3)
    labels = loaded.test.labels
    folder = tmp_path_factory.mktemp("run") / "hostile"
    write_run(
        folder,
        RunConfig(dataset=str(dataset)),
        class_names=loaded.class_names,
        photos=loaded.test.photos,
        validation=made_up(30, 6),
        test=(probabilities, labels),
        notice="<u>Made from</u> ImageNet.",
    )
    path = write_report([folder], output=folder.parent / "new" / "report.html")
    return folder, Page(path), probabilities, labels, loaded.test, loaded.class_names


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """(page, probabilities, labels) of 60 classes and 900 photos whose data set is gone."""
    probabilities, labels = made_up(900, 60)
    folder = tmp_path_factory.mktemp("many") / "run"
    write_run(
        folder,
        RunConfig(dataset="/no/such/folder"),
        class_names=[f"class {number}" for number in range(60)],
        photos=[f"{number}.jpg" for number in range(900)],
        validation=made_up(60, 60),
        test=(probabilities, labels),
    )
    return Page(write_report([folder], output=folder / "report.html")), probabilities, labels


SPACE = {"freeze_depth": ["none", "a$b<i>", "all"], "scale": [1.0, 10.0, 30.0], "learning_rate": [0.001, 0.01]}


def write_search(folder, best: Path, space=SPACE) -> list[dict]:
    """A finished search's folder; gives the trials as they went into trials.csv."""
    config = SearchConfig(dataset="stripes", space=" ".join(f"{n}={','.join(map(str, v))}" for n, v in space.items()))
    search = SearchFolder(folder, config)
    generator = np.random.default_rng(1)
    rows = []
    for number, values in enumerate(itertools.product(*space.values())):
        row = {"trial": f"t{number:02}", **dict(zip(space, values, strict=True))}
        measured = {"validation_top1": 0.5 + 0.4 * generator.random(), "validation_top1_sd": 0.013}
        measured |= {"validation_loss": 1 + generator.random(), "epochs": 3.0, "seconds": 100 * generator.random()}
        if number % 6 == 5:
            row |= dict.fromkeys(measured, "") | {"status": "failed", "reason": f"out of <memory> {number}"}
        else:
            row |= measured | {"status": "completed", "reason": ""}
        rows.append(row)
    rows.sort(key=lambda row: -(row["validation_top1"] or 0))
    search.write_csv("trials.csv", rows[0].keys(), (row.values() for row in rows))
    shutil.copytree(best, folder / "best")
    scores = json.loads((best / "result.json").read_text())
    result = {"best": {"trial": rows[0]["trial"], "settings": {n: rows[0][n] for n in space}, "validation_top1": 0.9}}
    result |= {name: scores[name] for name in ("validation", "test")}
    result |= {"trials": {"completed": 15, "failed": 3}, "oracle": "grid", "space": space}
    search.write_json("result.json", {**result, "settings": config.as_dict(), "seconds": 61.0})
    return rows


@pytest.fixture(scope="module")
def searched(hostile, tmp_path_factory):
    """(folder, page, trials)."""
    folder = tmp_path_factory.mktemp("search") / "search"
    rows = write_search(folder, hostile[0])
    return folder, Page(write_report([folder], output=folder / "report.html")), rows


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """(folders, page): three seeds of one setting, one of another."""
    root = tmp_path_factory.mktemp("compared")
    folders = []
    base = RunConfig(dataset="/photos/flowers", backbone="/nets/tiny.keras")
    for number, config in enumerate(
        [*(dataclasses.replace(base, seed=seed) for seed in (2, 0, 1)), dataclasses.replace(base, label_smoothing=0.1)]
    ):
        folders.append(root / ("x", "y", "z", "x")[number] / ("run", "run", "run", "other")[number])
        write_run(
            folders[-1],
            config,
            class_names=["a", "b", "c", "d"],
            photos=[f"{index}.jpg" for index in range(80)],
            validation=made_up(40, 4, seed=10 + number),
            test=made_up(80, 4, seed=number),
        )
    return folders, Page(write_report(folders, output=root / "report.html"))


STUDY = StudyConfig(
    dataset="/photos/<b>wild & 'ö' {{ 7 * 7 }}",
    backbone="/nets/tiny.keras",
    heads="kept,kept_raw,replaced",
    depths="all,block$2,block10,none",
    shares="0.1,0.5",
    seeds=3,
    seed=4,
)


def study_runs(config: StudyConfig, *, photos=40, seed=0) -> list[dict]:
    """Made-up runs, as the files run.json have them; every head is best at a depth of its own."""
    generator = np.random.default_rng(seed)
    heads, depths = config.heads, config.depths
    best = {head: depths[place % len(depths)] for place, head in enumerate(heads)}
    cells = [*itertools.product(heads, depths, [1.0])]
    cells += [(head, best[head], share) for head, share in itertools.product(heads, config.shares)]
    runs = []
    for (head, depth, share), number in itertools.product(cells, range(config.seeds)):
        level = 0.75 - 0.03 * heads.index(head) + 0.05 * (depth == best[head]) + 0.08 * np.log10(share)
        epochs = int(generator.integers(6, config.epochs + 1))
        rising = 1 - np.exp(-(1 + np.arange(epochs)) / (1.2 + 0.5 * heads.index(head)))
        history = (level * rising + generator.normal(0, 0.004, epochs)).clip(0, 1).tolist()
        runs.append(
            {
                "head": head,
                "freeze_depth": depth,
                "learning_rate": 3e-4,
                "scale": 3.0,
                "share": share,
                "seed": config.seed + number,
                "validation_top1": max(history),
                "epochs": epochs,
                "converged": 1 + next(at for at, score in enumerate(history) if score >= 0.95 * max(history)),
                "seconds": 5.0 + 20 * depths.index(depth) + generator.random(),
                "failed": "",
                "history": history,
                "correct": (generator.random(photos) < level).astype(int).tolist(),
            }
        )
    return runs


def together(runs, *names) -> dict[tuple, list[dict]]:
    """Values of these settings -> the runs that have them, in the order of the first of each."""
    groups: dict[tuple, list[dict]] = {}
    for run in runs:
        groups.setdefault(tuple(run[name] for name in names), []).append(run)
    return groups


def mean_of(runs, name) -> float:
    return statistics.fmean(statistics.fmean(run["correct"]) if name == "test" else run[name] for run in runs)


def write_study(folder, config: StudyConfig, runs: list[dict], *, notice: str | None = None) -> list[dict]:
    """A finished study's folder; gives the rows of its summary. Intervals are made up."""
    study = StudyFolder(folder, config)
    for number, run in enumerate(runs):
        (study.path / "runs" / str(number)).mkdir(parents=True)
        study.write_json(f"runs/{number}/run.json", run)
    groups = together(runs, "head", "freeze_depth", "share")

    def difference(head, depth, share, baseline):
        if head == "replaced" or ("replaced", baseline, share) not in groups or config.seeds == 1:
            return None
        estimate = mean_of(groups[head, depth, share], "test") - mean_of(groups["replaced", baseline, share], "test")
        return {"estimate": estimate, "low": estimate - 0.04, "high": estimate + 0.02}

    def tested(group):
        known = config.seeds > 1
        estimate = mean_of(group, "test")
        return {"estimate": estimate, **{end: estimate + by if known else math.nan for end, by in ENDS.items()}}

    def verdict(found):
        if found is None:
            return "the baseline"
        if found["low"] <= 0 <= found["high"]:
            return "no difference shown"
        points, low, high = (100 * found[name] for name in ("estimate", "low", "high"))
        return f"{'gains' if points > 0 else 'loses'} {abs(points):.1f} points ({low:+.1f} to {high:+.1f})"

    best = {
        head: max(config.depths, key=lambda depth: mean_of(groups[head, depth, 1.0], "validation_top1"))
        for head in config.heads
    }
    summary = []
    for (head, depth, share), group in groups.items():
        found = difference(head, depth, share, depth if share == 1 else best.get("replaced"))
        bounds = found or dict.fromkeys(("estimate", "low", "high"), "")
        score = tested(group)
        summary.append(
            {
                "head": head,
                "freeze_depth": depth,
                "share": share,
                "photos": round(1234 * share),
                "seeds": config.seeds,
                "validation_top1": mean_of(group, "validation_top1"),
                "test_top1": score["estimate"],
                "test_low": score["low"],
                "test_high": score["high"],
                "difference": bounds["estimate"],
                "difference_low": bounds["low"],
                "difference_high": bounds["high"],
                "verdict": verdict(found),
                "converged": mean_of(group, "converged"),
                "seconds": mean_of(group, "seconds"),
            }
        )
    study.write_csv("summary.csv", summary[0].keys(), (row.values() for row in summary))
    rows = []
    for head, depth in best.items():
        found = difference(head, depth, 1.0, best.get("replaced"))
        rows.append(
            {
                "head": head,
                "freeze_depth": depth,
                "learning_rate": 3e-4,
                "scale": 3.0,
                "test_top1": tested(groups[head, depth, 1.0]),
                "difference": found,
                "verdict": verdict(found),
            }
        )
    tuned = [{"head": head, "freeze_depth": "all", "learning_rate": 3e-4, "scale": 3.0} for head in best]
    study.write_json("environment.json", {"python": "3.11.0", "devices": ["CPU"], "versions": {"keras": "3"}})
    study.write_csv("duplicates.csv", ("test", "train", "distance", "exact"), DUPLICATES)
    result = {
        "settings": config.as_dict(),
        "tuned": tuned,
        "best": rows,
        "notice": notice,
        "duplicates": {"exact": 1, "near": len(DUPLICATES) - 1},
        "zero_shot": ZERO_SHOT | {"heads": {row["head"]: row["test_top1"] for row in rows}},
        "seconds": 61.0,
    }
    study.write_json("result.json", result)
    return summary


DUPLICATES = [
    ("test/a/<i>&1.jpg", "train/a/1.jpg", 4, 0),
    ("test/a/2.jpg", "train/b/2.png", 0, 1),
    *((f"test/a/{number}.jpg", "train/a/3.jpg", 0, 0) for number in range(3, 210)),
]
"""Rows of duplicates.csv."""

ZERO_SHOT = {
    "classes": 2,
    "dataset_classes": 7,
    "photos": 1234,
    "top1": 0.5,
    "restricted_top1": 0.875,
    "synsets": {
        "<b>crane": [{"id": "n02012849", "name": "crane (bird)"}, {"id": "n03126707", "name": "crane (machine)"}],
        "bird": [{"id": "n02012849", "name": "crane (bird)"}],
    },
}
"""What result.json has of it, but the heads."""

ENDS = {"low": -0.03, "high": 0.03}
"""End of a made-up interval -> how far it is from the mean."""


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """(folder, page, runs, rows of the summary)."""
    folder = tmp_path_factory.mktemp("study") / "study"
    runs = study_runs(STUDY)
    summary = write_study(folder, STUDY, runs)
    return folder, Page(write_report([folder], output=folder.parent / "report.html")), runs, summary


@pytest.fixture(params=["hostile", "many", "searched", "compared", "studied"])
def page(request) -> Page:
    return next(part for part in request.getfixturevalue(request.param) if isinstance(part, Page))


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


def test_no_colour_is_fixed_in_a_figure(page):
    """They follow the page from light to dark; a raster picture has colours for both."""
    figures = [figure.one("svg") for figure in page.root.all("figure", kind="drawing")]
    for element in itertools.chain(*(figure.all() for figure in figures)):
        colors = re.findall(r"(?:fill|stroke): ([^;]+)", element.attributes.get("style", ""))
        assert all(color == "none" or color == "currentColor" or color.startswith("var(--") for color in colors)
    defined = set(re.findall(r"(--[\w-]+):", page.root.one("style").text))
    assert set(re.findall(r"var\((--[\w-]+)\)", page.source)) <= defined | {
        "--share",
        "--value",
        "--low",
        "--high",
        "--at",
    }


def test_the_headline_is_the_test_score_with_its_interval(hostile):
    _, page, probabilities, labels, _, _ = hostile
    right = int((probabilities.argmax(axis=1) == labels).sum())
    assert 0 < right < 36
    headline = page.section("result").one("p", kind="headline").text
    assert headline.startswith(percent(right / 36))
    assert interval(right, 36) in headline
    assert "36 photos" in headline


def test_scores_of_test_and_validation_stand_side_by_side(hostile):
    _, page, probabilities, labels, _, _ = hostile
    rows = {row[0]: row[1:] for row in page.rows("result")}
    true = probabilities[np.arange(36), labels]
    rank = (probabilities > true[:, None]).sum(axis=1)
    assert rows["score"] == ["test", "validation"]
    assert rows["top-1"][0] == percent(np.mean(rank == 0))
    assert rows["top-5"][0] == percent(np.mean(rank < 5))
    assert rows["mean class accuracy"][0] == percent(
        np.mean([np.mean(rank[labels == label] == 0) for label in range(6)])
    )
    assert rows["log loss, nats"][0] == f"{-np.mean(np.log(true)):.4f}"
    validation, validation_labels = made_up(30, 6)
    assert rows["top-1"][1] == percent(np.mean(validation.argmax(axis=1) == validation_labels))
    assert "chosen by the validation top-1" in page.section("result").text


def test_curves_tell_the_best_epoch_and_have_their_numbers(hostile):
    page = hostile[1]
    section = page.section("curves")
    assert len(section.all("svg")) == 2
    assert "62.5 at the best epoch, 2" in section.all("svg")[0].attributes["aria-label"]
    header, *rows = page.rows("curves")
    assert header[1:4] == ["loss", "top1", "validation loss"]
    assert [row[4] for row in rows] == ["0.5000", "0.6250", "0.5625"]
    assert [row.all("td")[0].text for row in section.all("tr", kind="chosen")] == ["2"]


def test_the_matrix_counts_and_each_number_opens_its_photos(hostile):
    _, page, probabilities, labels, split, names = hostile
    predictions = probabilities.argmax(axis=1)
    expected = collections.Counter(zip(labels.tolist(), predictions.tolist(), strict=True))
    header, *rows = page.rows("confusion")
    assert header[1:] == list(names)
    assert [row[0] for row in rows] == list(names)
    counted = {(i, j): int(text) for i, row in enumerate(rows) for j, text in enumerate(row[1:]) if text}
    assert counted == expected
    section = page.section("confusion")
    for (label, prediction), count in expected.items():
        panel = section.one("div", id=f"pair-{label}-{prediction}")
        assert section.all("a", href=f"#pair-{label}-{prediction}")[0].text == str(count)
        shown = [figure.one("span", kind="file").text for figure in panel.all("figure")]
        members = [split.photos[i] for i in range(36) if (labels[i], predictions[i]) == (label, prediction)]
        assert sorted(shown) == sorted(members)
    assert "of 36 test photos" not in section.text  # nothing was left out


def test_each_photo_is_in_the_page_once_small_and_the_right_one(hostile):
    _, page, _, _, split, _ = hostile
    symbols = page.root.all("symbol")
    assert len(symbols) == 36
    assert page.source.count("data:image/jpeg") == 36
    whole = [Image.open(io.BytesIO(split.read(number))).convert("L") for number in range(36)]
    for symbol in symbols:
        encoded = symbol.one("image").attributes["href"].removeprefix("data:image/jpeg;base64,")
        small = Image.open(io.BytesIO(base64.b64decode(encoded)))
        assert max(small.size) <= 160
        away = [np.abs(np.asarray(w.resize(small.size), float) - np.asarray(small.convert("L"))).mean() for w in whole]
        assert symbol.attributes["id"] == f"photo-{np.argmin(away)}"
    uses = [use.attributes["href"] for use in page.root.all("use") if use.attributes["href"].startswith("#photo-")]
    assert set(uses) == {f"#{symbol.attributes['id']}" for symbol in symbols}


def test_photos_are_those_that_their_captions_name(hostile):
    _, page, _, _, split, names = hostile
    for figure in page.root.all("figure", kind="photo"):
        number = int(figure.one("use").attributes["href"].removeprefix("#photo-"))
        assert figure.one("span", kind="file").text == split.photos[number]
        spoken = figure.one("svg").attributes["aria-label"]
        assert spoken.startswith(f"Photo of {names[split.labels[number]]}, taken for ")


def test_the_most_confident_mistakes_come_first(hostile):
    _, page, probabilities, labels, split, names = hostile
    predictions = probabilities.argmax(axis=1)
    wrong = [i for i in np.argsort(-probabilities.max(axis=1)) if predictions[i] != labels[i]][:24]
    figures = page.section("mistakes").all("figure")
    assert [figure.one("span", kind="file").text for figure in figures] == [split.photos[i] for i in wrong]
    for figure, i in zip(figures, wrong, strict=True):
        true, said = (span.text for span in figure.all("span", kind="said"))
        assert true == f"true, {percent(probabilities[i, labels[i]])}: {names[labels[i]]}"
        assert said == f"predicted, {percent(probabilities[i].max())}: {names[predictions[i]]}"


def test_classes_are_sorted_from_the_lowest_accuracy_on(hostile):
    _, page, probabilities, labels, _, names = hostile
    right = probabilities.argmax(axis=1) == labels
    expected = sorted((np.mean(right[labels == i]), names[i], int(right[labels == i].sum())) for i in range(6))
    rows = page.rows("classes")[1:]
    assert rows == [[name, "", f"{percent(a)} {n} of 6", interval(n, 6)] for a, name, n in expected]
    bars = [bar.attributes["style"] for bar in page.section("classes").all("span", kind="track")]
    for bar, (accuracy, _, count) in zip(bars, expected, strict=True):
        drawn = [float(number) for number in re.findall(r": ([\d.e-]+)", bar)]
        np.testing.assert_allclose(drawn, [accuracy, *wilson(count, 6)], atol=1e-6)


def test_reliability_bins_are_those_of_the_error(hostile):
    _, page, probabilities, labels, _, _ = hostile
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = evaluation.reliability_bins(confidence, right)
    assert len(bins) == 15
    for number, row in enumerate(bins):
        members = [i for i in range(36) if int(confidence[i] * 15) == number]
        assert row["photos"] == len(members)
        if members:
            assert row["confidence"] == pytest.approx(np.mean(confidence[members]))
            assert row["accuracy"] == pytest.approx(np.mean(right[members]))
    filled = [row for row in bins if row["photos"]]
    error = sum(row["photos"] / 36 * abs(row["accuracy"] - row["confidence"]) for row in filled)
    assert f"{error:.4f}" in page.section("calibration").one("figcaption").text
    assert [row[1:] for row in page.rows("calibration")[1:]] == [
        [str(row["photos"]), percent(row["confidence"]), percent(row["accuracy"])] for row in filled
    ]


def test_a_certain_photo_is_in_the_last_bin():
    rows = evaluation.reliability_bins(np.array([1.0, 0.0], np.float32), np.array([True, False]))
    assert [row["photos"] for row in rows] == [1, *[0] * 13, 1]
    assert rows[1]["accuracy"] is None


def test_hostile_names_are_text(hostile):
    _, page, _, _, _, names = hostile
    assert set(names) == set(HOSTILE)
    assert "alert(1)" not in page.root.one("script").text
    assert not page.root.all("i") + page.root.all("u") + page.root.all("img") + page.root.all("b")
    assert {row[0] for row in page.rows("classes")[1:]} == set(HOSTILE)
    assert "{{ 7 * 7 }}" in page.source
    assert "<u>Made from</u> ImageNet." in page.section("result").text


def test_the_command_gives_the_same_settings(tmp_path):
    config = RunConfig(dataset="./my photos'", epochs=3, deterministic=True, scale=0.1, weights="random")
    write_run(
        tmp_path, config, class_names="ab", photos="xyz", validation=made_up(3, 2), test=made_up(3, 2), notice=None
    )
    page = Page(write_report([tmp_path], output=tmp_path / "report.html"))
    program, script, *flags = shlex.split("".join(page.section("settings").one("code").children))
    assert (program, script) == ("python", "experiments/run.py")
    assert config_from(build_parser().parse_args(["run", *flags])) == config
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


def test_without_the_data_set_photos_have_names_and_the_page_says_so(many):
    page, *_ = many
    assert not page.root.all("symbol")
    assert "/no/such/folder could not be read" in page.section("confusion").text
    assert len(page.section("mistakes").all("figure")) == 24


@pytest.mark.parametrize("name", ["gone", "./gone/", "gone.csv", "cifar10", "caltech256", "no:such"])
def test_a_data_set_that_is_gone_is_not_fetched(name, compared, tmp_path, monkeypatch):
    monkeypatch.setattr(report_photos, "load_dataset", lambda *_, **__: pytest.fail("would fetch it"))
    config = RunConfig(dataset=name, data_dir=str(tmp_path))
    assert report_photos.thumbnails(dataclasses.replace(read_run(compared[0][0]), config=config), [0]) == {}


def test_a_photo_that_went_or_broke_leaves_the_others(dataset, tmp_path):
    root = shutil.copytree(dataset.parent, tmp_path / "copy")
    split = load_dataset(str(root / "photos.csv")).test
    (root / split.photos[3]).write_bytes(b"no photo")
    folder = tmp_path / "run"
    write_run(
        folder,
        RunConfig(dataset=str(root / "photos.csv")),
        class_names=sorted(HOSTILE),
        photos=["unknown.jpg", *split.photos[1:]],
        validation=made_up(30, 6),
        test=(made_up(36, 6)[0], split.labels),
    )
    page = Page(write_report([folder], output=tmp_path / "report.html"))
    missing = {f"photo-{number}" for number in range(36)} - {s.attributes["id"] for s in page.root.all("symbol")}
    assert missing == {"photo-0", "photo-3"}


def test_many_classes_have_a_list_of_confusions_and_an_image(many):
    page, probabilities, labels = many
    predictions = probabilities.argmax(axis=1)
    counts = collections.Counter((int(i), int(j)) for i, j in zip(labels, predictions, strict=True) if i != j)
    rows = page.rows("confusion")[1:]
    assert [int(row[0]) for row in rows] == sorted(counts.values(), reverse=True)[:40]
    for count, true, predicted, share in rows:
        assert counts[int(true.split()[1]), int(predicted.split()[1])] == int(count)
        assert share == percent(int(count) / 15)
    figure = page.section("confusion").one("figure", kind="drawing")
    pixels = base64.b64decode(figure.one("image").attributes["href"].split(",")[1])
    image = np.asarray(Image.open(io.BytesIO(pixels)).resize((60, 60), Image.Resampling.NEAREST))
    drawn = set(zip(*(part.tolist() for part in np.nonzero(image[..., 3])), strict=True))
    cells = {*counts, *((int(label), int(label)) for label in labels[labels == predictions])}
    assert drawn in (cells, {(59 - label, prediction) for label, prediction in cells})  # SVG may turn it over


def test_long_lists_of_classes_are_folded(many):
    assert len(many[0].rows("classes")) == 41
    assert "20 more classes" in many[0].section("classes").text


def test_the_number_of_photos_is_bounded_and_said(tmp_path):
    probabilities, labels = made_up(500, 3)
    write_run(
        tmp_path / "run",
        RunConfig(dataset="/gone"),
        class_names="abc",
        photos=[f"{number}.jpg" for number in range(500)],
        validation=made_up(9, 3),
        test=(probabilities, labels),
    )
    page = Page(write_report([tmp_path / "run"], output=tmp_path / "report.html"))
    assert len({span.text for span in page.root.all("span", kind="file")}) == 200
    assert "200 of 500 test photos" in page.section("confusion").text
    for i, j in itertools.product(range(3), repeat=2):
        panel = page.root.one("div", id=f"pair-{i}-{j}")
        count, shown = np.sum((labels == i) & (probabilities.argmax(axis=1) == j)), len(panel.all("figure"))
        assert shown > 10  # each has its turn
        assert f": {count} photos" in panel.text
        assert (f"{shown} of them here" in panel.text) == (shown < count)


def test_a_number_without_photos_in_the_page_opens_nothing_and_the_page_says_so(tmp_path):
    probabilities, labels = made_up(600, 3, sure=1.0)
    assert np.sum(probabilities.argmax(axis=1) != labels) > 200
    write_run(
        tmp_path / "run",
        RunConfig(dataset="/gone"),
        class_names="abc",
        photos=[f"{number}.jpg" for number in range(600)],
        validation=made_up(9, 3),
        test=(probabilities, labels),
    )
    section = Page(write_report([tmp_path / "run"], output=tmp_path / "report.html")).section("confusion")
    opened = {tuple(link.attributes["href"].split("-")[1:]) for link in section.one("table").all("a")}
    assert opened == {(i, j) for i, j in itertools.product("012", repeat=2) if i != j}
    assert "mistakes first; a number with none of them opens nothing" in section.text


def test_the_same_folder_gives_the_same_bytes(hostile, tmp_path):
    folder, page, *_ = hostile
    again = write_report([folder], output=tmp_path / "again.html")
    assert again.read_text(encoding="utf-8") == page.source


def test_each_trial_is_there_once_the_ten_best_in_front(searched):
    _, page, trials = searched
    completed = [row["trial"] for row in trials if row["status"] == "completed"]
    best, rest = ([row[0] for row in page.rows("trials", number)[1:]] for number in (0, 1))
    failed = [row[0] for row in page.rows("failures")[1:]]
    assert best == completed[:10]
    assert rest == completed[10:]
    assert sorted(best + rest + failed) == sorted(row["trial"] for row in trials)
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
    _, script, *flags = shlex.split(page.section("search").one("code").text)
    assert script == "experiments/search.py"
    found = config_from(build_parser().parse_args(["search", *flags]))
    assert found.as_dict() == json.loads((searched[0] / "config.json").read_text())


def test_a_search_of_other_settings_has_no_map_of_scale_and_depth(hostile, tmp_path):
    write_search(tmp_path / "search", hostile[0], {"learning_rate": [0.001, 0.01]})
    page = Page(write_report([tmp_path / "search"], output=tmp_path / "report.html"))
    sections = [section.attributes["id"] for section in page.root.all("section")]
    assert sections[:3] == ["search", "trials", "result"]


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


def test_two_data_sets_of_one_name_are_told_apart():
    assert report_comparison._shortened(["/a/photos", "/b/photos", "/a/photos", "cifar10"]) == {
        "/a/photos": "/a/photos",
        "/b/photos": "/b/photos",
        "cifar10": "cifar10",
    }


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
    assert headline.endswith(f"{points:+.1f} points, 95 % interval {points - 4:+.1f} to {points + 2:+.1f}.")
    rows = page.rows("answer")[1:]
    for head, row in zip(best, rows, strict=True):
        low, high = tests[head] - 0.03, tests[head] + 0.03
        assert row[0] == f"{head} frozen up to {best[head]}"
        assert row[1] == f"{percent(tests[head])} ({100 * low:.1f} to {percent(high)})"
        points = 100 * (tests[head] - tests["replaced"])
        words = f"({points - 4:+.1f} to {points + 2:+.1f})"
        assert row[3] == "the baseline" if head == "replaced" else row[3].endswith(words)


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


@pytest.mark.parametrize(
    ("depths", "ordered"),
    [
        (["all", "b", "none", "a"], ["none", "b", "a", "all"]),
        (["10", "9", "all", "0"], ["0", "9", "10", "all"]),
    ],
)
def test_order_of_depths(depths, ordered):
    subject = report_study.StudySubject(STUDY, {}, {}, [{"freeze_depth": depth} for depth in [*depths, *depths]], [])
    assert subject.depths == ordered


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


def test_a_run_that_failed_and_one_at_a_rate_that_is_no_longer_chosen_have_no_curve(studied, tmp_path):
    folder = shutil.copytree(studied[0], tmp_path / "study")
    groups = together(studied[2], "head", "freeze_depth", "share")
    first, *others = groups["kept", best_depths(studied[2])["kept"], 1.0]
    failed = {**first, "failed": "Expected a finite loss.", "history": [0.0], "epochs": 0, "converged": 0}
    (folder / "runs" / str(studied[2].index(first)) / "run.json").write_text(json.dumps(failed))
    (folder / "runs" / "left").mkdir()
    (folder / "runs" / "left" / "run.json").write_text(json.dumps({**first, "learning_rate": 1.0, "converged": 99}))
    page = Page(write_report([folder], output=tmp_path / "report.html"))
    (row,) = [row for row in page.rows("convergence")[1:] if row[0] == "kept"]
    values = [run["converged"] for run in others]
    assert row[2] == f"{statistics.fmean(values):.1f} ({min(values)} to {max(values)})"


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
        check_drawn(page.section("shares"), head, np.log([0.1, 0.5, 1.0]), scores)
        spoken = page.section("shares").one("svg").attributes["aria-label"]
        assert f"{head} from {100 * scores[0]:.1f} % to {100 * scores[-1]:.1f} %" in spoken


def test_lines_by_freeze_depth_are_drawn_to_scale(studied):
    _, page, runs, _ = studied
    groups = together(runs, "head", "freeze_depth", "share")
    for head in STUDY.heads:
        scores = [mean_of(groups[head, depth, 1.0], "test") for depth in ("none", "block$2", "block10", "all")]
        check_drawn(page.section("freezing"), head, range(4), scores)


def best_depths(runs) -> dict[str, str]:
    """Head -> freeze depth with the highest mean validation top-1, with all photos."""
    groups = together([run for run in runs if run["share"] == 1], "head", "freeze_depth")
    heads = dict.fromkeys(head for head, _ in groups)
    return {
        head: max((mean_of(group, "validation_top1"), depth) for (one, depth), group in groups.items() if one == head)[
            1
        ]
        for head in heads
    }


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


def test_the_untouched_layer_stands_beside_the_heads_with_a_warning(studied):
    _, page, runs, _ = studied
    groups, best = together(runs, "head", "freeze_depth", "share"), best_depths(runs)
    section = page.section("zero_shot")
    assert section.one("p", kind="notice").text.startswith("2 of the 7 classes are classes of ImageNet.")
    assert "the 1,234 test photos of these classes" in section.one("caption").text
    first, second, *heads = page.rows("zero_shot")[1:]
    assert (first[1:], second[1:]) == (["1000", "50.0 %"], ["2", "87.5 %"])
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
        "1 photo of the test split is also among the training photos, and 208 more look like one."
    )
    assert "The first 200; duplicates.csv has all." in section.one("p", kind="caption").text
    rows = page.rows("duplicates")[1:]
    assert len(rows) == 200
    assert rows[:2] == [["test/a/<i>&1.jpg", "train/a/1.jpg", "4"], ["test/a/2.jpg", "train/b/2.png", "the same file"]]
    sorted_by = [float(row.all("td")[1].attributes["data-value"]) for row in section.all("tr")[1:3]]
    assert sorted_by == [4, -1]


def test_a_study_without_duplicates_says_so_and_one_of_before_has_no_such_sections(studied, tmp_path):
    folder = shutil.copytree(studied[0], tmp_path / "study")
    result = json.loads((folder / "result.json").read_text())
    (folder / "duplicates.csv").write_text("test,train,distance,exact\n")
    result |= {"duplicates": {"exact": 0, "near": 0}, "zero_shot": None}
    (folder / "result.json").write_text(json.dumps(result))
    page = Page(write_report([folder], output=tmp_path / "report.html"))
    assert page.section("duplicates").one("p").text == (
        "No test photo is among the training photos, or looks like one of them."
    )
    assert "zero_shot" not in [section.attributes["id"] for section in page.root.all("section")]
    (folder / "duplicates.csv").unlink()
    del result["duplicates"], result["zero_shot"], result["settings"]["synsets"]
    (folder / "result.json").write_text(json.dumps(result))
    config = json.loads((folder / "config.json").read_text())
    del config["synsets"]
    (folder / "config.json").write_text(json.dumps(config))
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


def test_a_study_tells_its_settings_and_the_command(studied):
    _, page, _, _ = studied
    _, script, *flags = shlex.split("".join(page.section("settings").one("code").children))
    assert script == "experiments/study.py"
    assert config_from(build_parser().parse_args(["study", *flags])) == STUDY
    values = {row[0]: row[1] for row in page.rows("settings")[1:]}
    assert values["dataset"] == STUDY.dataset
    assert not {"head", "freeze_depth", "learning_rate", "scale"} & set(values)
    assert values["shares"] == "0.1,0.5"
    assert page.rows("tuned")[1:] == [
        ["kept", "all", "0.0003", "3"],
        ["kept_raw", "all", "0.0003", "none"],
        ["replaced", "all", "0.0003", "none"],
    ]
    assert ["keras version", "3"] in page.rows("environment")
    assert page.rows("environment")[0][0] == "of the study"
    assert page.root.one("h1").text == "Study: <b>wild & 'ö' {{ 7 * 7 }}, tiny.keras"
    assert [section.attributes["id"] for section in page.root.all("section")] == [
        section.template for section in report.STUDY_SECTIONS
    ]


def test_a_study_of_one_seed_has_no_interval_over_seeds(tmp_path):
    config = dataclasses.replace(STUDY, seeds=1, shares="none")
    write_study(tmp_path / "study", config, study_runs(config))
    page = Page(write_report([tmp_path / "study"], output=tmp_path / "report.html"))
    assert not re.search(r"\bnan\b", page.root.one("main").text)
    assert all("one seed: not known" in row[1] for row in page.rows("answer")[1:])
    assert "One seed shows no difference" in page.section("answer").one("p", kind="headline").text
    assert "shares" not in [section.attributes["id"] for section in page.root.all("section")]


def test_a_study_without_the_replaced_layer_compares_nothing(tmp_path):
    config = dataclasses.replace(STUDY, heads="kept,kept_raw", weights="random")
    write_study(tmp_path / "study", config, study_runs(config), notice="<u>The photos</u> come from ImageNet.")
    page = Page(write_report([tmp_path / "study"], output=tmp_path / "report.html"))
    assert "does not compare" in page.section("answer").one("p", kind="headline").text
    assert [row[3] for row in page.rows("answer")[1:]] == ["not compared"] * 2
    assert {row[5] for row in page.rows("summary")[1:]} == {"not compared"}
    random, notice = (text.text for text in page.section("answer").all("p", kind="notice"))
    assert "no pre-trained layer" in random
    assert notice == "<u>The photos</u> come from ImageNet."


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


def test_a_study_of_another_version(studied, tmp_path):
    folder = shutil.copytree(studied[0], tmp_path / "study")
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tuned": {"kept": {}}}))
    with pytest.raises(UserError, match="of this version of ktl"):
        write_report([folder], output=tmp_path / "report.html")


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


def test_an_earlier_report_is_replaced(compared, tmp_path):
    output = tmp_path / "report.html"
    write_report(compared[0], output=output)
    old = output.read_bytes()
    write_report(compared[0][:2], output=output)
    assert output.read_bytes() != old
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_run_without_a_mistake_and_a_class_without_a_photo(tmp_path):
    certain = (np.eye(3)[[0, 0, 1]], np.array([0, 0, 1], np.int32))
    write_run(
        tmp_path / "run", RunConfig(dataset="/gone"), class_names="abc", photos="xyz", validation=certain, test=certain
    )
    page = Page(write_report([tmp_path / "run"], output=tmp_path / "report.html"))
    assert "No test photo was mistaken" in page.section("mistakes").text
    assert "Without test photos: c" in page.section("classes").text
    assert [row[0] for row in page.rows("classes")[1:]] == ["a", "b"]


def write_kept_layer(run: RunFolder, names, *, unlike=()) -> list[dict]:
    """Made-up rows: of class c the ImageNet classes c, c + 1, ..., so that neighbours share nine of ten."""
    rows = []
    for label, name in enumerate(names):
        for rank in range(1, 11):
            number = label + rank - 1
            rows.append(
                {
                    "class": name,
                    "rank": rank,
                    "synset": f"n{number:08}",
                    "imagenet_class": f"<i>thing</i> {number}",
                    "contribution": (2.03 + label / 10) / rank,  # never half a digit
                    "share": 0.2 / rank,
                    "activation": -0.5 if (label, rank) in unlike else 1.5,
                }
            )
    run.write_kept_layer(rows)
    return rows


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """(page, rows of kept_layer.csv, class names) of 50 classes, of which the first 30 are recognised."""
    names = [f"class {number}" for number in range(50)]
    labels = np.repeat(np.arange(50, dtype=np.int32), 2)
    probabilities = np.eye(50)[np.where(labels < 30, labels, 0)]
    folder = tmp_path_factory.mktemp("explained") / "run"
    run = write_run(
        folder,
        RunConfig(dataset="/gone"),
        class_names=names,
        photos=[f"{number}.jpg" for number in range(100)],
        validation=(probabilities, labels),
        test=(probabilities, labels),
    )
    rows = write_kept_layer(run, names, unlike={(3, 1), (4, 2)})
    return Page(write_report([folder], output=folder / "report.html")), rows, names


def test_the_kept_layer_names_five_imagenet_classes_of_each(explained):
    page, rows, names = explained
    section = page.section("kept")
    first, more, _ = section.all("table")
    assert section.one("details").one("summary").text == "10 more classes"
    assert section.one("details").one("table") is more
    shown = [row for table in (first, more) for row in table.one("tbody").all("tr")]
    assert len(shown) == len(names)
    for label, (name, row) in enumerate(zip(names, shown, strict=True)):
        best = rows[10 * label : 10 * label + 5]
        assert row.one("th").text == name
        parts = [
            ("not " if (label, each["rank"]) in {(3, 1), (4, 2)} else "")
            + f"{each['imagenet_class']} {each['contribution']:.1f}"
            for each in best
        ]
        assert row.one("td", kind="bar").text == ", ".join(parts)
        assert [each.attributes["title"] for each in row.all("span", kind="name")] == [each["synset"] for each in best]
        assert row.one("td", kind="number").text == percent(sum(each["share"] for each in best))


def test_the_kept_layers_heat_map_has_the_most_accurate_classes(explained):
    page, rows, names = explained
    table = page.section("kept").one("table", kind="matrix")
    columns = [cell.attributes["title"] for cell in table.one("thead").all("th")]
    # Of class 3 the first ImageNet class is one that its photos are unlike.
    assert columns == [f"<i>thing</i> {number}" for number in (0, 1, 2, *range(4, 20))]
    body = table.one("tbody").all("tr")
    assert [row.one("th").text for row in body] == names[:20]
    highest = max(row["contribution"] for row in rows[:200])
    written = {(row["class"], row["imagenet_class"]): row for row in rows}
    for row in body:
        for column, cell in zip(columns, row.all("td"), strict=True):
            found = written.get((row.one("th").text, column))
            assert cell.text == (f"{found['contribution']:.1f}" if found else "")
            if found:
                assert cell.attributes["class"] == ("right" if found["activation"] > 0 else "wrong")
                share = float(cell.attributes["style"].removeprefix("--share: "))
                assert share == pytest.approx(found["contribution"] / highest, abs=1e-3)
    (cell,) = table.all("td", kind="wrong")
    assert cell.text == f"{written['class 4', '<i>thing</i> 5']['contribution']:.1f}"


def test_the_kept_layer_stands_after_the_accuracy_by_class(explained, hostile):
    order = [section.attributes["id"] for section in explained[0].root.all("section")]
    assert order[order.index("kept") - 1] == "classes"
    assert "kept" not in [section.attributes["id"] for section in hostile[1].root.all("section")]


def test_a_real_run(photo_folder, tiny_backbone, tmp_path):
    config = RunConfig(
        dataset=str(photo_folder), backbone=str(tiny_backbone), freeze_depth="all", epochs=2, cache="off"
    )
    result = ktl.run(config, output=tmp_path / "run")
    page = Page(write_report([tmp_path / "run"], output=tmp_path / "report.html"))
    assert page.section("result").one("strong").text == percent(result["test"]["top1"])
    assert len(page.rows("curves")) == 1 + result["epochs"]
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
    result = study(config, output=tmp_path / "study")
    page = Page(write_report([tmp_path / "study"], output=tmp_path / "report.html"))
    rows = page.rows("answer")[1:]
    for row, best in zip(rows, result["best"], strict=True):
        assert row[0] == f"{best['head']} frozen up to all"
        assert row[1].startswith(percent(best["test_top1"]["estimate"]))
        assert row[3].startswith(best["verdict"])
    rates = [(head, place, float(rate)) for head, place, rate, _ in page.rows("tuned")[1:]]
    assert rates == [(row["head"], row["freeze_depth"], row["learning_rate"]) for row in result["tuned"]]
    assert len(page.rows("duplicates")[1:]) == sum(result["duplicates"].values()) > 0


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
