"""A small study of real runs: what it writes, against numpy on what its runs recorded; its parts by their formulas."""

import collections
import csv
import dataclasses
import itertools
import json
import os
import random
import shlex
import shutil

import keras
import numpy as np
import pytest
from recomputed import assert_follows_from_its_photos
from sklearn.linear_model import LogisticRegression
from support import Command, Heard, Interrupting, few_tries, mark_first_epoch

import ktl
from ktl.cli.flags import config_from
from ktl.cli.main import build_parser
from ktl.config.settings import StudyConfig
from ktl.data.duplicates import find_duplicates, read_duplicates
from ktl.data.imagenet_classes import synsets
from ktl.data.loading import load_dataset
from ktl.data.views import view_of
from ktl.errors import UserError
from ktl.evaluation.intervals import wilson_interval
from ktl.files import write_json
from ktl.models.backbones import build_backbone
from ktl.studies import design
from ktl.studies.evidence import read_evidence
from ktl.studies.records import Part
from ktl.studies.study import study

HEADS, DEPTHS, SEEDS, SHOTS = ("kept", "replaced"), ("block_relu", "all"), (3, 4), 3

TRIES, RUNGS = 2, (1, 2)
"""Of each head at each depth; epochs after which they are compared."""


@pytest.fixture(scope="module", autouse=True)
def two_tries():
    with few_tries():
        yield


NUMBERS = {"class0": [833, 34], "class2": [15], "class5": [300]}
"""Class -> places of the classes of ImageNet that it is said to be: those that make some of the answers right."""


@pytest.fixture(scope="module")
def backbone(tiny_backbone, tmp_path_factory) -> str:
    """The tiny backbone with as many outputs as ImageNet has classes."""
    keras.utils.set_random_seed(1)
    model = keras.models.load_model(tiny_backbone)
    logits = keras.layers.Dense(1000, name="logits")(model.layers[-2].output)
    path = tmp_path_factory.mktemp("backbone") / "thousand.keras"
    keras.Model(model.input, logits).save(path)
    return str(path)


@pytest.fixture(scope="module")
def config(photo_folder, backbone, tmp_path_factory) -> StudyConfig:
    mapping = tmp_path_factory.mktemp("synsets") / "synsets.csv"
    rows = [f"{name},{synsets()[number].id}\n" for name, numbers in NUMBERS.items() for number in numbers]
    mapping.write_text("class,synset\n" + "".join(rows))
    return StudyConfig(
        dataset=str(photo_folder),
        backbone=backbone,
        synsets=str(mapping),
        heads=",".join(HEADS),
        depths=",".join(DEPTHS),
        shares="none",
        shots=f"{SHOTS}",
        seeds=2,
        seed=3,
        epochs=3,
        least_steps=1,
        batch_size=8,
        cache_dir=str(tmp_path_factory.mktemp("cache")),
    )


@pytest.fixture(scope="module")
def listener() -> Heard:
    return Heard()


