"""The commands as users give them: in processes of their own, from a folder of photos to a folder of results."""

import csv
import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from support import REPOSITORY, Command

from ktl.cli.main import main
from ktl.config.settings import RunConfig
from ktl.files import read_json
from ktl.runs.run import default_output

SCORES = {"top1", "top5", "mean_class_accuracy", "macro_f1", "log_loss", "ece"}
FILES = {
    "config.json",
    "dataset.json",
    "environment.json",
    "history.csv",
    "result.json",
    "model.keras",
    "labels.txt",
    "predictions.csv",
    "confusion.csv",
    "classes.csv",
    "duplicates.csv",
    "probabilities.npz",
    "checksums.json",
}
SIZE = 42


def run_flags(photos, backbone) -> list[str]:
    settings = {
        "dataset": photos,
        "backbone": backbone,
        "freeze_depth": "stem_relu",
        "cache": "off",
        "epochs": 4,
        "batch_size": 8,
        "learning_rate": 0.003,
    }
    return [part for name, value in settings.items() for part in ("--" + name.replace("_", "-"), str(value))]


def plain_environment() -> dict:
    """A user's, who has set no log level."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "120"}


def read_csv(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, photo_folder, tiny_backbone):
    """`python experiments/run.py ... --json`, as it was called, and its folder."""
    folder = tmp_path_factory.mktemp("finished")
    script = str(REPOSITORY / "experiments" / "run.py")
    command = [sys.executable, script, *run_flags(photo_folder, tiny_backbone), "--output", "out", "--json"]
    done = subprocess.run(command, cwd=folder, env=plain_environment(), capture_output=True, text=True, timeout=300)
    return done, folder


def test_json_is_one_object_on_standard_output(finished):
    done, folder = finished
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    for split in ("validation", "test"):
        assert set(result[split]) == SCORES
        assert all(0 <= result[split][name] <= 1 for name in SCORES - {"log_loss"})
    assert set(result) >= {"settings", "seconds", "parameters"}
    assert result["settings"]["epochs"] == 4
    assert result["seconds"] > 0
    assert result == read_json(folder / "out" / "result.json")


def test_progress_is_on_standard_error_and_without_noise(finished):
    lines = finished[0].stderr.splitlines()
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/4", "2/4", "3/4", "4/4"]
    assert all("images/s" in line and line.endswith("left") for line in epochs)
    assert ": 72 photos of 6 classes: " in lines[0]
    assert "float32" in lines[1]
    assert "XLA off" in lines[1]
    assert "frozen up to stem_relu" in lines[1]
    assert lines[-1].startswith("WARNING: few photos choose the epoch")
    assert len(lines) <= 8, lines


def test_the_folder_is_complete_and_agrees_with_itself(finished, photo_folder):
    out = finished[1] / "out"
    assert set(os.listdir(out)) == FILES
    result = json.loads((out / "result.json").read_text())
    labels = (out / "labels.txt").read_text().splitlines()
    assert labels == sorted(path.name for path in photo_folder.iterdir())
    history = read_csv(out / "history.csv")
    assert [row["epoch"] for row in history] == ["1", "2", "3", "4"]
    best = max(history, key=lambda row: (float(row["validation_top1"]), -float(row["validation_loss"])))
    assert result["best_epoch"] == int(best["epoch"])
    # The validation score is that of the best epoch's weights.
    assert result["validation"]["top1"] == pytest.approx(float(best["validation_top1"]))
    assert result["validation"]["log_loss"] == pytest.approx(float(best["validation_loss"]), rel=1e-4)
    predictions = read_csv(out / "predictions.csv")
    assert len(predictions) == result["photos"]["test"] == 12
    assert all(row["label"] == row["photo"].split("/")[0] for row in predictions)
    right = [row["label"] == row["prediction"] for row in predictions]
    assert np.mean(right) == pytest.approx(result["test"]["top1"])
    confusion = read_csv(out / "confusion.csv")
    assert [row["label"] for row in confusion] == labels
    counts = np.array([[int(row[name]) for name in labels] for row in confusion])
    assert counts.sum() == 12
    assert np.trace(counts) == sum(right)
    assert json.loads((out / "environment.json").read_text())["precision"] == "float32"


def test_the_saved_model_gives_the_recorded_predictions(finished, photo_folder):
    """By Keras alone: nothing of ktl's photo code, as the photos are cropped with NumPy."""
    out = finished[1] / "out"
    predictions, labels = read_csv(out / "predictions.csv"), (out / "labels.txt").read_text().splitlines()
    # Photos are 60 x 48 and 48 = 42 / 0.875: nothing to resize, and the middle 42 x 42 pixels are the evaluation view.
    photos = [np.asarray(Image.open(photo_folder / row["photo"])) for row in predictions]
    assert {photo.shape for photo in photos} == {(48, 60, 3)}
    views = np.stack([photo[3:45, 9:51] for photo in photos])
    logits = keras.models.load_model(out / "model.keras").predict(views, verbose=0).astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert [labels[i] for i in probabilities.argmax(1)] == [row["prediction"] for row in predictions]
    recorded = [float(row["probability"]) for row in predictions]
    np.testing.assert_allclose(probabilities.max(1), recorded, atol=2e-5)
    truth = [labels.index(row["label"]) for row in predictions]
    log_loss = json.loads((out / "result.json").read_text())["test"]["log_loss"]
    assert -np.log(probabilities[np.arange(12), truth]).mean() == pytest.approx(log_loss, rel=1e-4)


