"""Labels for photos, compared with a plain loop over the same photos."""

import csv
import io
import json
import os
import pty
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ktl.data.images import decode, evaluation_view
from ktl.errors import UserError
from ktl.inference import predict as predicting
from ktl.inference.predict import BATCH_SIZE, Prediction, find_photos, predict, print_predictions
from ktl.inference.predictor import Classifier, load_classifier
from ktl.progress import Reporter

LABELS = [f"flower {number}" for number in range(18)] + ["[red]rose", "a, b"]
SIZE = 42


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, tiny_backbone) -> Classifier:
    folder = tmp_path_factory.mktemp("model")
    shutil.copy(tiny_backbone, folder / "model.keras")
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    return load_classifier(folder)


@pytest.fixture(scope="module")
def photos(photo_folder) -> list[Path]:
    return sorted(photo_folder.rglob("*.*"))


@pytest.fixture(scope="module")
def expected(classifier, photos) -> list[list[tuple[str, float]]]:
    """(label, probability), sorted, of each photo, one by one."""
    views = [evaluation_view(decode(photo.read_bytes()), size=SIZE).numpy()[np.newaxis] for photo in photos]
    rows = [classifier.classify(view)[0] for view in views]
    return [sorted(zip(LABELS, map(float, row), strict=True), key=lambda pair: -pair[1])[:5] for row in rows]


class Recorder(Reporter):
    def __init__(self):
        self.messages, self.progress = [], []

    def message(self, text):
        self.messages.append(text)

    def photos(self, task, total):
        self.progress.append((task, total))
        return super().photos(task, total)


def check(prediction: Prediction, photo: Path, expected) -> None:
    assert (prediction.photo, prediction.reason) == (str(photo), None)
    assert [label for label, _ in prediction.top] == [label for label, _ in expected]
    np.testing.assert_allclose([p for _, p in prediction.top], [p for _, p in expected], atol=1e-6)


def test_photos_are_labelled_in_their_order_over_several_batches(classifier, photos, expected):
    chosen = [index % len(photos) for index in range(3 * BATCH_SIZE + 5)]
    predictions = list(predict(classifier, [photos[index] for index in chosen]))
    assert len(predictions) == len(chosen)
    for prediction, index in zip(predictions, chosen, strict=True):
        check(prediction, photos[index], expected[index])


def test_a_photo_that_cannot_be_read_keeps_its_place(classifier, photos, expected, tmp_path):
    (tmp_path / "empty.png").touch()
    mixed = [tmp_path / "none.png", photos[0], tmp_path / "empty.png", tmp_path, photos[1], "zero\0byte"]
    none, first, empty, folder, second, zero = predict(classifier, mixed)
    assert none == Prediction(str(tmp_path / "none.png"), (), "cannot be read: No such file or directory")
    assert empty == Prediction(str(tmp_path / "empty.png"), (), "the file is empty")
    assert folder.reason == "cannot be read: Is a directory"
    assert zero.reason == "cannot be read: embedded null byte"
    check(first, photos[0], expected[0])
    check(second, photos[1], expected[1])


def test_a_batch_without_any_good_photo(classifier, photos, expected, tmp_path):
    bad = [tmp_path / f"{index}.png" for index in range(BATCH_SIZE)]
    *predictions, last = predict(classifier, [*bad, photos[3]])
    assert all(prediction.reason for prediction in predictions)
    check(last, photos[3], expected[3])


def slow_classifier(classifier: Classifier, seen: list[int]) -> Classifier:
    def classify(views):
        seen.append(len(views))
        time.sleep(0.05)
        return np.ones([len(views), len(LABELS)], np.float32)

    return Classifier("slow", classifier.class_names, SIZE, classify)


def test_few_photos_are_decoded_ahead_and_some_while_the_network_works(classifier, photos, monkeypatch):
    decoded = []
    lock = threading.Lock()

    def view_of(encoded, *, size):
        with lock:
            decoded.append(time.perf_counter())
        return np.zeros([size, size, 3], np.uint8)

    monkeypatch.setattr(predicting, "view_of", view_of)
    sizes = []
    predictions = predict(slow_classifier(classifier, sizes), [photos[0]] * (10 * BATCH_SIZE))
    for _ in range(BATCH_SIZE + 1):  # into the second batch
        next(predictions)
    time.sleep(0.2)
    assert sizes == [BATCH_SIZE] * 2
    assert len(decoded) == (2 + predicting.BATCHES_AHEAD) * BATCH_SIZE  # those, and no more of the ten
    predictions.close()
    time.sleep(0.1)
    assert len(decoded) == (2 + predicting.BATCHES_AHEAD) * BATCH_SIZE


