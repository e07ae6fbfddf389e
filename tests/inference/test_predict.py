"""Labels for photos, compared with a plain loop over the same photos."""

import io
import os
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
from ktl.inference.predict import BATCH_SIZE, Prediction, find_photos, predict
from ktl.inference.predictor import Classifier, load_classifier

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
