"""The second training of a run: on which photos, how long, what is kept, and that a stop in it loses nothing."""

import json
import os
import shutil

import keras
import numpy as np
import pytest
from support import Interrupt, Listener, as_dataset, write_photos

import ktl
from ktl.data.input_pipeline import PhotoCache, evaluation_batches
from ktl.data.loading import load_dataset
from ktl.data.pooling import pooled
from ktl.runs.finished_run import read_run
from ktl.runs.session import Session

pytestmark = pytest.mark.usefixtures("without_determinism_afterwards")


@pytest.fixture(scope="module")
def settings(photo_folder, tiny_backbone, tmp_path_factory):
    return {
        "dataset": str(photo_folder),
        "backbone": str(tiny_backbone),
        "freeze_depth": "block_relu",
        "epochs": 5,
        "batch_size": 8,
        "least_steps": 1,
        "learning_rate": 0.01,
        "deterministic": True,
        "cache_dir": str(tmp_path_factory.mktemp("cache")),
    }


@pytest.fixture(scope="module")
def plain(settings, tmp_path_factory):
    """A run's folder and result without a refit. Do not write here."""
    path = tmp_path_factory.mktemp("plain") / "run"
    return path, ktl.run(**settings, cache="on", output=path, verbose=0)


class StopsRefit(Listener):
    """Ends the process's work after the first epoch of the second training."""

    def message(self, text):
        super().message(text)
        if text.startswith("refit, epoch 1/"):
            raise Interrupt


@pytest.fixture(scope="module")
def refitted(settings, tmp_path_factory):
    """The folder and the result of a run with one that was stopped in either training, and what was told by each of the
    three calls. Do not write here."""
    path = tmp_path_factory.mktemp("refitted") / "run"
    listeners = (Listener(interrupt_after=2), StopsRefit(), Listener())
    own = {**settings, "cache_dir": str(path.parent / "cache"), "cache": "on", "refit": "on", "output": path}
    for listener in listeners[:2]:
        with pytest.raises(Interrupt):
            ktl.run(**own, verbose=listener)
    return path, ktl.run(**own, verbose=listeners[2]), listeners


def weights_of(path) -> list[np.ndarray]:
    return [np.asarray(weight) for weight in keras.models.load_model(path / "model.keras").get_weights()]


def test_the_epoch_and_the_validation_scores_are_those_of_the_run_without_it(plain, refitted):
    (_, without, (_, result, _)) = (*plain, refitted)
    assert without["refit"] is None
    assert result["validation"] == without["validation"]
    assert (result["best_epoch"], result["epochs"]) == (without["best_epoch"], without["epochs"])
    assert result["photos"] == without["photos"]
    assert result["refit"]["photos"] == result["photos"]["train"] + result["photos"]["validation"]
    assert result["refit"]["epochs"] == result["best_epoch"]
    assert result["seconds"] > result["refit"]["seconds"] > 0
    before, after = (read_run(path).probabilities for path in (plain[0], refitted[0]))
    np.testing.assert_array_equal(before["validation"], after["validation"])
    assert np.abs(before["test"] - after["test"]).max() > 1e-3
    assert set(os.listdir(plain[0])) == set(os.listdir(refitted[0]))


