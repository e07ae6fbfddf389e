"""Keras' JAX backend in processes that find no TensorFlow: what works there, and that its numbers are TensorFlow's."""

import base64
import csv
import json
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from support import environment_of

pytestmark = pytest.mark.slow

RUN = ("--freeze-depth", "block_relu", "--epochs", 8, "--cache", "on", "--xla", "off", "--deterministic")


def python(backend: str, *words, code: int = 0) -> subprocess.CompletedProcess:
    """Python with these arguments, on that backend; ends with that code."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, env=environment_of(backend), capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def backbone(tiny_backbone, tmp_path_factory):
    """Without dropout, whose masks each backend draws in its own way."""
    import keras

    model = keras.models.load_model(tiny_backbone, compile=False)
    model.get_layer("dropout").rate = 0.0
    path = tmp_path_factory.mktemp("backbone") / "steady.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def flags(photo_folder, backbone, tmp_path_factory):
    settings = {"dataset": photo_folder, "backbone": backbone, "batch-size": 8, "least-steps": 1, "seed": 1}
    settings["cache-dir"] = tmp_path_factory.mktemp("cache")
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def finished(flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jax") / "run"
    python("jax", "-m", "ktl", "run", *flags, *RUN, "--output", folder)
    return folder


def rows_of(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def numbers_of(history) -> np.ndarray:
    """All of a run's history.csv but the seconds."""
    return np.array([[float(value) for name, value in row.items() if name != "seconds"] for row in rows_of(history)])


# What works


def test_a_run_learns_and_says_what_it_ran_on(finished):
    losses = [float(row["loss"]) for row in rows_of(finished / "history.csv")]
    assert losses[-1] < losses[0]
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["backend"] == "jax"
    assert environment["versions"]["jax"]
    assert environment["xla"] is True  # whatever was asked for


KILLED = """
import json, os, sys
import ktl
from ktl.config.settings import RunConfig
from ktl.progress import Reporter


class Kill(Reporter):
    def epoch(self, row):
        if row["epoch"] == 3:
            os._exit(9)


config = RunConfig.from_dict(json.load(open(sys.argv[1])))
ktl.run(config, output=sys.argv[2], verbose=Kill())
"""


def test_a_run_that_was_killed_goes_on_to_the_same_numbers(flags, finished, tmp_path):
    python("jax", "-c", KILLED, finished / "config.json", tmp_path / "run", code=9)
    assert not (tmp_path / "run" / "result.json").exists()
    python("jax", "-m", "ktl", "run", *flags, *RUN, "--output", tmp_path / "run")
    np.testing.assert_array_equal(numbers_of(tmp_path / "run" / "history.csv"), numbers_of(finished / "history.csv"))


def test_every_photo_is_labelled(finished, photo_folder):
    done = python("jax", "-m", "ktl", "predict", photo_folder, "--model", finished, "--csv")
    assert len(list(csv.DictReader(done.stdout.splitlines()))) == 72


def test_a_report_is_made(finished, tmp_path):
    python("jax", "-m", "ktl", "report", finished, "--output", tmp_path / "report.html")
    assert "</html>" in (tmp_path / "report.html").read_text()


def test_a_run_is_served(finished, photo_folder):
    command = [sys.executable, "-m", "ktl", "serve", str(finished), "--port", "0"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment_of("jax"), **streams) as server:
        try:
            line = next(line for line in server.stdout if "http://" in line)
            address = "http://" + line.split("http://", 1)[1].split("/")[0].strip()
            photo = next(path for path in photo_folder.rglob("*") if path.is_file())
            body = json.dumps({"instances": [{"b64": base64.b64encode(photo.read_bytes()).decode()}]}).encode()
            with urllib.request.urlopen(f"{address}/v1/models/run:predict", body, timeout=60) as response:
                (answer,) = json.loads(response.read())["predictions"]
            assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-4)
        finally:
            server.send_signal(signal.SIGINT)