def test_the_command_again_prints_the_table_and_trains_nothing(finished, photo_folder, tiny_backbone):
    folder = finished[1]
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "out").iterdir()}
    code, out, err = Command("run", *run_flags(photo_folder, tiny_backbone), "--output", "out", folder=folder).wait()
    assert (code, err) == (0, "")
    result = json.loads((folder / "out" / "result.json").read_text())
    for name in ("top-1", "top-5", "mean class accuracy", "log loss", "expected calibration error"):
        assert out.count(f"│ {name}") == 1
    assert f"{result['test']['log_loss']:.4f}" in out
    assert out.endswith("out\n")
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "out").iterdir()} == before


def test_other_settings_in_the_folder_are_refused(finished, photo_folder, tiny_backbone):
    flags = [*run_flags(photo_folder, tiny_backbone), "--output", "out", "--seed", "3"]
    code, out, err = Command("run", *flags, folder=finished[1]).wait()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "seed 0 there, 3 here" in err


BAD = {
    "unknown data set": (["--dataset", "stanford_cats"], "stanford_cats"),
    "missing folder": (["--dataset", "./nowhere"], "./nowhere"),
    "missing csv": (["--dataset", "photos.csv"], "photos.csv"),
    "empty folder": (["--dataset", "empty"], "empty"),
    "unknown head": (["--head", "neck"], "neck"),
    "unknown backbone": (["--backbone", "resnet51"], "resnet51"),
    "missing backbone file": (["--backbone", "net.keras"], "net.keras"),
    "backbone file of something else": (["--backbone", "text.keras"], "text.keras"),
    "wrong weights": (["--backbone", "mobilenet_0.25", "--weights", "text.weights.h5"], "text.weights.h5"),
    "missing weights": (["--backbone", "mobilenet_0.25", "--weights", "no.weights.h5"], "no.weights.h5"),
    "freeze depth": (["--freeze-depth", "conv_99"], "Received: conv_99"),
    "bad number": (["--epochs", "many"], "many"),
    "number out of range": (["--label-smoothing", "2"], "Received: 2.0"),
    "unknown flag": (["--epoch-count", "3"], "--epoch-count 3. ktl run --help lists"),
    "output is a file": (["--output", "text.keras"], "text.keras"),
    "corrupt photo": (["--dataset", "corrupt"], "class2/04.png"),
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory, photo_folder, tiny_backbone):
    """Every bad command, two at a time, and the last one's repair."""
    folder = tmp_path_factory.mktemp("failures")
    (folder / "empty").mkdir()
    for name in ("text.keras", "text.weights.h5"):
        (folder / name).write_text("a text")
    shutil.copytree(photo_folder, folder / "corrupt")
    (folder / "corrupt" / "class2" / "04.png").write_bytes(b"\x89PNG and no more")
    cases = {name: flags for name, (flags, _) in BAD.items()}
    cases["skip"] = ["--dataset", "corrupt", "--on-bad-image", "skip", "--epochs", "1", "--json"]
    done, waiting = {}, []
    for index, (name, flags) in enumerate(cases.items()):
        arguments = ["run", *run_flags(photo_folder, tiny_backbone), "--output", f"out-{index}", *flags]
        waiting.append((name, Command(*arguments, folder=folder)))
        if len(waiting) == 2:
            done |= {name: command.wait() for name, command in waiting}
            waiting = []
    return done | {name: command.wait() for name, command in waiting}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_exit_code_2_and_one_line(failures, name):
    code, out, err = failures[name]
    assert (code, out) == (2, ""), err
    # What the run says of itself and of the data set before it comes to the fault is no error.
    lines = [line for line in err.splitlines() if not line.startswith(("CPU, ", "cache off", "corrupt: ", "stripes: "))]
    assert len(lines) == 1, err
    assert lines[0].startswith("ktl")
    assert BAD[name][1] in lines[0]


