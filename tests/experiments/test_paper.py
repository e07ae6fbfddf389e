"""experiments/paper.py: its settings, and what it does with a small backbone in the place of VGG16."""

import argparse
import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import REPOSITORY, few_tries, run_script

import ktl
from ktl.errors import UserError
from ktl.evaluation.intervals import Interval
from ktl.models.boundaries import find_boundary
from ktl.studies.design import RUNGS

EXPERIMENTS = REPOSITORY / "experiments"
BLOCKS = (2, 2, 3, 3, 3)
"""Convolutions of each of VGG16's blocks (Simonyan and Zisserman 2015, table 1, column D)."""


@pytest.fixture(scope="module")
def paper():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        import paper
    return paper


def configure(paper, name: str, **given):
    options = {"smoke": False, "seeds": None, "data_dir": None, "output": Path("runs/paper")}
    return paper.configure(name, argparse.Namespace(**{**options, **given}))


@pytest.fixture(scope="module")
def finished(paper, tiny_backbone, tmp_path_factory):
    """A smoke run of two data sets with a backbone of milliseconds; one has a photo that cannot be read."""
    folder = tmp_path_factory.mktemp("paper") / "out"
    broken = folder / "photos" / "stanford_dogs" / "red" / "broken.png"
    broken.parent.mkdir(parents=True)
    broken.write_text("no photo")
    small = {"backbone": str(tiny_backbone), "weights": "imagenet", "depths": "block_relu"}
    arguments = ("--smoke", "--seeds", 2, "--output", folder, "--datasets", "stanford_dogs", "oxford_iiit_pet")
    with few_tries(), pytest.MonkeyPatch.context() as patch:
        for name, value in small.items():
            patch.setitem(paper.SMOKE, name, value)
        return folder, arguments, run_script(paper, *arguments), run_script(paper, *arguments)


