"""Labels for photos, compared with a plain loop over the same photos."""

import logging
import os
import random
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from tiny_predictor import LABELS, SIZE, label_one_by_one, write_model

from ktl.data.images import WORKERS, decode
from ktl.data.views import evaluation_view
from ktl.errors import UserError
from ktl.inference import photos as photos_module
from ktl.inference import predict as predicting
from ktl.inference.predict import BATCH_SIZE, Prediction, label_photos, predict
from ktl.inference.predictor import Predictor, load_predictor
from ktl.models.classifier import TransferClassifier


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, tiny_backbone) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), tiny_backbone)


@pytest.fixture(scope="module")
def predictor(model_folder) -> Predictor:
    return load_predictor(model_folder)


@pytest.fixture(scope="module")
def photos(photo_folder) -> list[Path]:
    return sorted(photo_folder.rglob("*.*"))


@pytest.fixture(scope="module")
def expected(predictor, photos) -> list[list[tuple[str, float]]]:
    return label_one_by_one(predictor, photos)


def check(prediction: Prediction, photo: Path, expected) -> None:
    assert (prediction.photo, prediction.reason) == (str(photo), None)
    assert [label for label, _ in prediction.top] == [label for label, _ in expected]
    np.testing.assert_allclose([p for _, p in prediction.top], [p for _, p in expected], atol=1e-6)


def test_photos_are_labelled_in_their_order_over_several_batches(predictor, photos, expected):
    chosen = [index % len(photos) for index in range(3 * BATCH_SIZE + 5)]
    predictions = list(label_photos(predictor, [photos[index] for index in chosen]))
    assert len(predictions) == len(chosen)
    for prediction, index in zip(predictions, chosen, strict=True):
        check(prediction, photos[index], expected[index])


def test_a_network_that_gives_no_numbers_labels_nothing(predictor, photos):
    broken = Predictor("broken", LABELS, SIZE, lambda views: np.full((len(views), len(LABELS)), np.nan, "float32"))
    with pytest.raises(UserError, match=r"^Expected broken to give finite probabilities\. Received: nan for "):
        predict(broken, photos[:2], verbose=0)


def test_a_photo_that_cannot_be_read_keeps_its_place(predictor, photos, expected, tmp_path):
    (tmp_path / "empty.png").touch()
    mixed = [tmp_path / "none.png", photos[0], tmp_path / "empty.png", tmp_path, photos[1], "zero\0byte"]
    none, first, empty, folder, second, zero = label_photos(predictor, mixed)
    assert none == Prediction(str(tmp_path / "none.png"), (), "cannot be read: No such file or directory")
    assert empty == Prediction(str(tmp_path / "empty.png"), (), "the file is empty")
    assert folder.reason == "cannot be read: Is a directory"
    assert zero.reason == "cannot be read: embedded null byte"
    check(first, photos[0], expected[0])
    check(second, photos[1], expected[1])


def test_a_batch_without_any_good_photo(predictor, photos, expected, tmp_path):
    bad = [tmp_path / f"{index}.png" for index in range(BATCH_SIZE)]
    *predictions, last = label_photos(predictor, [*bad, photos[3]])
    assert all(prediction.reason for prediction in predictions)
    check(last, photos[3], expected[3])


def slow_predictor(predictor: Predictor, seen: list[int]) -> Predictor:
    def classify(views):
        seen.append(len(views))
        time.sleep(0.05)
        return np.ones([len(views), len(LABELS)], np.float32)

    return Predictor("slow", predictor.class_names, SIZE, classify)


def test_few_photos_are_decoded_ahead_and_some_while_the_network_works(predictor, photos, monkeypatch):
    decoded = []
    lock = threading.Lock()

    def view_of(encoded, *, size):
        with lock:
            decoded.append(time.perf_counter())
        return np.zeros([size, size, 3], np.uint8)

    monkeypatch.setattr(photos_module, "view_of", view_of)
    sizes = []
    predictions = label_photos(slow_predictor(predictor, sizes), [photos[0]] * (10 * BATCH_SIZE))
    for _ in range(BATCH_SIZE + 1):  # into the second batch
        next(predictions)
    time.sleep(0.2)
    assert sizes == [BATCH_SIZE] * 2
    ahead = predicting.BATCHES_AHEAD * BATCH_SIZE + WORKERS
    assert len(decoded) == 2 * BATCH_SIZE + ahead  # those, and no more of the ten
    predictions.close()
    time.sleep(0.1)
    assert len(decoded) == 2 * BATCH_SIZE + ahead


@pytest.fixture(scope="module")
def in_memory(tiny_backbone) -> TransferClassifier:
    return TransferClassifier(tiny_backbone, class_names=LABELS, scale=20.0, seed=0)


def with_softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_a_classifier_in_memory_is_asked_as_it_is(in_memory, photos, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no photo")
    pixels = [decode(photo.read_bytes()) for photo in photos[:3]]
    views = np.stack([evaluation_view(image, size=SIZE) for image in pixels])
    for weights in (in_memory.get_weights(), [0.5 * weight for weight in in_memory.get_weights()]):
        in_memory.set_weights(weights)  # as training would
        given = [photos[0], tmp_path / "bad.png", Image.fromarray(pixels[1]), pixels[2]]
        first, bad, second, third = predict(in_memory, given, verbose=0)
        expected = with_softmax(in_memory(views.astype("float32"), training=False).numpy())
        for found, row in zip((first, second, third), expected, strict=True):
            best = np.argsort(-row)[:5]
            assert [label for label, _ in found.top] == [LABELS[index] for index in best]
            assert (found.label, found.probability) == found.top[0]
            np.testing.assert_allclose([p for _, p in found.top], row[best], atol=1e-6)
        assert (first.photo, second.photo, third.photo) == (str(photos[0]), "photos[2]", "photos[3]")
        assert (bad.label, bad.probability, bad.top) == (None, None, ())
        assert bad.reason.startswith("not an image of a known format")
    # Keras refuses to name the output of a layer that has been made part of another graph.
    assert all(layer.output is not None for layer in in_memory.layers)


def test_a_folder_and_a_predictor_give_the_same(predictor, model_folder, photos, expected):
    for classifier in (predictor, model_folder, str(model_folder)):
        found = predict(classifier, photos[:3], verbose=0)
        for prediction, photo, row in zip(found, photos, expected, strict=False):
            check(prediction, photo, row)


def test_what_is_no_classifier_is_one_line(tiny_backbone, photos, tmp_path):
    for classifier, received in ((7, "7"), (keras.models.load_model(tiny_backbone), "<Functional")):
        with pytest.raises(
            UserError, match=rf"^Expected `classifier` to be a TransferClassifier or [^\n]* Received: {received}"
        ):
            predict(classifier, photos)
    with pytest.raises(UserError, match="Expected the folder of a run that has ended"):
        predict(tmp_path, photos)


def test_predict_leaves_the_process_as_it_was(in_memory, model_folder, photos):
    def state():
        loggers = {name: logging.getLogger(name).level for name in ("", "absl", "tensorflow", "ktl", "PIL")}
        return (
            loggers,
            keras.config.dtype_policy().name,
            random.getstate(),
            np.random.get_state()[1].tolist(),
            dict(os.environ),
        )

    before = state()
    predict(in_memory, photos[:2])
    predict(model_folder, photos[:2])
    assert state() == before