def test_the_model_is_that_of_a_training_on_both_splits_up_to_that_epoch(settings, refitted, tmp_path):
    """By hand, without a stop, to the last bit; and with its test probabilities."""
    path, result, _ = refitted
    config = ktl.RunConfig(**settings, cache="on")
    training = Session(config, pooled(load_dataset(config.dataset))).prepare()
    training.fit(tmp_path, stop_after=result["best_epoch"], keep="last")
    for weight, expected in zip(weights_of(path), training.classifier.as_functional().get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    test = load_dataset(config.dataset).test
    photos = evaluation_batches(test, image_size=42, batch_size=8, cache=PhotoCache(memory_gib=0))
    logits = keras.models.load_model(path / "model.keras").predict(as_dataset(photos), verbose=0).astype("float64")
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(read_run(path).probabilities["test"], found, rtol=1e-4, atol=1e-6)
    assert result["test"]["top1"] == pytest.approx(np.mean(found.argmax(axis=1) == test.labels))


def test_one_pass_over_the_frozen_layers_serves_both_trainings(refitted):
    _, result, listeners = refitted
    told = [task for listener in listeners for task in listener.tasks]
    tasks = dict(told)
    photos = result["photos"]
    both = photos["train"] + photos["validation"]
    assert [task for task, _ in told].count("computing frozen layers") == 1
    assert tasks["computing frozen layers"] == 4 * both + photos["validation"] + photos["test"]
    assert tasks["looking for duplicates"] == sum(photos.values())


def test_what_is_told_of_the_second_training_has_no_validation(refitted):
    _, result, (_, second, _) = refitted
    lines = [text for text in second.messages if text.startswith("refit")]
    assert lines[0] == (
        f"refit: training and validation photos, 60, up to epoch {result['best_epoch']}, which validation chose"
    )
    assert len(lines) == 2
    assert not any("validation 0" in line or "validation 1" in line for line in lines)


def test_a_run_that_is_stopped_in_either_training_goes_on_there(refitted):
    _, result, (first, second, third) = refitted
    assert [row["epoch"] for row in first.rows] == [1, 2]
    assert [row["epoch"] for row in second.rows] == list(range(3, result["epochs"] + 1))
    assert third.rows == []
    assert result["best_epoch"] > 1, "else there is nothing left to go on with"
    told = [text for text in third.messages if text.startswith("refit, epoch")]
    assert [text.split("  ")[0] for text in told] == [
        f"refit, epoch {epoch}/{result['best_epoch']}" for epoch in range(2, result["best_epoch"] + 1)
    ]


@pytest.fixture(scope="module")
def few(settings, tmp_path_factory):
    """The settings of a run on five photos of each class: three, one for validation and one for the test."""
    photos = write_photos(tmp_path_factory.mktemp("few") / "photos", each=5)
    return {**settings, "dataset": str(photos), "patience": 1}


def test_of_few_photos_a_run_is_refitted_for_all_epochs_without_being_asked(few, tmp_path):
    listener = Listener()
    result = ktl.run(**few, cache="on", output=tmp_path / "run", verbose=listener)
    assert result["photos"] == {"train": 18, "validation": 6, "test": 6}
    assert result["refit"]
    assert (result["refit"]["photos"], result["refit"]["epochs"]) == (24, 5)
    told = "refit: training and validation photos, 24, for all epochs, 5: too few photos of a class to choose one"
    assert told in listener.messages
    (warning,) = result["warnings"]
    assert warning.startswith("WARNING: few photos give the validation scores: 6 for validation")
    assert result["settings"]["refit"] == "auto"
    assert "--refit" not in result["command"]
    config = ktl.RunConfig(**few, cache="on")
    training = Session(config, pooled(load_dataset(config.dataset))).prepare()
    training.fit(tmp_path / "by-hand", keep="last")
    weights = weights_of(tmp_path / "run")
    for weight, expected in zip(weights, training.classifier.as_functional().get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_a_bad_photo_more_or_less_does_not_decide_for_how_many_epochs(few, tmp_path):
    """Two training photos of a class and as many for validation: without a bad one, fewer than these."""
    given = {**few, "dataset": str(tmp_path / "photos"), "epochs": 2, "on_bad_image": "skip"}
    for split, each in (("train", 2), ("validation", 2), ("test", 1)):
        write_photos(tmp_path / "photos" / split, each=each)
    (tmp_path / "photos" / "train" / "class0" / "00.png").write_bytes(b"no photo")
    result = ktl.run(**given, cache="on", output=tmp_path / "run", verbose=0)
    assert (result["photos"]["train"], result["photos"]["validation"]) == (11, 12)
    assert (result["refit"]["photos"], result["refit"]["epochs"]) == (23, 2)
    assert "give the validation scores" in result["warnings"][0]


def test_nor_where_it_is_not_wanted(few, tmp_path):
    result = ktl.run(**few, cache="on", refit=False, output=tmp_path / "run", verbose=0)
    assert result["refit"] is None
    assert result["settings"]["refit"] == "off"
    assert "--refit off" in result["command"]


def test_it_belongs_to_the_settings(settings, refitted):
    path, result, _ = refitted
    assert json.loads((path / "config.json").read_text())["refit"] == "on"
    assert " --refit on" in result["command"]
    with pytest.raises(ktl.UserError, match="refit 'on' there, 'auto' here"):
        ktl.run(**settings, cache="on", output=path, verbose=0)


def test_a_photo_that_cannot_be_read_is_listed_once(settings, photo_folder, tmp_path):
    photos = shutil.copytree(photo_folder, tmp_path / "photos")
    bad = load_dataset(str(photos)).validation.photos[0]
    (photos / bad).write_bytes(b"no photo")
    given = {**settings, "dataset": str(photos), "epochs": 1, "on_bad_image": "skip", "refit": "on"}
    listener = Listener()
    result = ktl.run(**given, cache="on", output=tmp_path / "run", verbose=listener)
    assert [row["photo"] for row in result["bad_photos"]] == [bad]
    assert result["refit"]["photos"] == result["photos"]["train"] + result["photos"]["validation"] == 59
    assert "refit: training and validation photos, 59, up to epoch 1, which validation chose" in listener.messages


def test_a_photo_that_cannot_be_read_is_told_once(few, tmp_path):
    """It is in two splits of what both trainings see."""
    photos = shutil.copytree(few["dataset"], tmp_path / "photos")
    bad = load_dataset(str(photos)).validation.photos[0]
    (photos / bad).write_bytes(b"no photo")
    with pytest.raises(ktl.UserError, match=rf"Received: 1 of 30 that cannot: {bad} \([^;]*\)\. Repair"):
        ktl.run(**{**few, "dataset": str(photos)}, cache="on", output=tmp_path / "run", verbose=0)