def test_a_study_compares_heads(flags, tmp_path):
    heads = ("--heads", "replaced,kept_raw", "--depths", "all", "--epochs", 2, "--seeds", 2)
    python("jax", "-m", "ktl", "study", *flags, *heads, "--output", tmp_path / "study")
    assert json.loads((tmp_path / "study" / "result.json").read_text())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["export", "--run", "{run}", "--output", "out"], "Expected Keras' backend to be tensorflow"),
        (
            ["run", "--dataset", "stanford_dogs"],
            "Expected stanford_dogs to be prepared already",
        ),
    ],
)
def test_what_needs_tensorflow_is_one_line(finished, command, said):
    done = python("jax", "-m", "ktl", *(text.format(run=finished) for text in command), code=2)
    (line,) = done.stderr.splitlines()
    assert said in line


# The same numbers

FEATURES = """
import sys
import numpy as np
from ktl.backends.engines import make_engine
from ktl.models.classifier import TransferClassifier

own = {"class_names": ("a", "b"), "seed": 4, "hidden_units": 5}
drawn = {"image_size": 64, "weights": "random"}
found = {}
for name, more in ((sys.argv[1], {}), ("mobilenet_0.25", drawn), ("mobilenetv3small", drawn)):
    classifier = TransferClassifier(name, **own, **more)
    photos = np.random.default_rng(0).integers(0, 256, (9, *classifier.input_shape[1:]), "uint8")
    tensors = [boundary.tensor for boundary in classifier.boundaries[1:]]
    features = make_engine().compile(classifier.input, [*tensors, classifier.output])(photos)
    for place, values in zip((*(str(b.depth) for b in classifier.boundaries[1:]), "logits"), features, strict=True):
        found[f"{name} {place}"] = values
    found.update({f"{name} weight {number}": weight for number, weight in enumerate(classifier.get_weights())})
np.savez(sys.argv[2], **{name.replace("/", "_"): values for name, values in found.items()})
"""


def test_features_of_all_depths_and_new_weights_are_tensorflow_s(backbone, tmp_path):
    """Within 1e-4 of their largest value, behind weights that are the same to the bit."""
    for backend in ("tensorflow", "jax"):
        python(backend, "-c", FEATURES, backbone, tmp_path / f"{backend}.npz")
    with np.load(tmp_path / "tensorflow.npz") as expected, np.load(tmp_path / "jax.npz") as found:
        assert found.files == expected.files
        for name in found.files:
            largest = 0 if "weight" in name else np.abs(expected[name]).max()
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-4 * largest, err_msg=name)


RUNS = """
import sys
from ktl.cli.main import main

folder, *flags = sys.argv[1:]
for optimizer in ("sgd", "adamw"):
    code = main(["run", *flags, "--optimizer", optimizer, "--output", f"{folder}/{optimizer}"])
    if code:
        sys.exit(code)
"""


def test_a_run_s_history_is_tensorflow_s(flags, tmp_path):
    for backend in ("tensorflow", "jax"):
        python(backend, "-c", RUNS, tmp_path / backend, *flags, *RUN)
    for optimizer in ("sgd", "adamw"):
        expected, found = (numbers_of(tmp_path / name / optimizer / "history.csv") for name in ("tensorflow", "jax"))
        np.testing.assert_allclose(found, expected, atol=1e-3, err_msg=optimizer)


def test_a_grid_has_tensorflow_s_best_trial(flags, tmp_path):
    space = ("--space", "freeze_depth=block_relu,all scale=1,10", "--epochs", 3, "--seeds", 1, "--deterministic")
    best = {}
    for backend in ("tensorflow", "jax"):
        folder = tmp_path / backend
        python(backend, "-m", "ktl", "search", *flags, *space, "--output", folder)
        best[backend] = json.loads((folder / "result.json").read_text())["best"]
        assert [row["status"] for row in rows_of(folder / "trials.csv")] == ["completed"] * 4
    assert best["jax"]["settings"] == best["tensorflow"]["settings"]


def test_the_network_of_a_run_gives_the_same_on_tensorflow(finished):
    """The recorded answers of JAX, against the same file in Keras on TensorFlow, which this process has."""
    from ktl.data.loading import load_dataset
    from ktl.data.views import view_of
    from ktl.inference.formats import open_keras

    test = load_dataset(json.loads((finished / "config.json").read_text())["dataset"]).test
    opened = open_keras(finished / "model.keras")
    views = np.stack([view_of(test.read(index), size=opened.image_size) for index in range(len(test))])
    with np.load(finished / "probabilities.npz") as recorded:
        np.testing.assert_allclose(opened.classify(views), recorded["test"], atol=1e-5)