def test_unknown_names_come_with_those_that_exist(failures):
    assert "kept_batchnorm" in failures["unknown head"][2]
    assert "mobilenet_0.75" in failures["unknown backbone"][2]
    assert "depthwise_relu" in failures["freeze depth"][2]


def test_skip_leaves_the_corrupt_photo_out_and_lists_it(failures):
    code, out, err = failures["skip"]
    assert code == 0, err
    result = json.loads(out)
    (bad,) = result["bad_photos"]
    assert bad["photo"] == "class2/04.png"
    assert bad["reason"]
    assert sum(result["photos"].values()) == 71
    assert "skipped 1 photo" in err


def test_tables_of_backbones_and_boundaries(tmp_path):
    commands = [
        Command("backbones", folder=tmp_path),
        Command("backbones", "vgg16", "mobilenet_0.25", folder=tmp_path),
        Command("boundaries", "mobilenet_0.25", "--image-size", "64", folder=tmp_path),
        Command("backbones", "vgg17", folder=tmp_path),
    ]
    everything, some, boundaries, unknown = (command.wait() for command in commands)
    assert [answer[0] for answer in (everything, some, boundaries, unknown)] == [0, 0, 0, 2]
    from ktl.models.backbones import BACKBONES

    assert all(f" {name} " in everything[1] for name in BACKBONES)
    assert "138,357,544" in some[1]  # as the Keras documentation has it
    assert "resnet50" not in some[1]
    for part in ("conv_pw_13_relu", "none", "28", "475,544", "100.0%"):
        assert part in boundaries[1]
    assert unknown[2].count("\n") == 1


def test_without_output_the_folder_is_named_after_the_settings(finished, photo_folder, tiny_backbone):
    """Found there, a finished run is given back."""
    settings = read_json(finished[1] / "out" / "config.json")
    home = finished[1] / default_output(RunConfig(**settings))
    shutil.copytree(finished[1] / "out", home)
    code, out, err = Command("run", *run_flags(photo_folder, tiny_backbone), "--json", folder=finished[1]).wait()
    assert (code, err) == (0, "")
    assert json.loads(out) == read_json(home / "result.json")


@pytest.mark.parametrize(("output", "export"), [("out", "out"), ("new/out", "new"), ("new/../out", "./out")])
@pytest.mark.parametrize("command", ["run", "search"])
def test_an_export_in_whose_folder_the_results_go_is_refused_before_any_work(
    tmp_path, photo_folder, tiny_backbone, capsys, monkeypatch, command, output, export
):
    monkeypatch.chdir(tmp_path)
    flags = [*run_flags(photo_folder, tiny_backbone), "--output", output, "--export", export]
    assert main([command, *flags]) == 2
    line = capsys.readouterr().err
    assert line.startswith("ktl: Expected --export to be a folder of its own. Received: ")
    assert line.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