def test_names_stand_for_files_and_folders(tmp_path, monkeypatch):
    names = ("b/2.JPG", "b/1.webp", "a.png", "b/c/d.jpeg", "b/.hidden/e.png", "b/._2.jpg", "__MACOSX/f.png", "g.txt")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    assert list(map(str, find_photos(["."]))) == ["a.png", "b/1.webp", "b/2.JPG", "b/c/d.jpeg"]
    assert list(map(str, find_photos(["g.txt", "b/c", "none"]))) == ["g.txt", "b/c/d.jpeg", "none"]
    names = io.TextIOWrapper(io.BytesIO(b"g.txt\n\nb/c\r\ncaf\xe9.jpg"))
    monkeypatch.setattr(sys, "stdin", names)
    assert list(map(os.fsencode, find_photos(["-", "a.png"]))) == [b"g.txt", b"b/c/d.jpeg", b"caf\xe9.jpg", b"a.png"]


@pytest.mark.parametrize("standard_input", [b"", b"\n\n"])
def test_no_photo_is_one_line(tmp_path, monkeypatch, standard_input):
    with pytest.raises(UserError, match=r"^Expected photos, or folders with photos \(\.bmp, .*Received: /[^\n]*$"):
        find_photos([str(tmp_path)])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(standard_input)))
    with pytest.raises(UserError, match="Received: no name"):
        find_photos(["-"])


def test_csv(classifier, photos, expected, capsys):
    assert print_predictions(classifier, [str(photos[0].parent)], form="csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["photo"] for row in rows] == list(map(str, photos[:12]))
    for row, (first, second, *_) in zip(rows, expected, strict=False):
        assert (row["label"], row["runner_up"]) == (first[0], second[0])
        values = float(row["probability"]), float(row["runner_up_probability"])
        np.testing.assert_allclose(values, [first[1], second[1]], atol=2e-6)


def test_json_lines(classifier, photos, expected, capsys):
    assert print_predictions(classifier, list(map(str, photos[:3])), form="json") == 0
    for line, photo, best in zip(capsys.readouterr().out.splitlines(), photos, expected, strict=False):
        row = json.loads(line)
        assert (row["photo"], row["label"]) == (str(photo), best[0][0])
        top = zip(row["top_k_labels"], row["top_k_probabilities"], strict=True)
        check(Prediction(row["photo"], tuple(top)), photo, best)


def test_the_table_shows_names_as_they_are(photos, capsys, tmp_path):
    name = tmp_path / os.fsdecode(b"[b]caf\xe9.png")
    shutil.copy(photos[0], name)
    fixed = Classifier("fixed", ("[red]rose", "iris"), SIZE, lambda views: np.array([[0.75, 0.25]] * len(views)))
    for form in ("table", "csv"):
        assert print_predictions(fixed, [str(name)], form=form) == 0
        text = capsys.readouterr().out
        for part in ("[b]caf\\xe9.png", "[red]rose", "0.750000", "iris", "0.250000"):
            assert part in text
    assert print_predictions(fixed, [str(name)], form="json") == 0
    assert json.loads(capsys.readouterr().out)["photo"] == str(name)


def test_a_network_of_one_class_has_no_runner_up(photos, capsys):
    single = Classifier("one", ("rose",), SIZE, lambda views: np.ones([len(views), 1], np.float32))
    assert print_predictions(single, [str(photos[0])], form="csv") == 0
    assert capsys.readouterr().out.splitlines()[1] == f"{photos[0]},rose,1.000000,,"


def test_bad_photos_are_named_and_the_rest_is_done(classifier, photos, tmp_path, capsys):
    reporter = Recorder()
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    names = [str(tmp_path / "bad.jpg"), str(photos[0]), str(tmp_path / "none.jpg")]
    assert print_predictions(classifier, names, form="csv", reporter=reporter) == 1
    assert [row.split(",")[0] for row in capsys.readouterr().out.splitlines()] == ["photo", str(photos[0])]
    assert [message.split(": ")[0] for message in reporter.messages] == [names[0], names[2]]
    assert "not an image" in reporter.messages[0]
    assert reporter.progress == [("photos", 3)]


def test_nothing_that_can_be_read_is_one_line(classifier, tmp_path, capsys):
    names = [str(tmp_path / f"{index}.jpg") for index in range(7)]
    with pytest.raises(UserError, match="Received: 7 that cannot: ") as error:
        print_predictions(classifier, names)
    assert f"{names[4]} (cannot be read: No such file or directory); ..." in f"{error.value}"
    assert names[5] not in f"{error.value}"
    assert "\n" not in f"{error.value}"
    assert capsys.readouterr().out == ""


def test_rows_go_to_standard_output_while_a_bar_is_on_the_terminal(classifier, photos, monkeypatch, tmp_path):
    """rich takes over `sys.stdout` while it draws: with `> FILE`, rows must reach the file all the same."""
    from ktl.cli.console import TerminalReporter

    controller, terminal = pty.openpty()
    drawn = []
    reading = threading.Thread(target=lambda: drawn.append(os.read(controller, 2**20)), daemon=True)
    reading.start()
    with open(tmp_path / "rows.csv", "w") as rows, os.fdopen(terminal, "w") as screen:
        monkeypatch.setattr(sys, "stdout", rows)
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setenv("TERM", "xterm")
        print_predictions(classifier, [str(photos[0])], form="csv", reporter=TerminalReporter())
        reading.join(60)
    os.close(controller)
    assert drawn[0]
    assert str(photos[0]) in (tmp_path / "rows.csv").read_text()