def test_an_unknown_data_set_is_one_line():
    command = [sys.executable, EXPERIMENTS / "paper.py", "--datasets", "imagenet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "'imagenet'" in line
    assert "paper.py --help" in line


def test_the_paper_is_vgg16_on_five_data_sets_with_two_heads(paper):
    assert set(paper.DATASETS) == {
        "oxford_flowers102",
        "caltech_birds2011",
        "stanford_dogs",
        "oxford_iiit_pet",
        "caltech256",
    }
    for name in paper.DATASETS:
        config = configure(paper, name)
        assert (config.dataset, config.backbone, config.weights) == (name, "vgg16", "imagenet")
        assert config.heads == ("replaced", "kept")
        assert config.seeds >= 3


def test_the_data_sets_differ_in_nothing_else(paper):
    of_each = {"dataset": None, "weight_decay": None}  # the decay is that of as many steps
    settings = [configure(paper, name).as_dict() | of_each for name in paper.DATASETS]
    assert all(one == settings[0] for one in settings)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_decay_is_what_an_l2_penalty_leaves_of_a_kernel(paper, momentum):
    """By a simulation of SGD on the penalty alone, with the schedule of a training."""
    l2, rate, steps, warmup = 5e-3, 0.02, 4000, 130
    kernel, velocity = 1.0, 0.0
    for step in range(steps):
        falling = (1 + np.cos(np.pi * (step - warmup) / (steps - warmup))) / 2
        velocity = momentum * velocity - rate * (step / warmup if step < warmup else falling) * l2 * kernel
        kernel += velocity
    assert paper.decay_share(l2, rate=rate, steps=steps, momentum=momentum) == pytest.approx(1 - kernel, rel=0.01)


def test_the_decay_of_a_data_set_is_that_of_its_steps(paper):
    decays = {name: configure(paper, name).weight_decay for name in paper.DATASETS}
    assert decays["stanford_dogs"] == pytest.approx(1 - np.exp(-5e-4 * 1e-3 * 30 * 338 / 2 / 0.1))
    assert decays["oxford_flowers102"] < decays["oxford_iiit_pet"] < decays["stanford_dogs"] < decays["caltech256"]


def test_every_weight_layer_of_vgg16_is_a_depth(paper):
    convolutions = [f"block{b}_conv{c}" for b, count in enumerate(BLOCKS, 1) for c in range(1, count + 1)]
    assert configure(paper, "caltech256").depths == ("none", *convolutions, "fc1", "fc2", "all")
    assert len(convolutions) + 3 == ktl.BACKBONES["vgg16"].boundaries


@pytest.mark.slow
def test_both_heads_have_every_depth(paper):
    backbone = ktl.build_backbone("vgg16", weights="random")
    for head in paper.HEADS.values():
        boundaries = ktl.TransferClassifier(backbone, class_names=["a", "b"], head=head).boundaries
        reached = {find_boundary(boundaries, depth).depth for depth in paper.DEPTHS}
        assert reached == set(range(len(boundaries)))


def test_the_cost_that_is_told_is_that_of_the_design(paper):
    """Numbers in the comment at its top."""
    config = configure(paper, "caltech256")
    places = len(config.depths) * len(config.heads)
    first, second = RUNGS
    told = " ".join(paper.__doc__.split())
    assert f"{places * config.seeds} runs ({len(config.depths)} depths, 2 heads, 3 seeds)" in told
    assert f"of up to {config.epochs} epochs, and {places * first.tries} tries of {first.epochs(30)} epochs" in told
    assert f"four of each {first.tries} of which go on to {second.epochs(30)}" in told
    assert second.tries == 4
    tried = first.tries * first.epochs(30) + second.tries * (second.epochs(30) - first.epochs(30))
    epochs = places * (config.seeds * config.epochs + tried)
    photos = sum(max(count, config.least_steps * config.batch_size) for count in paper.TRAINING_PHOTOS.values())
    assert 180e6 < epochs * photos <= 200e6


def test_flags_reach_the_settings(paper):
    config = configure(paper, "caltech256", seeds=5, data_dir="/data")
    assert (config.seeds, config.data_dir) == (5, "/data")
    smoke = configure(paper, "caltech256", smoke=True, output=Path("out"))
    assert (smoke.dataset, smoke.backbone, smoke.weights) == ("out/photos/caltech256", "vgg16", "random")
    with pytest.raises(UserError, match="`seeds`"):
        configure(paper, "caltech256", seeds=0)


def test_a_data_set_that_cannot_be_had_is_one_line_and_the_others_run(finished):
    folder, _, (code, out, err), _ = finished
    lines = [line for line in err.splitlines() if line.startswith("paper.py:")]
    assert code == 1
    assert len(lines) == 1
    assert re.match(r"paper.py: stanford_dogs: Expected .*broken\.png", lines[0])
    assert "oxford_iiit_pet" in out
    assert "stanford_dogs" not in out
    assert (folder / "oxford_iiit_pet" / "result.json").exists()


def test_the_table_is_of_the_runs(finished):
    folder, _, (_, out, _), _ = finished
    (row,) = json.loads((folder / "paper.json").read_text())
    recorded = [json.loads(path.read_text()) for path in folder.glob("oxford_iiit_pet/runs/*/run.json")]
    hits = {}
    for way, head in (("traditional", "replaced"), ("proposed", "kept")):
        depth = row[way]["freeze_depth"]
        runs = [r for r in recorded if (r["head"], r["freeze_depth"]) == (head, depth)]
        hits[way] = np.array([r["correct"] for r in sorted(runs, key=lambda r: r["seed"])], bool)
        expected = Interval(**row[way]["test_top1"])
        assert expected.estimate == pytest.approx(hits[way].mean())
        shown = f"{100 * expected.estimate:.1f} ({100 * expected.low:.1f} to {100 * expected.high:.1f})"
        assert re.search(rf"{re.escape(shown)} +│ {depth} ", out)
    assert hits["proposed"].shape == (2, 2)
    assert (row["difference"], row["verdict"]) == (None, "nothing can be said of 2 test photos")
    assert row["verdict"] in out


def test_the_csv_file_has_the_numbers_of_the_json_file(finished):
    folder = finished[0]
    (row,) = json.loads((folder / "paper.json").read_text())
    with open(folder / "paper.csv", newline="") as file:
        (flat,) = csv.DictReader(file)
    assert flat["dataset"] == row["dataset"] == "oxford_iiit_pet"
    assert flat["proposed_freeze_depth"] == row["proposed"]["freeze_depth"]
    assert float(flat["traditional_test_top1_low"]) == row["traditional"]["test_top1"]["low"]
    assert (row["difference"], flat["difference_high"]) == (None, "")
    assert len(flat) == 13


def test_the_csv_file_has_the_difference(paper, tmp_path):
    score = {"freeze_depth": "all", "test_top1": {"estimate": 0.5, "low": 0.25, "high": 0.75}}
    known = {"estimate": 0.25, "low": -0.5, "high": 0.75}
    rows = [{"dataset": name, "proposed": score, "difference": one} for name, one in (("few", None), ("many", known))]
    paper.write(tmp_path, rows)
    with open(tmp_path / "paper.csv", newline="") as file:
        few, many = csv.DictReader(file)
    assert [few["difference_estimate"], few["difference_low"]] == ["", ""]
    assert {name: float(many[f"difference_{name}"]) for name in known} == known


def test_the_same_command_again_gives_the_same_table_and_trains_nothing(finished):
    folder, _, first, again = finished
    assert again[:2] == first[:2]
    assert "seed" not in again[2]
    assert json.loads((folder / "oxford_iiit_pet" / "result.json").read_text())["seconds"] > 0


def test_of_one_seed_the_bounds_are_left_out(paper, capsys):
    seedless = {"estimate": 0.5, "low": None, "high": None}
    difference = {"estimate": -0.03, "low": -0.05, "high": 0.01}
    best = [
        {"head": "kept", "freeze_depth": "fc1", "test_top1": seedless, "difference": difference, "verdict": "words"},
        {"head": "replaced", "freeze_depth": "all", "test_top1": seedless, "difference": None, "verdict": "baseline"},
    ]
    paper.show([paper.row_of("caltech256", {"best": best})])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "caltech256" in line]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells == ["caltech256", "50.0", "all", "50.0", "fc1", "-3.0 (-5.0 to +1.0)", "words"]


