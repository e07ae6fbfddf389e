"""What `ktl predict` prints, compared with a plain loop over the same photos."""

import csv
import io
import json
import os
import pty
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tiny_predictor import SIZE, label_one_by_one, write_model

from ktl.cli.console import TerminalReporter
from ktl.cli.predictions import print_predictions
from ktl.errors import UserError
from ktl.inference.predictor import Predictor, load_predictor
from ktl.progress import Reporter


@pytest.fixture(scope="module")
def predictor(tmp_path_factory, tiny_backbone) -> Predictor:
    return load_predictor(write_model(tmp_path_factory.mktemp("model"), tiny_backbone))


@pytest.fixture(scope="module")
def photos(photo_folder) -> list[Path]:
    return sorted(photo_folder.rglob("*.*"))


@pytest.fixture(scope="module")
def expected(predictor, photos) -> list[list[tuple[str, float]]]:
    return label_one_by_one(predictor, photos)


class Recorder(Reporter):
    def __init__(self):
        self.messages, self.progress = [], []

    def message(self, text):
        self.messages.append(text)

    def photos(self, task, total):
        self.progress.append((task, total))
        return super().photos(task, total)


def test_csv(predictor, photos, expected, capsys):
    assert print_predictions(predictor, [str(photos[0].parent)], form="csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["photo"] for row in rows] == list(map(str, photos[:12]))
    for row, (first, second, *_) in zip(rows, expected, strict=False):
        assert (row["label"], row["runner_up"]) == (first[0], second[0])
        values = float(row["probability"]), float(row["runner_up_probability"])
        np.testing.assert_allclose(values, [first[1], second[1]], atol=2e-6)


def test_what_is_passed_over_is_told(predictor, photos, tmp_path, capsys):
    shutil.copy(photos[0], tmp_path)
    (tmp_path / "scan.tiff").touch()
    recorder = Recorder()
    assert print_predictions(predictor, [str(tmp_path)], form="csv", reporter=recorder) == 0
    assert recorder.messages == [
        f"passed over: 1 photos of formats that are not read, such as {tmp_path / 'scan.tiff'}"
    ]


def test_json_lines(predictor, photos, expected, capsys):
    assert print_predictions(predictor, list(map(str, photos[:3])), form="json") == 0
    for line, photo, best in zip(capsys.readouterr().out.splitlines(), photos, expected, strict=False):
        row = json.loads(line)
        assert (row["photo"], row["label"]) == (str(photo), best[0][0])
        assert row["top_k_labels"] == [label for label, _ in best]
        np.testing.assert_allclose(row["top_k_probabilities"], [p for _, p in best], atol=1e-6)


def test_the_table_shows_names_as_they_are(photos, capsys, tmp_path):
    name = tmp_path / os.fsdecode(b"[b]caf\xe9.png")
    shutil.copy(photos[0], name)
    fixed = Predictor("fixed", ("[red]rose", "iris"), SIZE, lambda views: np.array([[0.75, 0.25]] * len(views)))
    for form in ("table", "csv"):
        assert print_predictions(fixed, [str(name)], form=form) == 0
        text = capsys.readouterr().out
        for part in ("[b]caf\\xe9.png", "[red]rose", "0.750000", "iris", "0.250000"):
            assert part in text
    assert print_predictions(fixed, [str(name)], form="json") == 0
    assert json.loads(capsys.readouterr().out)["photo"] == str(name)


def test_a_network_of_one_class_has_no_runner_up(photos, capsys):
    single = Predictor("one", ("rose",), SIZE, lambda views: np.ones([len(views), 1], np.float32))
    assert print_predictions(single, [str(photos[0])], form="csv") == 0
    assert capsys.readouterr().out.splitlines()[1] == f"{photos[0]},rose,1.000000,,"


def test_bad_photos_are_named_and_the_rest_is_done(predictor, photos, tmp_path, capsys):
    reporter = Recorder()
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    names = [str(tmp_path / "bad.jpg"), str(photos[0]), str(tmp_path / "none.jpg")]
    assert print_predictions(predictor, names, form="csv", reporter=reporter) == 1
    assert [row.split(",")[0] for row in capsys.readouterr().out.splitlines()] == ["photo", str(photos[0])]
    assert [message.split(": ")[0] for message in reporter.messages] == [names[0], names[2]]
    assert "not an image" in reporter.messages[0]
    assert reporter.progress == [("photos", 3)]


def test_names_that_no_file_has_are_bad_photos(predictor, photos, monkeypatch, capsys):
    reporter, long = Recorder(), "x" * 300
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"   \na\x1b[1m\n%s\n" % bytes(photos[1]))))
    assert print_predictions(predictor, [long, str(photos[0]), "-"], form="csv", reporter=reporter) == 1
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(",")[0] for row in rows] == ["photo", str(photos[0]), str(photos[1])]
    missing = "cannot be read: No such file or directory"
    expected = [f"{long}: cannot be read: File name too long", f"'   ': {missing}", rf"a\x1b[1m: {missing}"]
    assert reporter.messages == expected


def test_nothing_that_can_be_read_is_one_line(predictor, tmp_path, capsys):
    names = [str(tmp_path / f"{index}.jpg") for index in range(7)]
    with pytest.raises(UserError, match="Received: 7 that cannot: ") as error:
        print_predictions(predictor, names)
    assert f"{names[4]} (cannot be read: No such file or directory); ..." in f"{error.value}"
    assert names[5] not in f"{error.value}"
    assert "\n" not in f"{error.value}"
    assert capsys.readouterr().out == ""


def test_rows_go_to_standard_output_while_a_bar_is_on_the_terminal(predictor, photos, monkeypatch, tmp_path):
    """rich takes over `sys.stdout` while it draws: with `> FILE`, rows must reach the file all the same."""
    controller, terminal = pty.openpty()
    drawn = []
    reading = threading.Thread(target=lambda: drawn.append(os.read(controller, 2**20)), daemon=True)
    reading.start()
    with open(tmp_path / "rows.csv", "w") as rows, os.fdopen(terminal, "w") as screen:
        monkeypatch.setattr(sys, "stdout", rows)
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setenv("TERM", "xterm")
        print_predictions(predictor, [str(photos[0])], form="csv", reporter=TerminalReporter())
        reading.join(60)
    os.close(controller)
    assert drawn[0]
    assert str(photos[0]) in (tmp_path / "rows.csv").read_text()
