"""Keras' JAX backend in processes that have no TensorFlow: run, search, predict and report."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support import REPOSITORY

pytestmark = pytest.mark.slow

COMMAND = """
import sys


class Without:
    '''A finder of modules that does not find these, as where they are not installed.'''

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *arguments):
        hidden = name.split(".")[0] in ("tensorflow", "tensorflow_datasets")
        return None if hidden else self.finder.find_spec(name, *arguments)


sys.meta_path[:] = map(Without, sys.meta_path)
from ktl.cli.main import main

sys.exit(main())
"""


@pytest.fixture(scope="module")
def ktl(tmp_path_factory):
    """Runs a command of ktl; its process."""
    pytest.importorskip("jax", reason='the extra "jax" is not installed')
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_"))}
    environment = {**kept, "KERAS_BACKEND": "jax", "PYTHONPATH": str(REPOSITORY)}

    def call(*arguments):
        command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)

    return call


@pytest.fixture(scope="module")
def flags(photo_folder, tiny_backbone, tmp_path_factory):
    settings = {"dataset": photo_folder, "backbone": tiny_backbone, "batch-size": 8, "least-steps": 1, "seed": 1}
    settings["cache-dir"] = tmp_path_factory.mktemp("cache")
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def finished(ktl, flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jax") / "run"
    done = ktl(
        "run",
        *flags,
        "--freeze-depth",
        "block_relu",
        "--epochs",
        8,
        "--cache",
        "on",
        "--xla",
        "off",
        "--output",
        folder,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_learns_and_says_what_it_ran_on(finished):
    with open(finished / "history.csv", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["backend"] == "jax"
    assert environment["versions"]["jax"]
    assert environment["xla"] is True  # whatever was asked for


def test_its_network_gives_the_same_on_tensorflow(finished):
    """The recorded answers of JAX, against the same file in Keras on TensorFlow, which this process has."""
    from ktl.data.loading import load_dataset
    from ktl.data.views import view_of
    from ktl.inference.formats import open_keras

    test = load_dataset(json.loads((finished / "config.json").read_text())["dataset"]).test
    opened = open_keras(finished / "model.keras")
    views = np.stack([view_of(test.read(index), size=opened.image_size) for index in range(len(test))])
    with np.load(finished / "probabilities.npz") as recorded:
        np.testing.assert_allclose(opened.classify(views), recorded["test"], atol=1e-5)


def test_every_photo_is_labelled(ktl, finished, photo_folder):
    done = ktl("predict", photo_folder, "--model", finished, "--csv")
    assert done.returncode == 0, done.stderr
    assert len(list(csv.DictReader(done.stdout.splitlines()))) == 72


def test_a_report_is_made(ktl, finished, tmp_path):
    done = ktl("report", finished, "--output", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    assert "</html>" in (tmp_path / "report.html").read_text()


def test_a_search_tries_all_of_a_grid(ktl, flags, tmp_path):
    space = "freeze_depth=block_relu,all scale=1,10"
    done = ktl("search", *flags, "--space", space, "--epochs", 2, "--seeds", 1, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "out" / "trials.csv", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["completed"] * 4


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["export", "--run", "{run}", "--output", "out"], "Expected Keras' backend to be tensorflow"),
        (["run", "--dataset", "stanford_dogs"], "where TensorFlow is not installed. Received: stanford_dogs"),
    ],
)
def test_what_needs_tensorflow_is_one_line(ktl, finished, command, said):
    done = ktl(*(text.format(run=finished) for text in command))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
