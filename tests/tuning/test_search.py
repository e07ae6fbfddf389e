"""A whole search in one process: what its folder holds, and that its numbers are those of plain runs."""

import csv
import dataclasses
import functools
import itertools
import json
import os
import random
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support import Command, Interrupting, edit_json, mark_first_epoch

import ktl
from ktl.data.loading import load_dataset
from ktl.errors import DamagedError, UserError
from ktl.files import read_json, write_json
from ktl.progress import Reporter
from ktl.runs.session import Session, Training
from ktl.tuning import workers
from ktl.tuning.plan import make_plan

DEPTHS, SCALES = ("stem_relu", "block_relu"), (1.0, 10.0)
VALIDATION_PHOTOS = 6


pytestmark = pytest.mark.usefixtures("without_determinism_afterwards")


@pytest.fixture(scope="module")
def make_config(make_config):
    """Settings of searches of freeze depth and scale."""
    space = "scale=1,10,freeze_depth=stem_relu,block_relu"
    return functools.partial(make_config, space=space, freeze_depth="auto", epochs=6, keep=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_config):
    """A search over 2 x 2 points: its folder, result and settings."""
    folder = tmp_path_factory.mktemp("search") / "out"
    config = make_config()
    return folder, ktl.search(config, output=folder), config


def read_csv(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def trial_folder(folder, trial):
    return folder / "trials" / f"trial_{trial}"


def run_settings(config, **values):
    """Those of an independent run, which shares no cache with the search."""
    return config.run_config({**values, "cache_dir": f"{config.cache_dir}-of-runs"})


def best_epoch(history) -> dict:
    return max(history, key=lambda row: (float(row["validation_top1"]), -float(row["validation_loss"])))


def times(folder) -> dict:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# The folder


def test_the_folder_holds_what_it_promises_and_nothing_else(finished):
    folder = finished[0]
    names = {"config.json", "dataset.json", "environment.json", "result.json", "checksums.json"}
    names |= {"trials.csv", "heatmap.png", "trials", "best"}
    assert set(os.listdir(folder)) == names


def test_every_combination_has_one_row(finished):
    rows = read_csv(finished[0] / "trials.csv")
    assert set(itertools.product(DEPTHS, SCALES)) == {(row["freeze_depth"], float(row["scale"])) for row in rows}
    assert len(rows) == len({row["trial"] for row in rows}) == 4
    assert {row["status"] for row in rows} == {"completed"}
    assert {row["reason"] for row in rows} == {""}
    assert all(float(row["seconds"]) > 0 for row in rows)


def test_a_row_is_the_best_epoch_of_its_trials_history(finished):
    folder = finished[0]
    for row in read_csv(folder / "trials.csv"):
        state = json.loads((trial_folder(folder, row["trial"]) / "seed-0" / "state.json").read_text())
        best = best_epoch(state["history"])
        assert float(row["validation_top1"]) == best["validation_top1"]
        assert float(row["validation_loss"]) == best["validation_loss"]
        assert float(row["epochs"]) == len(state["history"])


def test_the_first_row_is_the_best_and_the_lower_loss_wins_among_equals(finished):
    folder, result, _ = finished
    rows = read_csv(folder / "trials.csv")
    keys = [(-float(row["validation_top1"]), float(row["validation_loss"])) for row in rows]
    assert keys == sorted(keys)
    assert result["best"]["trial"] == rows[0]["trial"]
    assert result["best"]["validation_top1"] == float(rows[0]["validation_top1"])
    assert result["best"]["settings"] == {"freeze_depth": rows[0]["freeze_depth"], "scale": float(rows[0]["scale"])}


def test_the_result_tells_of_the_search(finished):
    folder, result, config = finished
    assert result == read_json(folder / "result.json")
    assert result["oracle"] == "grid"
    assert result["trials"] == {"completed": 4}
    assert result["seeds"] == 1
    assert "few photos choose the epochs and the settings: 6 for validation" in result["warnings"][0]
    assert result["space"] == {"freeze_depth": list(DEPTHS), "scale": list(SCALES)}
    assert result["settings"] == config.as_dict() == read_json(folder / "config.json")


def test_only_the_kept_trials_keep_their_best_weights(finished):
    folder, result, _ = finished
    kept = [path.relative_to(folder / "trials").parts[0] for path in folder.glob("trials/*/*/best-*.npz")]
    assert kept == [f"trial_{result['best']['trial']}"]
    assert not list(folder.glob("trials/*/*/last-*.npz"))
    assert len(list(folder.glob("trials/*/*/state.json"))) == 4


def test_the_heatmap_is_a_picture(finished):
    with Image.open(finished[0] / "heatmap.png") as picture:
        assert picture.format == "PNG"
        colors = {tuple(pixel) for pixel in np.asarray(picture.convert("RGB")).reshape(-1, 3)}
        assert min(picture.size) > 200
    assert len(colors) > 20  # it shows something


# The numbers


def test_the_search_learned_and_the_settings_mattered(finished):
    """Else the tests of numbers would compare chance with chance."""
    scores = [float(row["validation_top1"]) for row in read_csv(finished[0] / "trials.csv")]
    losses = {row["validation_loss"] for row in read_csv(finished[0] / "trials.csv")}
    assert max(scores) > 0.4  # chance is 1/6
    assert len(losses) == 4


def test_the_model_that_was_scored_is_the_model_that_is_reported(finished):
    folder, result, _ = finished
    best = json.loads((folder / "best" / "result.json").read_text())
    right = best["validation"]["top1"] * VALIDATION_PHOTOS
    assert best["photos"]["validation"] == VALIDATION_PHOTOS
    assert right == pytest.approx(round(right), abs=1e-9)
    assert round(right) / VALIDATION_PHOTOS == pytest.approx(result["best"]["validation_top1"], abs=1e-7)  # a float32
    assert best["validation"] == result["validation"]
    assert best["test"] == result["test"]
    row = read_csv(folder / "trials.csv")[0]
    assert best["validation"]["log_loss"] == pytest.approx(float(row["validation_loss"]), rel=1e-6)


def test_the_saved_model_gives_that_score_and_the_recorded_predictions(finished, photo_folder):
    """The middle 42 x 42 pixels of 60 x 48, cut with NumPy."""
    best = finished[0] / "best"
    labels = (best / "labels.txt").read_text().splitlines()
    model = keras.models.load_model(best / "model.keras")

    def logits_of(photos):
        pixels = [np.asarray(Image.open(photo_folder / photo))[3:45, 9:51] for photo in photos]
        return model.predict(np.stack(pixels), verbose=0)

    rows = read_csv(best / "predictions.csv")
    predicted = logits_of([row["photo"] for row in rows]).argmax(1)
    assert [labels[i] for i in predicted] == [row["prediction"] for row in rows]
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    assert right == pytest.approx(finished[1]["test"]["top1"])

    validation = ktl.load_dataset(str(photo_folder)).validation
    right = logits_of(validation.photos).argmax(1) == validation.labels
    assert right.mean() == pytest.approx(finished[1]["best"]["validation_top1"], abs=1e-7)


def test_a_trials_score_is_that_of_a_plain_run_with_its_settings(finished, tmp_path):
    folder, result, config = finished
    rows = read_csv(folder / "trials.csv")
    for row in (rows[0], rows[-1]):
        values = {"freeze_depth": row["freeze_depth"], "scale": float(row["scale"])}
        values["cache"] = "on" if values["freeze_depth"] == "block_relu" else "auto"  # as for the trials together
        alone = ktl.run(run_settings(config, **values), output=tmp_path / row["trial"])
        history = read_csv(tmp_path / row["trial"] / "history.csv")
        best = best_epoch(history)
        assert float(row["validation_top1"]) == pytest.approx(float(best["validation_top1"]), abs=1e-6)
        assert float(row["validation_loss"]) == pytest.approx(float(best["validation_loss"]), abs=1e-6)
        assert float(row["epochs"]) == len(history)
        if row is rows[0]:
            for split in ("validation", "test"):
                assert result[split] == pytest.approx(alone[split], abs=1e-6)
            names = ("predictions.csv", "confusion.csv", "labels.txt", "config.json")
            for name in names:
                assert (folder / "best" / name).read_bytes() == (tmp_path / row["trial"] / name).read_bytes()


@pytest.mark.slow
def test_two_seeds_are_averaged(make_config, tmp_path):
    config = make_config(space="scale=10", freeze_depth="block_relu", seeds=2, seed=3)
    result = ktl.search(config, output=tmp_path / "search")
    (row,) = read_csv(tmp_path / "search" / "trials.csv")
    bests = []
    for seed in (3, 4):
        ktl.run(run_settings(config, scale=10.0, seed=seed, cache="on"), output=tmp_path / str(seed))
        bests.append(best_epoch(read_csv(tmp_path / str(seed) / "history.csv")))
    for name in ("validation_top1", "validation_loss"):
        values = [float(best[name]) for best in bests]
        assert values[0] != values[1] or name == "validation_top1"
        assert float(row[name]) == pytest.approx(np.mean(values), abs=1e-6)
    # The model is the first seed's.
    alone = json.loads((tmp_path / "3" / "result.json").read_text())
    assert result["test"] == pytest.approx(alone["test"], abs=1e-6)


# Again


def test_a_refit_trains_the_best_trial_alone_again(finished, tmp_path):
    """Validation scores stay the trial's; the model is another, and the run says so."""
    folder, plain, config = finished
    shutil.copytree(folder, tmp_path / "out")
    # As after a kill between the last trial and the refit.
    (tmp_path / "out" / "result.json").unlink()
    edit_json(tmp_path / "out" / "config.json", refit="on")
    states = times(tmp_path / "out" / "trials")
    result = ktl.search(dataclasses.replace(config, refit="on"), output=tmp_path / "out")
    assert times(tmp_path / "out" / "trials").keys() == states.keys()
    assert result["best"] == plain["best"]
    assert result["validation"] == plain["validation"]
    best = read_json(tmp_path / "out" / "best" / "result.json")
    assert best["refit"]["photos"] == best["photos"]["train"] + best["photos"]["validation"]
    assert best["refit"]["epochs"] == best["best_epoch"]
    assert (result["refit"], plain["refit"]) == (best["refit"], None)
    assert best["test"] == result["test"] != plain["test"]
    assert "--refit on" in best["command"]
    assert "--refit on" in result["command"]
    assert not list((tmp_path / "out").rglob("last-*.npz"))


def test_the_search_again_gives_its_result_and_touches_nothing(finished):
    folder, result, config = finished
    before = times(folder)
    assert ktl.search(config, output=folder) == result
    assert times(folder) == before


def test_where_and_how_fast_may_change(finished, make_config):
    folder, result, _ = finished
    assert ktl.search(make_config(keep=2, workers=2, memory_gib=1.0), output=folder) == result


def test_other_settings_are_refused_with_the_differences_and_the_ways_on(finished, make_config):
    folder, result, config = finished
    with pytest.raises(UserError, match="epochs 6 there, 5 here") as caught:
        ktl.search(make_config(epochs=5), output=folder)
    assert "`overwrite`" in str(caught.value)
    with pytest.raises(UserError, match="space"):
        ktl.search(make_config(space="scale=1,10"), output=folder)
    assert ktl.search(config, output=folder) == result


def test_a_folder_of_something_else_is_not_overwritten(make_config, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="new or empty folder"):
        ktl.search(make_config(), output=tmp_path, overwrite=True)
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_a_result_that_was_lost_is_found_again_without_training(finished):
    """As after a kill between the last trial and the result: the kept weights are enough."""
    folder, result, config = finished
    states = times(folder / "trials")
    (folder / "result.json").unlink()
    again = ktl.search(config, output=folder)
    same = set(result) - {"seconds"}
    assert {name: again[name] for name in same} == {name: result[name] for name in same}
    after = times(folder / "trials")
    assert all(after[path] == states[path] for path in states if path.name != "oracle.json")
    write_json(folder / "result.json", result)


@pytest.mark.slow
def test_overwrite_begins_anew(make_config, tmp_path):
    ktl.search(make_config(space="scale=1", epochs=1), output=tmp_path / "out")
    result = ktl.search(make_config(space="scale=3", epochs=1), output=tmp_path / "out", overwrite=True)
    assert result["space"] == {"scale": [3.0]}
    assert [row["scale"] for row in read_csv(tmp_path / "out" / "trials.csv")] == ["3.0"]


# Failures


def test_a_trial_that_fails_has_its_reason_and_the_search_goes_on(make_config, tmp_path, capfd):
    config = make_config(space="learning_rate=1e30,0.01", freeze_depth="predictions", epochs=1)
    result = ktl.search(config, output=tmp_path / "out")
    good, bad = read_csv(tmp_path / "out" / "trials.csv")
    assert (good["learning_rate"], good["status"], good["reason"]) == ("0.01", "completed", "")
    assert (bad["learning_rate"], bad["status"], bad["validation_top1"]) == ("1e+30", "failed", "")
    assert bad["reason"].startswith("Expected a finite loss.")
    assert result["trials"] == {"completed": 1, "failed": 1}
    assert result["best"]["trial"] == good["trial"]
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_search_without_a_completed_trial_is_bad_input(make_config, tmp_path):
    config = make_config(space="learning_rate=1e30,1e31", freeze_depth="predictions", epochs=1)
    with pytest.raises(UserError, match=r"at least one completed trial. Received: 2 failed: Expected a finite loss"):
        ktl.search(config, output=tmp_path / "out")
    assert [row["status"] for row in read_csv(tmp_path / "out" / "trials.csv")] == ["failed", "failed"]
    assert not (tmp_path / "out" / "result.json").exists()
    # And as a command, which finds the failed trials there and does not run them again.
    flags = ["--dataset", config.dataset, "--backbone", config.backbone, "--space", "learning_rate=1e30,1e31"]
    flags += ["--epochs", "1", "--seeds", "1", "--least-steps", "1"]
    flags += ["--freeze-depth", "predictions", "--batch-size", "8", "--learning-rate", "0.01", "--deterministic"]
    before = times(tmp_path / "out" / "trials")
    code, out, err = Command(
        "search", *flags, "--cache-dir", config.cache_dir, "--output", "out", folder=tmp_path
    ).wait()
    assert (code, out) == (2, ""), err
    assert "2 failed: Expected a finite loss" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert {path for path in before if before[path] != times(tmp_path / "out" / "trials")[path]} <= {
        tmp_path / "out" / "trials" / "oracle.json"
    }


@pytest.mark.parametrize("cache", ["on", "off"])
def test_a_photo_that_cannot_be_read_stops_a_search_before_its_first_trial(make_config, photo_folder, tmp_path, cache):
    shutil.copytree(photo_folder, tmp_path / "photos")
    broken = next((tmp_path / "photos" / "class0").iterdir())
    broken.write_bytes(broken.read_bytes()[:100])
    config = make_config(dataset=str(tmp_path / "photos"), cache=cache)
    with pytest.raises(UserError, match=broken.name):
        ktl.search(config, output=tmp_path / "out")
    assert not list((tmp_path / "out").glob("trials/trial_*"))


def test_a_worker_does_not_overwrite_its_chiefs_search(finished, tmp_path, monkeypatch):
    shutil.copytree(finished[0], tmp_path / "out")
    monkeypatch.setattr(workers, "CHIEF_START_TIMEOUT", 0.1)
    with pytest.raises(UserError, match="Expected a chief"):
        ktl.search(finished[2], output=tmp_path / "out", overwrite=True, role="worker", chief="127.0.0.1:9")
    assert times(tmp_path / "out").keys() == {
        tmp_path / "out" / path.relative_to(finished[0]) for path in times(finished[0])
    }


def test_the_shared_pass_is_what_the_trials_find(make_config, tmp_path, float32_policy):
    """In their precision; and whatever the order of the depths: networks that are cut out of the same layers freeze and
    thaw one another's."""
    space = f"scale=1 freeze_depth={','.join(reversed(DEPTHS))}"
    settings = {"cache": "on", "cache_dir": str(tmp_path / "cache"), "epochs": 1, "space": space}
    ktl.search(make_config(**settings, precision="mixed_bfloat16"), output=tmp_path / "out")
    assert len(list((tmp_path / "cache").glob("*/entry.json"))) == len(DEPTHS)


def test_the_shared_pass_is_made_where_one_trial_alone_would_not_pay_it(make_config, tmp_path):
    """Before the first trial, which would else make it for each depth anew."""
    for scales, entries in (("1", 0), ("1,3,10", 1)):
        cache = tmp_path / scales
        config = make_config(space=f"scale={scales}", freeze_depth="block_relu", epochs=3, cache_dir=str(cache))
        dataset = load_dataset(config.dataset)
        plan = make_plan(config, dataset)
        Session(config, dataset, trainings=plan.trainings).compute_features(plan.places)
        assert len(list(cache.glob("*/entry.json"))) == entries


def test_a_trial_that_was_stopped_goes_on_after_its_last_complete_epoch(make_config, tmp_path):
    """And where its weights are damaged meanwhile, that is no fault of the trial."""
    config = make_config(space="scale=10", freeze_depth="block_relu", epochs=3)
    with pytest.raises(KeyboardInterrupt):
        ktl.search(config, output=tmp_path / "out", verbose=Interrupting())
    (state,) = (tmp_path / "out" / "trials").glob("trial_*/seed-0/state.json")
    marked = mark_first_epoch(state)
    weights = state.with_name("last-2.npz")
    content = weights.read_bytes()
    weights.write_bytes(content[:-9])
    with pytest.raises(DamagedError, match=r"last-2\.npz as ktl wrote it"):
        ktl.search(config, output=tmp_path / "out")
    weights.write_bytes(content)
    assert ktl.search(config, output=tmp_path / "out")["trials"] == {"completed": 1}
    history = read_csv(tmp_path / "out" / "best" / "history.csv")
    assert float(history[0]["loss"]) == marked["loss"]
    assert len(history) == 3


def test_a_trial_without_memory_is_recorded_and_the_others_go_on(make_config, tmp_path, monkeypatch):
    fit = Training.fit

    def too_large(training, *arguments, **settings):
        if training.config.scale == 10:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
        return fit(training, *arguments, **settings)

    monkeypatch.setattr(Training, "fit", too_large)
    config = make_config(space="scale=1,10", freeze_depth="block_relu", epochs=1)
    result = ktl.search(config, output=tmp_path / "out")
    assert result["trials"] == {"completed": 1, "failed": 1}
    assert result["best"]["settings"] == {"scale": 1.0}
    assert [row["reason"] for row in read_csv(tmp_path / "out" / "trials.csv")] == ["", "OOM when allocating"]


def test_what_a_reader_of_the_results_must_know_is_told(make_config, tmp_path):
    told = []

    class Listener(Reporter):
        def message(self, text):
            told.append(text)

    config = make_config(backbone="mobilenet_0.25", weights="random", freeze_depth="nowhere", space="scale=1")
    with pytest.raises(UserError, match="nowhere"):
        ktl.search(config, output=tmp_path / "out", verbose=Listener())
    found, warning = told
    assert found.startswith("stripes: 72 photos of 6 classes: ")
    assert warning == "WARNING: random weights: there is no pre-trained layer to keep"


def test_a_bug_ends_the_search_at_once_and_is_not_the_users(make_config, tmp_path, monkeypatch):
    calls = []

    def fit(*arguments, **settings):
        calls.append(1)
        raise TypeError("ours")

    monkeypatch.setattr(Training, "fit", fit)
    with pytest.raises(Exception, match="bug") as caught:
        ktl.search(make_config(), output=tmp_path / "out")
    assert not isinstance(caught.value, UserError)
    assert isinstance(caught.value.__cause__, TypeError)
    assert len(calls) == 1


# The API


def test_settings_are_given_as_keywords_with_python_values_and_the_process_stays_as_it_was(
    make_config, tmp_path, float32_policy, capfd
):
    config = make_config()
    shared = {name: getattr(config, name) for name in ("dataset", "backbone", "cache_dir", "batch_size", "least_steps")}
    keras.config.set_dtype_policy("mixed_bfloat16")
    names = [keras.layers.Dense(1).name for _ in range(2)]  # Keras counts them
    random.seed(17)
    expected = random.Random(17).random()
    result = ktl.search(
        **shared,
        space={"scale": [1, 10], "freeze_depth": ["all"]},
        epochs=1,
        precision="float32",
        output=tmp_path / "out",
        verbose=0,
    )
    assert result["space"] == {"freeze_depth": ["all"], "scale": [1.0, 10.0]}
    assert result["trials"] == {"completed": 2}
    assert random.random() == expected
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    first, second = (int(name.rpartition("_")[2]) for name in (names[1], keras.layers.Dense(1).name))
    assert second == first + 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"space": {"scal": [1]}}, "scal"),
        ({"freeze": 3}, "freeze"),
        ({"role": "boss"}, "`role`"),
        ({"space": {"scale": []}}, "scale"),
    ],
)
def test_bad_keywords_are_told_in_one_line(settings, told, tmp_path):
    with pytest.raises(UserError, match=rf"^[^\n]*{told}[^\n]*$"):
        ktl.search(dataset="x", output=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def by_macro_f1(make_config, tmp_path_factory):
    """A search with another objective: its folder and result."""
    folder = tmp_path_factory.mktemp("macro_f1") / "out"
    config = make_config(space="scale=1,10,100", objective="macro_f1", freeze_depth="block_relu", epochs=3)
    return folder, ktl.search(config, output=folder)


def test_a_search_goes_by_its_objective(by_macro_f1):
    folder, result = by_macro_f1
    rows = read_csv(folder / "trials.csv")
    scores = [float(row["validation_macro_f1"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert result["best"]["validation_score"] == scores[0]
    assert result["best"]["validation_top1"] == float(rows[0]["validation_top1"])
    history = read_csv(folder / "best" / "history.csv")
    assert max(float(row["validation_macro_f1"]) for row in history) == pytest.approx(scores[0], abs=1e-6)
    assert result["validation"]["macro_f1"] == pytest.approx(scores[0], abs=1e-6)


def test_a_pass_that_paid_for_all_trials_is_in_the_settings_of_the_best(by_macro_f1):
    """One trial alone would not pay it, see `test_the_shared_pass_is_made_where_one_trial_alone_would_not_pay_it`."""
    folder, result = by_macro_f1
    caches = (result["settings"], json.loads((folder / "best" / "config.json").read_text()))
    assert [settings["cache"] for settings in caches] == ["auto", "on"]
