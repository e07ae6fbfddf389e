"""What a page says about a run, against numbers computed anew."""

import base64
import collections
import io
import json
import re

import numpy as np
import pytest
from html_page import HtmlPage as Page
from made_up_folders import interval, made_up, percent, wilson, write_run
from PIL import Image
from support import edit_json

from ktl.config.settings import RunConfig
from ktl.data.duplicates import Duplicate
from ktl.evaluation.metrics import reliability_bins
from ktl.reporting.page import write_report


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


@pytest.mark.parametrize(
    ("objective", "title", "best"),
    [
        ("top1", "validation top-1", "highest"),
        ("log_loss", "validation log loss", "lowest"),
        ("macro_f1", "validation macro F1", "highest"),
    ],
)
def test_what_chose_the_epoch_is_the_objective(tmp_path, objective, title, best):
    certain = (np.eye(3)[[0, 0, 1]], np.array([0, 0, 1], np.int32))
    config = RunConfig(dataset="/gone", objective=objective)
    write_run(tmp_path / "run", config, class_names="abc", photos="xyz", validation=certain, test=certain)
    page = Page(write_report([tmp_path / "run"], output=tmp_path / "report.html"))
    assert f"chosen by the {title}, which" in page.section("result").text
    assert f"the one with the {best} {title}, whose" in page.section("curves").text


def test_curves_do_not_say_that_weights_were_kept_where_another_training_has_the_model(tmp_path):
    certain = (np.eye(3)[[0, 0, 1]], np.array([0, 0, 1], np.int32))
    config = RunConfig(dataset="/gone", refit="on")
    write_run(tmp_path / "run", config, class_names="abc", photos="xyz", validation=certain, test=certain)
    edit_json(tmp_path / "run" / "result.json", refit={"photos": 6, "epochs": 3, "seconds": 1.0})
    page = Page(write_report([tmp_path / "run"], output=tmp_path / "report.html"))
    assert "whose weights were kept" not in page.section("curves").text
    assert "the model is of another training, on validation photos too" in page.section("curves").text
    told = "on 6 training and validation photos, 3 epochs; validation scores are those of the training before"
    assert told in page.section("result").text


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
    header, *rows = page.rows("classes")
    assert [row[:4] for row in rows] == [
        [name, "", f"{percent(a)} {n} of 6", interval(n, 6)] for a, name, n in expected
    ]
    assert header[4:] == ["precision", "F1"]
    taken = {names[i]: int((probabilities.argmax(axis=1) == i).sum()) for i in range(6)}
    assert [row[4:] for row in rows] == [
        [percent(n / taken[c]), percent(2 * n / (6 + taken[c]))] for _, c, n in expected
    ]
    bars = [bar.attributes["style"] for bar in page.section("classes").all("span", kind="track")]
    for bar, (accuracy, _, count) in zip(bars, expected, strict=True):
        drawn = [float(number) for number in re.findall(r": ([\d.e-]+)", bar)]
        np.testing.assert_allclose(drawn, [accuracy, *wilson(count, 6)], atol=1e-6)


def test_reliability_bins_are_those_of_the_error(hostile):
    _, page, probabilities, labels, _, _ = hostile
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = reliability_bins(confidence, right)
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


def test_scores_without_duplicates_stand_beside_the_headline(tmp_path):
    sure = (np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 1], np.int32))
    without = {"photos": 3, "test": {"top1": 2 / 3, "mean_class_accuracy": 0.5, "log_loss": 1.0, "ece": 0.1}}
    run = write_run(
        tmp_path / "run",
        RunConfig(dataset="/gone"),
        class_names="abc",
        photos="wxyz",
        validation=sure,
        test=sure,
        without_duplicates=without,
        warnings=["WARNING: <few> photos"],
    )
    twins = (Duplicate("w", "test", "<i>", "validation", 3, False), Duplicate("v", "validation", "t", "train", 0, True))
    run.write_duplicates(twins)
    page = Page(write_report([run.path], output=tmp_path / "report.html"))
    assert [notice.text for notice in page.section("result").all("p", kind="notice")] == [
        "66.7 % on the 3 test photos that look like no training or validation photo.",
        "WARNING: <few> photos",
    ]
    assert [notice.text[:58] for notice in page.section("duplicates").all("p", kind="notice")] == [
        "0 photos of the test split are also among the training or ",
        "1 photo of the validation split is also among the training",
    ]
    assert page.rows("duplicates")[1:] == [
        ["test", "w", "validation", "<i>", "3"],
        ["validation", "v", "train", "t", "the same file"],
    ]
    result = json.loads((run.path / "result.json").read_text())
    run.write_json("result.json", {**result, "without_duplicates": {"photos": 0, "test": None}})
    page = Page(write_report([run.path], output=tmp_path / "report.html"))
    assert page.section("result").all("p", kind="notice")[0].text.startswith("Every test photo looks like a training")


def test_long_lists_of_classes_are_folded(many):
    assert len(many[0].rows("classes")) == 41
    assert "20 more classes" in many[0].section("classes").text


def test_a_run_without_a_mistake_and_a_class_without_a_photo(tmp_path):
    certain = (np.eye(3)[[0, 0, 1]], np.array([0, 0, 1], np.int32))
    write_run(
        tmp_path / "run", RunConfig(dataset="/gone"), class_names="abc", photos="xyz", validation=certain, test=certain
    )
    page = Page(write_report([tmp_path / "run"], output=tmp_path / "report.html"))
    assert "No test photo was mistaken" in page.section("mistakes").text
    assert "top-5" not in {row[0] for row in page.rows("result")}
    assert "Without test photos: c" in page.section("classes").text
    assert [row[0] for row in page.rows("classes")[1:]] == ["a", "b"]


def test_the_kept_layer_names_five_imagenet_classes_of_each(explained):
    page, rows, names = explained
    section = page.section("kept")
    first, more, _ = section.all("table")
    assert section.one("details").one("summary").text == "10 more classes"
    assert section.one("details").one("table") is more
    shown = [row for table in (first, more) for row in table.one("tbody").all("tr")]
    assert len(shown) == len(names)
    for label, (name, row) in enumerate(zip(names, shown, strict=True)):
        best = [each for each in rows[10 * label : 10 * label + 5] if each["contribution"] >= 0.05]
        assert len(best) == {2: 0, 45: 1}.get(label, 5), "what would be told as 0.0 is left out"
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
    # Of class 3 the first ImageNet class is one that its photos are unlike; those of class 2 add nothing to be told.
    assert columns == [f"<i>thing</i> {number}" for number in (0, 1, *range(4, 20))]
    body = table.one("tbody").all("tr")
    assert [row.one("th").text for row in body] == names[:20]
    highest = max(row["contribution"] for row in rows[:200])
    written = {(row["class"], row["imagenet_class"]): row for row in rows if row["contribution"] >= 0.05}
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