@pytest.fixture(scope="module")
def finished(config, listener, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "out"
    return folder, study(config, output=folder, verbose=listener)


def read_csv(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def recorded(folder, name="run.json") -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((folder / "runs").glob(f"*/{name}"))]


def is_whole(row) -> bool:
    """Whether a run, or a row of summary.csv, is of all training photos."""
    return float(row["share"]) == 1 and row["shots"] in (None, "")


def part_of_row(row) -> tuple:
    return float(row["share"]), None if row["shots"] in (None, "") else int(row["shots"])


def correct(folder, head, depth, part=(1.0, None)) -> np.ndarray:
    """bool [seeds, photos]."""
    wanted = (head, depth, part)
    runs = [run for run in recorded(folder) if (run["head"], run["freeze_depth"], part_of_row(run)) == wanted]
    return np.array([run["correct"] for run in sorted(runs, key=lambda run: run["seed"])], bool)


def test_every_head_has_every_depth_and_seed_once(finished):
    rows = read_csv(finished[0] / "runs.csv")
    full = [(row["head"], row["freeze_depth"], int(row["seed"])) for row in rows if is_whole(row)]
    assert sorted(full) == sorted((head, depth, seed) for head in HEADS for depth in DEPTHS for seed in SEEDS)
    assert all(len(value) < 40 for row in rows for value in row.values()), "no list of photos"


def place_of(row) -> tuple:
    return row["head"], row["freeze_depth"], part_of_row(row)


def test_every_head_is_tuned_wherever_it_is_compared_equally_often_and_never_tested_by_that(finished):
    folder, result = finished
    compared = {place_of(run) for run in recorded(folder)}
    assert {place_of(row) for row in result["tuned"]} == compared
    for epochs, tries in zip(RUNGS, (TRIES, TRIES // 2), strict=True):
        runs = recorded(folder, f"tried-{epochs}.json")
        assert collections.Counter(map(place_of, runs)) == dict.fromkeys(compared, tries)
        assert all("correct" not in run and "validation_correct" not in run for run in runs)
        assert {run["seed"] for run in runs}.isdisjoint(SEEDS), "a run repeats a try that was chosen"
        assert {run["epochs"] for run in runs} == {epochs}


def merit(run) -> tuple:
    return run["validation_top1"], -run["validation_loss"]


def settings_of(row) -> tuple:
    return tuple(float(row[name]) for name in ("learning_rate", "scale", "head_multiplier"))


def test_validation_chooses_the_settings_of_each_head_at_each_depth(finished):
    folder, result = finished
    for row in result["tuned"]:
        first, last = (
            [run for run in recorded(folder, f"tried-{epochs}.json") if place_of(run) == place_of(row)]
            for epochs in RUNGS
        )

        assert {settings_of(run) for run in last} == {
            settings_of(run) for run in sorted(first, key=lambda run: run["validation_loss"])[: TRIES // 2]
        }
        assert settings_of(max(last, key=merit)) == settings_of(row)
        runs = [run for run in recorded(folder) if place_of(run) == place_of(row)]
        assert {run["seed"] for run in runs} == set(SEEDS)
        assert {settings_of(run) for run in runs} == {settings_of(row)}


def test_all_tries_are_listed_and_the_chosen_one_marked(finished):
    folder, result = finished
    rows = read_csv(folder / "tries.csv")
    assert len(rows) == TRIES * len(result["tuned"])
    chosen = [row for row in rows if row["chosen"] == "1"]
    for row, tuned in zip(chosen, result["tuned"], strict=True):
        assert place_of(row) == place_of(tuned)
        assert settings_of(row) == settings_of(tuned)
    assert {int(row["epochs"]) for row in chosen} == {RUNGS[-1]}


def test_validation_chooses_the_depth(finished):
    folder, result = finished
    for row in result["best"]:
        means = {
            depth: np.mean(
                [
                    run["validation_top1"]
                    for run in recorded(folder)
                    if place_of(run) == (row["head"], depth, (1.0, None))
                ]
            )
            for depth in DEPTHS
        }
        assert means[row["freeze_depth"]] == max(means.values())


def test_the_command_trains_the_best_by_validation(finished, config):
    folder, result = finished
    rows = list(filter(is_whole, read_csv(folder / "summary.csv")))
    highest = max(float(row["validation_top1"]) for row in rows)
    words = shlex.split(result["chosen"]["command"])
    assert words[:2] == ["python", "experiments/run.py"]
    settings = vars(config_from(build_parser().parse_args(["run", *words[2:]])))
    best = [row for row in rows if float(row["validation_top1"]) == highest]
    assert (settings["head"], settings["freeze_depth"]) in [(row["head"], row["freeze_depth"]) for row in best]
    place = settings["head"], settings["freeze_depth"], (1.0, None)
    (tuned,) = [row for row in result["tuned"] if place_of(row) == place]
    assert all(settings[name] == tuned[name] for name in ("learning_rate", "scale", "head_multiplier"))
    same = config.run_config({}).as_dict().keys() & config.as_dict().keys() - {*config.VARIED, "cache"}
    assert {name: settings[name] for name in same} == {name: getattr(config, name) for name in same}
    alone = {"stem_relu": "auto"}  # so little is frozen there that the pass does not even pay for all runs together
    assert (config.cache, settings["cache"]) == ("auto", alone.get(settings["freeze_depth"], "on"))


def test_parts_of_the_data_are_compared_at_each_heads_best_depth_and_at_the_baselines(finished):
    folder, result = finished
    best = {row["head"]: row["freeze_depth"] for row in result["best"]}
    places = {*best.items(), *((head, best["replaced"]) for head in HEADS)}
    runs = [run for run in recorded(folder) if part_of_row(run) == (1.0, SHOTS)]
    assert sorted((run["head"], run["freeze_depth"], run["seed"]) for run in runs) == sorted(
        (*place, seed) for place in places for seed in SEEDS
    )


def test_the_summary_is_of_the_runs(finished, config):
    folder = finished[0]
    rows = read_csv(folder / "summary.csv")
    assert {place_of(row) for row in rows} == {place_of(run) for run in recorded(folder)}
    each = np.bincount(load_dataset(config.dataset).train.labels)
    photos = {(1.0, None): sum(each), (1.0, SHOTS): 6 * SHOTS}
    best = {row["head"]: row["freeze_depth"] for row in finished[1]["best"]}["replaced"]
    for row in rows:
        head, depth, part = place_of(row)
        hits = correct(folder, head, depth, part)
        assert hits.shape == (2, 12)
        assert float(row["photos"]) == photos[part]
        assert float(row["test_top1"]) == pytest.approx(hits.mean())
        compared = depth if is_whole(row) else best
        if head == "replaced":
            assert (row["difference"], row["verdict"]) == ("", "the baseline")
            continue
        baseline = correct(folder, "replaced", compared, part)
        assert float(row["difference"]) == pytest.approx(hits.mean() - baseline.mean())
        low, high = float(row["difference_low"]), float(row["difference_high"])
        assert (row["verdict"] == "no difference shown") == (low <= 0 <= high)
        assert ("could have shown" in row["limits"] or "too small" in row["limits"]) == (low <= 0 <= high)
        assert row["limits"].endswith("is not counted") == (depth != compared)
        assert (low <= 0 <= high) == (float(row["p_value"]) >= 0.05)


def test_every_interval_and_verdict_follows_from_one_file(finished, config):
    folder = finished[0]
    assert_follows_from_its_photos(folder)
    evidence, test = read_evidence(folder), load_dataset(config.dataset).test
    assert list(evidence.photos) == list(test.photos)
    assert list(evidence.labels) == [f"class{label}" for label in test.labels]
    for run in evidence.runs:
        hits = correct(folder, run.cell.head, run.cell.freeze_depth, (run.cell.share, run.cell.shots))
        assert run.hits.tolist() == hits[run.cell.seed - SEEDS[0]].tolist()


def test_the_answer_is_of_the_best_depths(finished):
    folder, result = finished
    best = {row["head"]: row for row in result["best"]}
    hits = {head: correct(folder, head, best[head]["freeze_depth"]) for head in HEADS}
    assert best["replaced"]["verdict"] == "the baseline"
    assert best["kept"]["difference"]["estimate"] == pytest.approx(hits["kept"].mean() - hits["replaced"].mean())


def test_which_validation_photos_were_recognised_is_written_down(finished):
    """At the epoch that is scored: their share is the validation top-1 of the run."""
    for run in recorded(finished[0]):
        assert np.mean(run["validation_correct"]) == pytest.approx(run["validation_top1"])
    assert all(row["choice"] is not None for row in finished[1]["best"])


def test_a_run_of_the_study_is_a_run(finished, config, tmp_path):
    """Trained alone from the same settings, with a cache of its own."""
    folder, result = finished
    place = "kept", "block_relu", (1.0, None)
    (tuned,) = [row for row in result["tuned"] if place_of(row) == place]
    values = {**{name: tuned[name] for name in config.VARIED}, "seed": 4}
    alone = ktl.run(
        config.run_config({**values, "cache": "on", "cache_dir": str(tmp_path / "cache")}), output=tmp_path / "run"
    )
    (row,) = [run for run in recorded(folder) if place_of(run) == place and run["seed"] == 4]
    assert row["validation_top1"] == pytest.approx(alone["validation"]["top1"])
    assert np.mean(row["correct"]) == pytest.approx(alone["test"]["top1"])


def test_test_photos_that_look_like_training_photos_are_listed_and_counted(finished, config, listener):
    folder, result = finished
    found = find_duplicates(load_dataset(config.dataset))
    assert found  # stripes of one direction are alike
    assert read_duplicates(folder / "duplicates.csv") == found
    near = sum(one.split == "test" for one in found)
    assert result["duplicates"] == {"exact": 0, "near": near}
    said = f"of 12 test photos 0 are also among the training or validation photos, and {near} look like one; see "
    assert sum(text.startswith(said) for text in listener.heard) == 1


def test_heads_are_scored_without_these_photos_too(finished, config):
    folder, result = finished
    photos = load_dataset(config.dataset).test.photos
    twins = {one.photo for one in read_duplicates(folder / "duplicates.csv") if one.split == "test"}
    kept = [index for index, photo in enumerate(photos) if photo not in twins]
    assert result["without_duplicates"]["photos"] == len(kept) == len(photos) - len(twins) > 0
    assert set(result["without_duplicates"]["heads"]) == {row["head"] for row in result["best"]}
    for row in result["best"]:
        runs = [
            run["correct"]
            for run in recorded(folder)
            if (run["head"], run["freeze_depth"]) == (row["head"], row["freeze_depth"])
            and run["share"] == 1
            and run["shots"] is None
        ]
        assert len(runs) == config.seeds
        found = result["without_duplicates"]["heads"][row["head"]]
        assert found["estimate"] == pytest.approx(np.mean([[hits[index] for index in kept] for hits in runs]))
    assert result["warnings"][0].startswith("WARNING: few photos choose the epochs, rates, scales and freeze depths: ")


def test_the_untouched_layer_is_scored_beside_the_heads(finished, config, listener):
    folder, result = finished
    test = load_dataset(config.dataset).test
    backbone = build_backbone(config.backbone).model
    hits, among = [], []
    everything = list(itertools.chain(*NUMBERS.values()))
    chosen = [index for index, label in enumerate(test.labels) if f"class{label}" in NUMBERS]
    for index in chosen:
        (logits,) = backbone(view_of(test.read(index), size=42)[np.newaxis].astype("float32")).numpy()
        right = NUMBERS[f"class{test.labels[index]}"]
        hits.append(logits.argmax() in right)
        among.append(max(everything, key=lambda number: logits[number]) in right)
    found = result["zero_shot"]
    assert (found["classes"], found["dataset_classes"], found["photos"]) == (3, 6, 6)
    assert found["top1"] == pytest.approx(np.mean(hits))
    assert found["restricted_top1"] == pytest.approx(np.mean(among))
    assert found["top1"] < found["restricted_top1"] < 1, "some are right among these classes, not all"
    assert found["synsets"]["class5"] == [{"id": synsets()[300].id, "name": synsets()[300].name}]
    assert {name: len(those) for name, those in found["synsets"].items()} == {
        name: len(numbers) for name, numbers in NUMBERS.items()
    }
    for row in result["best"]:
        hits = correct(folder, row["head"], row["freeze_depth"])[:, chosen]
        low, high = wilson_interval(hits.mean(), 6)
        score = found["heads"][row["head"]]
        assert score["estimate"] == pytest.approx(hits.mean())
        assert score["low"] <= low + 1e-9
        assert high - 1e-9 <= score["high"]
    said = [text for text in listener.heard if "3 of 6 classes are classes of ImageNet" in text]
    assert len(said) == 1


def test_a_probe_of_what_each_head_reads_stands_beside_the_heads(finished, config, listener):
    """Each computed again: from the backbone's answers for the plain views, and scikit-learn's regression."""
    result = finished[1]
    dataset, backbone = load_dataset(config.dataset), build_backbone(config.backbone)
    model = keras.Model(backbone.pixels, {"features": backbone.features, "logits": backbone.logits})

    def read(split, source):
        views = np.stack([view_of(split.read(index), size=42) for index in range(len(split))])
        return np.asarray(model(views.astype("float32"))[source])

    assert [(row["source"], row["heads"], part_of_row(row)) for row in result["probes"]] == [
        (source, [head], part)
        for part in ((1.0, None), (1.0, SHOTS))
        for source, head in (("logits", "kept"), ("features", "replaced"))
    ]
    for row in result["probes"]:
        draws = (
            [dataset]
            if part_of_row(row) == (1.0, None)
            else [design.part_of(dataset, Part(row["share"], row["shots"]), draw=seed) for seed in SEEDS]
        )
        tops = []
        for draw, penalty in zip(draws, row["penalties"], strict=True):
            rows = read(draw.train, row["source"])
            mean, spread = rows.mean(axis=0), np.sqrt(np.square(rows - rows.mean(axis=0)).sum(axis=1).mean())
            regression = LogisticRegression(C=penalty, max_iter=10_000).fit((rows - mean) / spread, draw.train.labels)
            tops.append(regression.score((read(dataset.test, row["source"]) - mean) / spread, dataset.test.labels))
        assert row["test_top1"]["estimate"] == pytest.approx(np.mean(tops), abs=0.05)
        assert row["converged"]
    assert sum(text.startswith("the best probe reads ") for text in listener.heard) == 1


def test_the_folder_holds_what_it_promises_and_nothing_else(finished):
    folder = finished[0]
    names = {"config.json", "dataset.json", "environment.json", "result.json", "runs"}
    names |= {"runs.csv", "correct.json", "tries.csv", "summary.csv", "duplicates.csv", "checksums.json"}
    assert set(os.listdir(folder)) == names
    assert not list(folder.rglob("checkpoint"))


def test_a_study_that_was_stopped_goes_on(finished, config, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(finished[0], folder)
    times = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/*.json")}
    gone = sorted(times)[-1]
    gone.unlink()
    left = sorted(times)[0].parent / "checkpoint"  # by a kill between a run's last two steps
    left.mkdir()
    (folder / "result.json").unlink()
    looked = (folder / "duplicates.csv").stat().st_mtime_ns
    again = study(config, output=folder)
    assert {path: path.stat().st_mtime_ns for path in times if path != gone} == {
        path: time for path, time in times.items() if path != gone
    }
    assert gone.exists()
    assert not left.exists()
    assert again | {"seconds": 0} == finished[1] | {"seconds": 0}
    assert (folder / "duplicates.csv").stat().st_mtime_ns == looked


def test_a_training_that_was_stopped_goes_on_after_its_last_complete_epoch(config, tmp_path):
    one = dataclasses.replace(config, heads="kept", depths="all", seeds=1, shares="none", shots="none")
    with pytest.raises(KeyboardInterrupt):
        study(one, output=tmp_path / "study", verbose=Interrupting())
    state = max((tmp_path / "study" / "runs").glob("*/checkpoint/state.json"), key=lambda path: path.stat().st_mtime_ns)
    marked = mark_first_epoch(state)
    study(one, output=tmp_path / "study")
    found = json.loads((state.parent.parent / f"tried-{RUNGS[-1]}.json").read_text())
    assert (found["history"][0], found["epochs"]) == (marked["validation_top1"], RUNGS[-1])
    assert not state.exists()


def test_test_photos_choose_nothing(finished, config, tmp_path):
    """Where each run's answers to them are the contrary, all choices stay, and the scores do not."""
    folder, before = tmp_path / "study", finished[1]
    shutil.copytree(finished[0], folder)
    for path in folder.glob("runs/*/run.json"):
        run = json.loads(path.read_text())
        write_json(path, run | {"correct": [1 - right for right in run["correct"]]})
    failed = next(folder.glob("runs/*/run.json"))
    write_json(failed, json.loads(failed.read_text()) | {"failed": "Expected a finite loss."})
    (folder / "result.json").unlink()
    after = study(config, output=folder)
    assert (after["tuned"], after["chosen"]) == (before["tuned"], before["chosen"])
    for row, old in zip(after["best"], before["best"], strict=True):
        assert {name: row[name] for name in config.VARIED} == {name: old[name] for name in config.VARIED}
        assert row["test_top1"]["estimate"] == pytest.approx(1 - old["test_top1"]["estimate"])
    assert after["failed"] == {failed.parent.name: "Expected a finite loss."}


def test_a_head_that_learns_under_none_of_its_tries_is_one_line(config, tmp_path, monkeypatch):
    monkeypatch.setattr(design, "RANGES", {(False, False): {"learning_rate": design.Range(1e37)}})
    with pytest.raises(UserError, match=r"under which the head replaced learns. Received: .*6.7e\+36.*1e\+37"):
        study(dataclasses.replace(config, heads="replaced", depths="all"), output=tmp_path / "study")


def test_settings_are_keywords_too(finished, config):
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    assert study(**settings, output=finished[0], verbose=0) == finished[1]
    with pytest.raises(UserError, match="StudyConfig, or its settings as keywords"):
        study(config, epochs=3, output=finished[0])


def test_other_settings_in_the_folder_are_refused(finished, config):
    with pytest.raises(UserError, match=r"epochs 3 there, 4 here.*`overwrite` this one"):
        study(dataclasses.replace(config, epochs=4), output=finished[0])


def test_an_unknown_depth_is_told_before_anything_is_trained(config, tmp_path):
    with pytest.raises(UserError, match="conv9"):
        study(dataclasses.replace(config, depths="conv9,all"), output=tmp_path / "study")
    assert not (tmp_path / "study" / "runs").exists()


def test_an_unknown_synset_is_told_before_anything_is_trained(config, tmp_path):
    (tmp_path / "synsets.csv").write_text("class,synset\nclass0,n00000000\n")
    with pytest.raises(UserError, match="n00000000"):
        study(dataclasses.replace(config, synsets=str(tmp_path / "synsets.csv")), output=tmp_path / "study")
    assert not (tmp_path / "study" / "runs").exists()


def test_photos_that_cannot_be_read_are_left_out_everywhere(config, photo_folder, tmp_path):
    shutil.copytree(photo_folder, tmp_path / "photos")
    before = load_dataset(str(tmp_path / "photos"))
    broken = next(photo for photo, label in zip(before.test.photos, before.test.labels, strict=True) if label == 2)
    (tmp_path / "photos" / broken).write_bytes(b"no photo")
    listener = Heard()
    small = {"heads": "kept", "depths": "all", "shares": "0.5,0.99", "shots": "none", "seeds": 1, "epochs": 1}
    config = dataclasses.replace(config, dataset=str(tmp_path / "photos"), on_bad_image="skip", **small)
    before_it = random.getstate(), keras.config.dtype_policy()
    result = study(config, output=tmp_path / "study", verbose=listener)
    assert (random.getstate(), keras.config.dtype_policy()) == before_it, "the process is not as it was"
    assert {tuple(run["bad_photos"]) for run in recorded(tmp_path / "study")} == {(broken,)}
    labels = [label for photo, label in zip(before.test.photos, before.test.labels, strict=True) if photo != broken]
    assert result["zero_shot"]["photos"] == len(labels) * 3 // 6 == 5
    assert {part_of_row(run) for run in recorded(tmp_path / "study")} == {(1.0, None), (0.5, None)}
    share = sum(round(0.5 * count) for count in np.bincount(before.train.labels))
    counts = [int(row["photos"]) for row in read_csv(tmp_path / "study" / "summary.csv")]
    assert counts == [len(before.train), share]
    (hits,) = correct(tmp_path / "study", "kept", "all")
    expected = np.mean([hit for hit, label in zip(hits, labels, strict=True) if f"class{label}" in NUMBERS])
    assert result["zero_shot"]["heads"]["kept"]["estimate"] == pytest.approx(expected)
    assert result["chosen"]["cache"] == "auto", "one run alone does not pay for the pass, as all runs of a depth do"
    everything = len(before.train)
    assert [text for text in listener.heard if "left out" in text] == [
        f"share 0.99 is left out: {everything} training photos, as of another part",
    ]


def test_the_command_prints_the_answer(finished, config, tmp_path):
    shutil.copytree(finished[0], tmp_path / "out")
    code, out, err = Command("study", *config.flags(), "--output", "out", folder=tmp_path).wait()
    assert code == 0, err
    assert "the baseline" in out
    assert finished[1]["chosen"]["command"] in out.splitlines()
    assert out.splitlines()[-1] == "out"
