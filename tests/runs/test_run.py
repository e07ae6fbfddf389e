"""A run from its settings to a finished folder: what it takes, what makes it the same run, and what it writes."""

import csv
import dataclasses
import json
import math
import os
import shutil

import keras
import numpy as np
import pytest
from support import Interrupt, Listener, as_dataset, edit_json, one_line
from tiny import CLASSES

from ktl.config.settings import RunConfig, SearchConfig, StudyConfig
from ktl.data.dataset import Dataset
from ktl.data.duplicates import find_duplicates, read_duplicates
from ktl.data.input_pipeline import PhotoCache, evaluation_batches
from ktl.data.loading import load_dataset
from ktl.errors import UserError
from ktl.files import read_json
from ktl.runs.run import default_output, run
from ktl.runs.run_folder import RunFolder
from ktl.runs.session import Extras, Session

CONFIG = RunConfig(dataset="./no-such-folder")
DATASET = Dataset.from_arrays(np.zeros((12, 4, 4, 3), np.uint8), [0, 1] * 6)
MODEL = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "deep" / "run", CONFIG)


@pytest.fixture(scope="module")
def settings(tiny_backbone, photo_folder):
    """Of a quick run."""
    common = {"dataset": str(photo_folder), "backbone": str(tiny_backbone), "freeze_depth": "all"}
    return {**common, "epochs": 2, "batch_size": 16, "least_steps": 1, "cache": "off", "learning_rate": 0.01}


@pytest.fixture(scope="module")
def of_one_epoch(settings):
    return {**settings, "epochs": 1, "class_weight": "balanced", "augmentation": "none"}


@pytest.fixture(scope="module")
def plain(of_one_epoch, tmp_path_factory):
    """The folder of a run without extras, its result and its history. Do not write here."""
    path, listener = tmp_path_factory.mktemp("plain") / "run", Listener()
    return path, run(**of_one_epoch, output=path, verbose=listener), listener.rows


def snapshot(folder) -> dict:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()}


# What it takes


