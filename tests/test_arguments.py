"""Wrong types of arguments: one line that names the argument, for every public function and every setting."""

import contextlib
import dataclasses
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hostile import NUMBERS, TEXTS, VALUES, made_or_refused, share
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_classifier

import ktl
from ktl.arguments import fits
from ktl.errors import UserError

CLASSES = ("ash", "birch")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A public function or class.

    Attributes:
        call: it.
        right: arguments that are right, or wrong in one place alone.
        end: what it says of that place; None if it succeeds.
    """

    call: Callable
    right: dict
    end: str | None = None


def entries(classifier, dataset) -> dict[str, Entry]:
    """Name -> entry; what takes long or writes is ended by its last argument to be looked at."""
    missing = {"dataset": "./missing"}
    images = np.zeros((8, 4, 4, 3), np.uint8)
    frame = {"columns": ["path", "label"]}
    return {
        "run": Entry(ktl.run, missing, "./missing"),
        "search": Entry(ktl.search, missing, "./missing"),
        "study": Entry(ktl.study, missing, "./missing"),
        "fit": Entry(ktl.fit, {"classifier": classifier, "dataset": dataset}, "classifier's 6 classes"),
        "predict": Entry(ktl.predict, {"classifier": "missing", "photos": "a.jpg"}, "Received: missing"),
        "load": Entry(ktl.load, {"path": "missing"}, "Expected the folder"),
        "export": Entry(ktl.export, {"classifier": "missing", "output": "out"}, "missing"),
        "serve": Entry(ktl.serve, {"path": "missing", "port": 0}, "Expected the folder"),
        "write_report": Entry(ktl.write_report, {"folders": "missing"}, "folder"),
        "load_dataset": Entry(ktl.load_dataset, {"name": "./missing"}, "Received: ./missing"),
        "from_directory": Entry(ktl.Dataset.from_directory, {"path": "missing"}, "Expected a folder"),
        "from_csv": Entry(ktl.Dataset.from_csv, {"path": "missing.csv"}, "Expected a readable .csv file"),
        "from_dataframe": Entry(ktl.Dataset.from_dataframe, {"frame": frame}, "Expected"),
        "from_arrays": Entry(ktl.Dataset.from_arrays, {"images": images, "labels": [0, 1] * 4}),
        "from_tfds": Entry(ktl.Dataset.from_tfds, {"name": "a:b:c"}, "Expected"),
        "build_backbone": Entry(ktl.build_backbone, {"name": "missing.keras"}, ".keras"),
        "classifier": Entry(
            ktl.TransferClassifier, {"backbone": "missing.keras", "class_names": CLASSES}, "missing.keras"
        ),
        "freeze": Entry(classifier.freeze, {"freeze_depth": "none"}),
        "find_boundaries": Entry(ktl.find_boundaries, {"output": classifier.output}),
        "recipe": Entry(ktl.Recipe, {}),
        "caching": Entry(ktl.Caching, {}),
        "normalization": Entry(ktl.ScaledUnitNormalization, {}),
        "hypermodel": Entry(
            ktl.TransferHyperModel, {"config": ktl.RunConfig(dataset="x"), "dataset": dataset, "values": {}}
        ),
        "build_network": Entry(ktl.build_network, {"backbone": "missing.keras", "classes": 2}, "missing.keras"),
    }


NAMES = list(entries(SimpleNamespace(freeze=None, output=None), None))


def exists(value) -> bool:
    try:
        return os.path.exists(os.path.expanduser(value))
    except ValueError:
        return False


# No folder that is there: it would be searched for photos. No host's name: the network would be asked for it.
PLAIN = st.none() | st.booleans() | NUMBERS | TEXTS.filter(lambda text: not exists(text))
STRATEGIES = {
    "photos": PLAIN,
    "name": PLAIN,
    "path": PLAIN,
    "host": VALUES.filter(lambda value: type(value) is not str),
}


@pytest.fixture(scope="module")
def public(tiny_backbone, tmp_path_factory):
    """The entries, in an empty current folder."""
    dataset = ktl.Dataset.from_arrays(np.zeros((40, 4, 4, 3), np.uint8), [0, 1] * 20)
    found = entries(tiny_classifier(tiny_backbone), dataset)
    with contextlib.chdir(tmp_path_factory.mktemp("empty")):
        yield lambda name: found[name]  # which is short to show


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@share(0.3)
def test_a_hostile_argument_is_taken_or_named_in_one_line(public, name, data):
    entry = public(name)
    parameters = inspect.signature(entry.call).parameters.values()
    argument = data.draw(st.sampled_from([each.name for each in parameters if each.kind != each.VAR_KEYWORD]))
    value = data.draw(STRATEGIES.get(argument, VALUES))
    _, refused = made_or_refused(lambda: entry.call(**{**entry.right, argument: value}))
    understood = not refused if entry.end is None else entry.end in refused
    # What is wrong about an argument that ends it may be told of the value alone.
    assert understood or f"`{argument}`" in refused or (argument in entry.right and "Received: " in refused)
    assert not os.listdir()


WRONG = {
    "fit": {
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
    },
    "run": {"output": (7, ""), "callbacks": (["early"],), "augmentation": (7,)},
    "search": {"overwrite": ("yes",)},
    "study": {"overwrite": (1,)},
    "predict": {"verbose": ("loud",)},
    "load": {"path": (None,)},
    "export": {"classifier": (7,), "output": (7, ""), "calibrate": ("yes",), "format": (7,)},
    "serve": {"port": ("8501",), "host": (None,), "allow_origins": (7,)},
    "write_report": {"folders": (7,), "output": ("",)},
    "load_dataset": {"name": (None, "", 7)},
}
"""Entry -> argument -> values that it does not take."""


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_named(public, name):
    entry = public(name)
    for argument, values in WRONG[name].items():
        for value in values:
            _, refused = made_or_refused(lambda given=value, named=argument: entry.call(**entry.right | {named: given}))
            assert f"`{argument}`" in refused, (argument, value, refused)


def test_paths_and_numbers_of_numpy_are_welcome(photo_folder):
    assert len(ktl.load_dataset(photo_folder).class_names) == 6
    config = ktl.RunConfig(dataset=Path("photos"), epochs=np.int64(3), learning_rate=np.float32(0.5), seed=np.uint8(7))
    assert (config.dataset, config.epochs, config.learning_rate, config.seed) == ("photos", 3, 0.5, 7)
    recipe = ktl.Recipe(learning_rate=np.float32(0.5), head_multiplier=np.int64(3))
    assert json.dumps(dataclasses.astuple(recipe)) == '["adamw", 0.5, 3, 1.0, 0.0, 0.0]'
    assert ktl.Caching(limit_gib=np.float16(2)).limit_gib.is_integer()
    assert fits(np.int32(3), int)
    assert fits(np.float32(3), float)
    assert fits(np.bool_(True), bool)
    assert not fits(True, int)
    assert not fits(np.bool_(True), float)


def test_verbose_may_be_true_or_false(public):
    entry = public("predict")
    for verbose in (True, False, 0, 1):
        with pytest.raises(UserError, match=f"{entry.end}$"):
            entry.call(**entry.right, verbose=verbose)


def test_a_number_below_its_limit_is_told_of_the_limit():
    for make in (lambda: ktl.Recipe(learning_rate=-1), lambda: ktl.Caching(limit_gib=-1)):
        with pytest.raises(UserError, match=r"^Expected `\w+` to be at least 0. Received: -1$"):
            make()
    with pytest.raises(UserError, match=r"^Expected `learning_rate` to be a finite number. Received: inf$"):
        ktl.Recipe(learning_rate=float("inf"))


def test_a_checked_function_looks_like_itself():
    assert "Trains a classifier" in inspect.getdoc(ktl.fit)
    assert list(inspect.signature(ktl.fit).parameters)[:2] == ["classifier", "dataset"]
    assert inspect.getfullargspec(ktl.fit).args == ["classifier", "dataset"]
    with pytest.raises(TypeError, match="unexpected"):
        ktl.fit(None, None, epoch=3)
