"""The second training of a run: on which photos, how long, what is kept, and that a stop in it loses nothing."""

import json
import os
import shutil

import keras
import numpy as np
import pytest
from support import Interrupt, Listener, as_dataset

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


@pytest.fixture(scope="module")
def refitted(settings, tmp_path_factory):
    """The same with one, and what was told. Do not write here."""
    path, listener = tmp_path_factory.mktemp("refitted") / "run", Listener()
    own = {**settings, "cache_dir": str(path.parent / "cache")}
    return path, ktl.run(**own, cache="on", refit=True, output=path, verbose=listener), listener


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


def test_the_model_is_that_of_a_training_on_both_splits_up_to_that_epoch(settings, refitted, tmp_path):
    """Without a cache, by hand, and with its test probabilities."""
    path, result, _ = refitted
    config = ktl.RunConfig(**settings, cache="off")
    training = Session(config, pooled(load_dataset(config.dataset))).prepare()
    training.fit(tmp_path, stop_after=result["best_epoch"], keep="last")
    for weight, expected in zip(weights_of(path), training.classifier.as_functional().get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-4)
    test = load_dataset(config.dataset).test
    photos = evaluation_batches(test, image_size=42, batch_size=8, cache=PhotoCache(memory_gib=0))
    logits = keras.models.load_model(path / "model.keras").predict(as_dataset(photos), verbose=0).astype("float64")
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(read_run(path).probabilities["test"], found, rtol=1e-4, atol=1e-6)
    assert result["test"]["top1"] == pytest.approx(np.mean(found.argmax(axis=1) == test.labels))


def test_one_pass_over_the_frozen_layers_serves_both_trainings(refitted):
    _, result, listener = refitted
    tasks = dict(listener.tasks)
    photos = result["photos"]
    both = photos["train"] + photos["validation"]
    assert [task for task, _ in listener.tasks].count("computing frozen layers") == 1
    assert tasks["computing frozen layers"] == 4 * both + photos["validation"] + photos["test"]
    assert tasks["looking for duplicates"] == sum(photos.values())


def test_what_is_told_of_the_second_training_has_no_validation(refitted):
    _, result, listener = refitted
    assert len(listener.rows) == result["epochs"]
    lines = [text for text in listener.messages if text.startswith("refit")]
    assert lines[0] == (
        f"refit: training and validation photos, 60, up to epoch {result['best_epoch']}, which validation chose"
    )
    assert len(lines) == 1 + result["best_epoch"]
    assert not any("validation 0" in line or "validation 1" in line for line in lines)


class StopsRefit(Listener):
    """Ends the process's work after the first epoch of the second training."""

    def message(self, text):
        super().message(text)
        if text.startswith("refit, epoch 1/"):
            raise Interrupt


def test_a_run_that_is_stopped_in_either_training_goes_on_there(settings, refitted, tmp_path):
    whole, expected, _ = refitted
    settings = {**settings, "cache": "on", "refit": True, "output": tmp_path / "run"}
    with pytest.raises(Interrupt):
        ktl.run(**settings, verbose=Listener(interrupt_after=2))
    with pytest.raises(Interrupt):
        ktl.run(**settings, verbose=(second := StopsRefit()))
    assert [row["epoch"] for row in second.rows] == list(range(3, expected["epochs"] + 1))
    result = ktl.run(**settings, verbose=(third := Listener()))
    assert third.rows == []
    told = [text for text in third.messages if text.startswith("refit, epoch")]
    assert [text.split("  ")[0] for text in told] == [
        f"refit, epoch {epoch}/{expected['best_epoch']}" for epoch in range(2, expected["best_epoch"] + 1)
    ]
    for name in ("validation", "test", "best_epoch", "epochs"):
        assert result[name] == expected[name]
    for weight, other in zip(weights_of(tmp_path / "run"), weights_of(whole), strict=True):
        np.testing.assert_array_equal(weight, other)
    assert set(os.listdir(tmp_path / "run")) == set(os.listdir(whole))


def test_it_belongs_to_the_settings(settings, refitted):
    path, result, _ = refitted
    assert json.loads((path / "config.json").read_text())["refit"] is True
    assert " --refit" in result["command"]
    with pytest.raises(ktl.UserError, match="refit True there, False here"):
        ktl.run(**settings, cache="on", output=path, verbose=0)


def test_a_photo_that_cannot_be_read_is_listed_once(settings, photo_folder, tmp_path):
    photos = shutil.copytree(photo_folder, tmp_path / "photos")
    bad = load_dataset(str(photos)).validation.photos[0]
    (photos / bad).write_bytes(b"no photo")
    given = {**settings, "dataset": str(photos), "epochs": 1, "on_bad_image": "skip", "refit": True}
    result = ktl.run(**given, cache="on", output=tmp_path / "run", verbose=0)
    assert [row["photo"] for row in result["bad_photos"]] == [bad]
    assert result["refit"]["photos"] == result["photos"]["train"] + result["photos"]["validation"] == 59