def test_settings_are_a_config_or_keywords_and_the_folder_has_a_default(of_one_epoch, plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = RunConfig(**of_one_epoch)
    result = run(config, verbose=0)
    for name in ("test", "validation", "settings", "epochs"):
        assert result[name] == plain[1][name]
    assert read_json(default_output(config) / "result.json") == result


@pytest.mark.parametrize(
    ("config", "keywords", "message"),
    [
        (
            CONFIG,
            {"epochs": 3, "seed": 1},
            r"^Expected a RunConfig, or its settings as keywords.*: both, epochs, seed$",
        ),
        (CONFIG, {"class_weight": {0: -1}}, r"a number from 0\. Received: {0: -1}$"),
        (CONFIG, {"class_weight": {0: float("nan")}}, r"a number from 0\. Received: {0: nan}$"),
        (CONFIG, {"class_weight": [1, 2]}, r"^Expected `class_weight` to be .*: \[1, 2\]$"),
        (CONFIG, {"augmentation": 5}, r"^Expected `augmentation` to be .*function.*\. Received: 5$"),
        (StudyConfig(dataset="x"), {}, r"to be a RunConfig .* Received: StudyConfig\("),
        ({"dataset": "x"}, {}, r"to be a RunConfig .* Received: {'dataset': 'x'}$"),
        (
            None,
            {"dataset": "x", "epoch": 3, "lr": 1},
            r"^Expected settings of: dataset, .*, epochs, .*: epoch, lr$",
        ),
        (None, {"epochs": 3}, r"^Expected `dataset`, a name or a path\. Received: none$"),
        (None, {}, r"^Expected `dataset`"),
        (
            None,
            {"dataset": DATASET},
            r"^Expected `dataset` as a name or a path.* Received: a Dataset\. `ktl.fit` trains",
        ),
        (None, {"dataset": "x", "backbone": MODEL}, r"^Expected `backbone` as .* Received: a Model\. Save it"),
        (None, {"dataset": "x", "class_weight": "even"}, r"class_weight.* Received: even"),
        (None, {"dataset": "x", "augmentation": "much"}, r"augmentation.* Received: much"),
        (None, {"dataset": "x", "verbose": 3}, r"`verbose` to be 0, 1 or a Reporter\. Received: 3$"),
    ],
)
def test_what_it_does_not_take_is_refused_in_one_line(tmp_path, monkeypatch, config, keywords, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        run(config, **keywords)
    one_line(caught)
    assert os.listdir(tmp_path) == []


def test_the_default_folder_is_named_after_the_settings():
    path = default_output(RunConfig(dataset="/data/my flowers/", backbone="/models/net.keras"))
    assert path.parts[0] == "runs"
    assert path.name.startswith("my flowers-net-kept-")
    assert default_output(SearchConfig(dataset="flowers", backbone="net")).name.startswith("flowers-net-search-")
    assert default_output(StudyConfig(dataset="flowers", backbone="net")).name.startswith("flowers-net-study-")
    assert default_output(CONFIG) == default_output(RunConfig(dataset=CONFIG.dataset))
    assert default_output(CONFIG) != default_output(dataclasses.replace(CONFIG, seed=1))
    assert ":" not in str(default_output(RunConfig(dataset="cifar10:3.0.2")))


# What makes it the same run


def test_a_run_whose_photos_have_changed_meanwhile_does_not_go_on(of_one_epoch, plain, tmp_path):
    shutil.copytree(of_one_epoch["dataset"], tmp_path / "photos")
    shutil.copytree(plain[0], tmp_path / "out")
    (tmp_path / "out" / "result.json").unlink()
    (tmp_path / "out" / "checkpoint").mkdir()  # as if it had been killed
    of_copies = {**of_one_epoch, "dataset": str(tmp_path / "photos")}
    edit_json(tmp_path / "out" / "config.json", dataset=of_copies["dataset"])
    first = sorted((tmp_path / "photos" / "class0").iterdir())[0]
    shutil.copy(first, first.with_name("aaa.png"))
    with pytest.raises(UserError, match="began with"):
        run(**of_copies, output=tmp_path / "out", verbose=0)


def test_a_finished_run_is_given_back_and_not_trained_again(finished, tmp_path):
    path, result = tmp_path / "run", finished[1]
    shutil.copytree(finished[0], path)
    started = snapshot(path)
    (path / "checkpoint").mkdir()  # as if it had been killed just after its end
    listener = Listener()
    assert run(RunConfig.from_dict(result["settings"]), output=path, verbose=listener) == result
    assert snapshot(path) == started
    assert not (path / "checkpoint").exists()
    assert listener.messages == []


def darker(pixels, generator):
    return (pixels * generator.uniform(0.5, 1)).astype("uint8")


class Brighter:
    def __call__(self, pixels, generator):
        return pixels


class Silent(keras.callbacks.Callback):
    pass


HERE = darker.__module__
EXTRAS = {
    "callbacks": ((Silent(), Silent()), [f"{HERE}.Silent", f"{HERE}.Silent"]),
    "class_weight": ({4: 2, 1: 0.5}, {"1": 0.5, "4": 2.0}),
    "augmentation": (darker, Extras(augmentation=darker).recorded["augmentation"]),  # with a digest of its code
}


def test_what_no_setting_can_say_belongs_to_the_run(settings, tmp_path):
    """Interrupted with it, it does not go on without it, or with another, but with the same."""
    extras = {name: value for name, (value, _) in EXTRAS.items()}
    with pytest.raises(Interrupt):
        run(**settings, **extras, output=tmp_path, verbose=Listener(interrupt_after=1))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["extras"] == {name: recorded for name, (_, recorded) in EXTRAS.items()}

    def assert_other_extras_are_refused():
        before = snapshot(tmp_path)
        others = {"callbacks": [Silent()], "class_weight": {1: 9.0}, "augmentation": Brighter()}
        without = [{other: value for other, value in extras.items() if other != name} for name in extras]
        for wrong in ({}, *without, *({**extras, name: other} for name, other in others.items())):
            with pytest.raises(UserError, match=r"^Expected the settings of the run in .*extras \{") as caught:
                run(**settings, **wrong, output=tmp_path, verbose=0)
            assert str(config["extras"]) in one_line(caught)
        assert snapshot(tmp_path) == before

    assert_other_extras_are_refused()
    listener = Listener()
    result = run(**settings, **extras, output=tmp_path, verbose=listener)
    assert [row["epoch"] for row in listener.rows] == [2]
    assert_other_extras_are_refused()  # of a finished run too
    again = {**extras, "class_weight": {1: 0.5, 4: 2}}
    assert run(**settings, **again, output=tmp_path, verbose=0) == result


def test_a_run_without_extras_is_not_one_with_some(of_one_epoch, plain):
    config = json.loads((plain[0] / "config.json").read_text())
    assert (config["class_weight"], config["augmentation"]) == ("balanced", "none"), "words for them are settings"
    assert "extras" not in config
    with pytest.raises(UserError, match=r"extras None there, \{'class_weight': \{'1': 2\.0\}\} here"):
        run(**{**of_one_epoch, "class_weight": {1: 2.0}}, output=plain[0], verbose=0)


def test_extras_change_the_numbers(of_one_epoch, plain, tmp_path):
    """Each loss of the first epoch is another; a callback sees the classifier, and changes none."""
    seen = []

    class Watcher(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(type(self.model).__name__)

    config, losses = RunConfig(**of_one_epoch), {"plain": plain[2][0]["loss"]}
    for name, extra in {
        "callbacks": {"callbacks": [Watcher()]},
        "class_weight": {"class_weight": {0: 5.0}},
        "augmentation": {"augmentation": darker},
    }.items():
        session = Session(config, load_dataset(config.dataset), extras=Extras(**extra))
        losses[name] = session.prepare().fit(tmp_path / name)[0]["loss"]
    assert losses.pop("callbacks") == losses["plain"]
    assert len(set(losses.values())) == 3
    assert seen == ["TransferClassifier"]


def test_a_function_and_a_cache_exclude_each_other(settings, tmp_path):
    with pytest.raises(UserError, match=r"`augmentation` is a function\. Received: on$"):
        run(**{**settings, "cache": "on"}, augmentation=darker, output=tmp_path, verbose=0)


# What it writes


@pytest.fixture(scope="module")
def finished(tiny_backbone, photo_folder, tmp_path_factory):
    """A run's folder, its result and its history. Do not write here."""
    path = tmp_path_factory.mktemp("finished") / "run"
    listener = Listener()
    settings = {"dataset": str(photo_folder), "backbone": str(tiny_backbone), "freeze_depth": "block_relu"}
    result = run(**settings, epochs=3, batch_size=8, learning_rate=0.003, cache="off", output=path, verbose=listener)
    return path, result, listener


def test_every_file_is_there_and_no_other(finished):
    path, _, _ = finished
    assert set(os.listdir(path)) == {
        *("config.json", "dataset.json", "environment.json", "result.json"),
        *("history.csv", "predictions.csv", "confusion.csv", "classes.csv", "duplicates.csv"),
        *("labels.txt", "model.keras", "probabilities.npz", "checksums.json"),
    }


def test_every_json_file_says_its_format(finished):
    path, _, _ = finished
    versions = {file.name: json.loads(file.read_text()).get("format_version") for file in path.rglob("*.json")}
    names = ("config.json", "dataset.json", "environment.json", "result.json", "checksums.json")
    assert versions == dict.fromkeys(names, 1)


def test_the_result_is_that_of_the_file(finished):
    path, result, _ = finished
    assert read_json(path / "result.json") == result


def test_the_model_gives_the_scores_and_the_probabilities(finished):
    path, result, _ = finished
    model, dataset = keras.models.load_model(path / "model.keras"), load_dataset(result["settings"]["dataset"])
    assert type(model).__name__ == "Functional"
    assert not model.compiled
    for split in (dataset.validation, dataset.test):
        photos = evaluation_batches(split, image_size=42, batch_size=8, cache=PhotoCache(memory_gib=0))
        logits = model.predict(as_dataset(photos), verbose=0).astype("float64")
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        with np.load(path / "probabilities.npz") as file:
            np.testing.assert_allclose(file[split.name], expected, rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(file[f"{split.name}_labels"], split.labels)
        assert result[split.name]["top1"] == pytest.approx(np.mean(expected.argmax(axis=1) == split.labels))


def test_the_numbers_of_the_result(finished):
    path, result, listener = finished
    dataset = load_dataset(result["settings"]["dataset"])
    model = keras.models.load_model(path / "model.keras")
    total = sum(math.prod(variable.shape) for variable in model.weights)
    counts = result["parameters"]
    point, kept, scale, new = 16 * 24 + 24, 24 * 20 + 20, 20, 20 * 6 + 6
    trained = point + kept + scale + new
    assert counts == {"total": total, "frozen": total - trained, "trained": trained}
    assert result["frozen_up_to"] == "block_relu"
    assert result["photos"] == {split.name: len(split) for split in dataset.splits}
    assert (result["bad_photos"], result["notice"]) == ([], None)
    assert (result["epochs"], len(listener.rows)) == (3, 3)
    best = max(listener.rows, key=lambda row: (row["validation_top1"], -row["validation_loss"]))
    assert result["best_epoch"] == best["epoch"]
    assert result["validation"]["top1"] == pytest.approx(best["validation_top1"])
    assert result["seconds"] == pytest.approx(sum(row["seconds"] for row in listener.rows))
    assert result["machine"]["precision"] in ("float32", "mixed_float16", "mixed_bfloat16")
    settings = result["settings"]
    assert RunConfig.from_dict(settings).as_dict() == settings


def test_the_tables_have_the_photos_and_classes(finished):
    path, result, _ = finished
    dataset = load_dataset(result["settings"]["dataset"])
    with open(path / "history.csv", newline="") as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2, 3]
    with open(path / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["photo"] for row in rows] == list(dataset.test.photos)
    right = [row["label"] == row["prediction"] for row in rows]
    assert np.mean(right) == pytest.approx(result["test"]["top1"])
    with open(path / "confusion.csv", newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["label", *CLASSES]
    assert sum(int(row[place + 1]) for place, row in enumerate(table[1:])) == sum(right)
    with open(path / "classes.csv", newline="") as file:
        classes = list(csv.DictReader(file))
    assert [row["class"] for row in classes] == list(CLASSES)
    counts = np.array([[int(cell) for cell in row[1:]] for row in table[1:]])
    for row, taken, mine, hits in zip(classes, counts.sum(axis=0), counts.sum(axis=1), counts.diagonal(), strict=True):
        assert int(row["photos"]) == mine
        assert row["precision"] == (f"{hits / taken:.6f}" if taken else "")
        assert float(row["recall"]) == pytest.approx(hits / mine, abs=1e-6)
        assert float(row["f1"]) == pytest.approx(2 * hits / (mine + taken), abs=1e-6)
    assert np.mean([float(row["f1"]) for row in classes]) == pytest.approx(result["test"]["macro_f1"], abs=1e-6)
    assert (path / "labels.txt").read_text().split() == list(CLASSES)


def test_scores_without_photos_that_are_in_an_earlier_split(finished):
    """Stripes of one direction look alike."""
    path, result, _ = finished
    dataset = load_dataset(result["settings"]["dataset"])
    found = find_duplicates(dataset)
    assert read_duplicates(path / "duplicates.csv") == found
    twins = {one.photo for one in found if one.split == "test"}
    for split in ("validation", "test"):
        counted = [one.exact for one in found if one.split == split]
        assert result["duplicates"][split] == {"exact": sum(counted), "near": len(counted) - sum(counted)}
    assert 0 < len(twins) < len(dataset.test)
    with open(path / "predictions.csv", newline="") as file:
        right = [row["label"] == row["prediction"] for row in csv.DictReader(file) if row["photo"] not in twins]
    assert result["without_duplicates"]["photos"] == len(right) == len(dataset.test) - len(twins)
    assert result["without_duplicates"]["test"]["top1"] == pytest.approx(np.mean(right))
    assert set(result["without_duplicates"]["test"]) == set(result["test"])


def test_random_weights_are_told_loudly(photo_folder, tmp_path):
    listener = Listener()
    settings = {"backbone": "mobilenet_0.25", "weights": "random", "freeze_depth": "nowhere"}
    with pytest.raises(UserError, match="nowhere"):
        run(dataset=str(photo_folder), **settings, output=tmp_path, verbose=listener)
    assert listener.messages == [
        "stripes: 72 photos of 6 classes: 54 train, 6 validation, 12 test (validation and test set aside from train)",
        "WARNING: random weights: there is no pre-trained layer to keep",
    ]


def test_few_validation_photos_are_told_once_and_in_the_result(finished):
    _, result, listener = finished
    assert result["warnings"] == [text for text in listener.messages if "few photos" in text]
    assert result["warnings"][0].startswith("WARNING: few photos choose the epoch: 6 for validation. One photo ")


def test_what_is_in_force_is_told(finished):
    _, _, listener = finished
    assert any(
        text.startswith("CPU, float32, XLA off, strategy none; frozen up to block_relu (depth 3 of 5, ")
        for text in listener.messages
    ), listener.messages


def test_two_processes_do_not_run_into_one_folder(settings, tmp_path):
    first = RunFolder(tmp_path, RunConfig(**settings))
    with first.held(), pytest.raises(UserError, match="no other process at work"):
        run(**settings, output=tmp_path, verbose=0)
    assert "dataset.json" not in os.listdir(tmp_path)
