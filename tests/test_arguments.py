"""Wrong types of arguments: one line that names the argument, for every public function and every setting."""

import dataclasses
import inspect
from pathlib import Path

import keras
import numpy as np
import pytest
from support import one_line

import ktl
from ktl.arguments import fits
from ktl.errors import UserError

WRONG = {
    "epochs": (1.5, "3", None, True, [1]),
    "batch_size": (8.0, "8", None),
    "seed": (1.5, "x", None),
    "patience": (None, 0.5),
    "recipe": ({"learning_rate": 1}, 0.1),
    "callbacks": (keras.callbacks.Callback, ["early"], 7, "x"),
    "augmentation": (7, b"none", ["standard"]),
    "flip": ("yes", 1, None),
    "jit_compile": ("yes", 1.0, None),
    "on_bad_image": (True, None, "ignore"),
    "caching": ("on", True),
    "dataset": (None, "photos", 7),
    "classifier": (None, "runs/a"),
    "views": (2.5, None),
    "verbose": ("loud", 1.5),
}
"""Argument of `ktl.fit` -> values that it does not take."""


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_argument_of_fit_is_one_line_that_names_it(name, value):
    given = {name: value}
    right = {"classifier": None, "dataset": None} | given
    classifier = right.pop("classifier")
    with pytest.raises(UserError) as error:
        ktl.fit(classifier, right.pop("dataset"), **right)
    text = one_line(error)
    assert f"`{name}`" in text or "`classifier`" in text


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: ktl.export(7, "out"), "classifier"),
        (lambda: ktl.export("run", 7), "output"),
        (lambda: ktl.export("run", ""), "output"),
        (lambda: ktl.export("run", "out", calibrate="yes"), "calibrate"),
        (lambda: ktl.export("run", "out", format=7), "format"),
        (lambda: ktl.predict("", "a.jpg"), "model"),
        (lambda: ktl.predict("run", "", verbose="loud"), "verbose"),
        (lambda: ktl.load(None), "path"),
        (lambda: ktl.load(""), "model"),
        (lambda: ktl.serve("run", port="8501"), "port"),
        (lambda: ktl.serve("run", host=None), "host"),
        (lambda: ktl.serve("run", allow_origins=7), "allow_origins"),
        (lambda: ktl.write_report(7), "folders"),
        (lambda: ktl.write_report(["run"], output=""), "output"),
        (lambda: ktl.run(dataset="photos", output=7), "output"),
        (lambda: ktl.run(dataset="photos", output=""), "output"),
        (lambda: ktl.run(dataset="photos", callbacks=["early"]), "callbacks"),
        (lambda: ktl.run(dataset="photos", augmentation=7), "augmentation"),
        (lambda: ktl.search(dataset="photos", overwrite="yes"), "overwrite"),
        (lambda: ktl.study(dataset="photos", overwrite=1), "overwrite"),
        (lambda: ktl.load_dataset(None), "name"),
        (lambda: ktl.load_dataset(""), "name"),
        (lambda: ktl.load_dataset(7), "name"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(call, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        call()
    assert f"`{name}`" in one_line(error)
    assert not list(tmp_path.iterdir())


VALUES = (None, True, 1.5, -1, 10**400, float("nan"), "", " ", "x\0y", "text", b"text", [], [None], {}, object(), int)


@pytest.mark.parametrize("config", [ktl.RunConfig, ktl.SearchConfig, ktl.StudyConfig])
def test_every_setting_takes_a_value_or_names_itself(config):
    for field in dataclasses.fields(config):
        for value in VALUES:
            made, refused = made_or_refused(config, {"dataset": "photos", field.name: value})
            if made is None:
                assert "Expected" in refused
                assert "\n" not in refused
            else:
                assert config.from_dict(made.as_dict()).as_dict() == made.as_dict()


def made_or_refused(config, given: dict):
    try:
        return config(**given), ""
    except UserError as error:
        return None, f"{error}"


def test_paths_and_numbers_of_numpy_are_welcome(photo_folder):
    assert len(ktl.load_dataset(photo_folder).class_names) == 6
    config = ktl.RunConfig(dataset=Path("photos"), epochs=np.int64(3), learning_rate=np.float32(0.5), seed=np.uint8(7))
    assert (config.dataset, config.epochs, config.learning_rate, config.seed) == ("photos", 3, 0.5, 7)
    assert fits(np.int32(3), int)
    assert fits(np.float32(3), float)
    assert fits(np.bool_(True), bool)
    assert not fits(True, int)
    assert not fits(np.bool_(True), float)


def test_a_checked_function_looks_like_itself():
    assert "Trains a classifier" in inspect.getdoc(ktl.fit)
    assert list(inspect.signature(ktl.fit).parameters)[:2] == ["classifier", "dataset"]
    with pytest.raises(TypeError, match="unexpected"):
        ktl.fit(None, None, epoch=3)