def test_without_any_data_set_nothing_is_written(paper, tmp_path):
    prepared = ("--data-dir", tmp_path / "data", "--output", tmp_path / "out")
    code, out, err = run_script(paper, "--datasets", "caltech256", *prepared)
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if "Expected" in line]
    assert line.startswith("paper.py: caltech256: Expected files that only you can download")
    assert not (tmp_path / "out" / "paper.csv").exists()


def test_an_interrupt_is_one_line(paper, monkeypatch, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(paper, "attempt", stop)
    code, out, err = run_script(paper, "--output", tmp_path)
    assert (code, out, err) == (130, "", "paper.py: interrupted; repeat the command to continue\n")


@pytest.mark.long
def test_smoke(paper, tmp_path):
    """VGG16 itself."""
    arguments = ("--smoke", "--datasets", "oxford_flowers102", "--output", tmp_path / "out")
    with few_tries():
        code, out, err = run_script(paper, *arguments)
    assert code == 0, err
    rows = json.loads((tmp_path / "out" / "paper.json").read_text())
    assert [row["dataset"] for row in rows] == ["oxford_flowers102"]
    assert "oxford_flowers102" in out
    config = json.loads((tmp_path / "out" / "oxford_flowers102" / "config.json").read_text())
    assert (config["backbone"], config["weights"]) == ("vgg16", "random")
