"""Keras' MobileNet in timm, and its fine-tuning there: experiments/benchmarks/fine_tuning.py and timm_training.py."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import REPOSITORY

from ktl.config.settings import RunConfig
from ktl.data.dataset import Dataset

EXPERIMENTS = REPOSITORY / "experiments"
SCORES = """
import sys
import numpy, torch
sys.path.insert(0, sys.argv[1])
from timm_training import network
model = network(sys.argv[2], width=float(sys.argv[3]), classes=None).eval()
pixels = torch.tensor(numpy.load(sys.argv[4])).permute(0, 3, 1, 2)
with torch.no_grad():
    features = model.forward_head(model.forward_features(pixels / 127.5 - 1), pre_logits=True)
    numpy.savez(sys.argv[5], features=features, probabilities=model.classifier(features).softmax(1))
"""


@pytest.fixture(scope="session")
def timm_python() -> str:
    """A Python that has timm."""
    python = os.environ.get("KTL_TIMM_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import timm"], capture_output=True).returncode:
        pytest.skip("needs PyTorch and timm: KTL_TIMM_PYTHON names no Python that has them")
    return python


@pytest.fixture
def fine_tuning(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    from benchmarks import fine_tuning

    return fine_tuning


def drawn_weights(folder, *, alpha: float, side: int) -> str:
    """A weights file of Keras' MobileNet in which signals neither vanish nor grow, and all norms' numbers differ."""
    import keras

    generator = np.random.default_rng(0)
    network = keras.applications.MobileNet(input_shape=(side, side, 3), alpha=alpha, weights=None)
    for layer in network.layers:
        for each in layer.weights:
            if each.name == "kernel":
                inputs = np.prod(each.shape[:2]) if "dw" in layer.name else np.prod(each.shape[:3])
                each.assign(generator.normal(0, np.sqrt(2 / inputs), each.shape))
            else:
                each.assign(generator.uniform(*LIMITS[each.name], each.shape))
    file = str(folder / "drawn.weights.h5")
    network.save_weights(file)
    return file


LIMITS = {
    "gamma": (0.5, 1.5), "beta": (-0.5, 0.5), "moving_mean": (-0.5, 0.5), "moving_variance": (0.05, 1), "bias": (-1, 1),
}  # fmt: skip


def check_same_scores(fine_tuning, python: str, config: RunConfig, pixels: np.ndarray, folder, backbone) -> None:
    """timm's network gives the features and probabilities of Keras' for these pixels, [photos, side, side, 3]."""
    import keras

    assert fine_tuning.write_weights(config, folder / "weights.npz") == backbone.image_size
    np.save(folder / "pixels.npy", pixels)
    width, here = config.backbone.removeprefix("mobilenet_"), EXPERIMENTS / "benchmarks"
    files = [folder / name for name in ("weights.npz", "pixels.npy", "found.npz")]
    subprocess.run([python, "-c", SCORES, here, files[0], width, *files[1:]], check=True)
    found = np.load(files[2])
    model = keras.Model(backbone.pixels, [backbone.features, keras.ops.softmax(backbone.logits)])
    features, probabilities = (keras.ops.convert_to_numpy(each) for each in model(pixels, training=False))
    assert features.std(axis=0).max() > 0.01, "photos do not differ"
    np.testing.assert_allclose(found["features"], features.reshape(found["features"].shape), atol=1e-3)
    np.testing.assert_allclose(found["probabilities"], probabilities, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("side", [64, 96])
def test_timm_has_the_features_of_keras(fine_tuning, timm_python, tmp_path, side):
    from ktl.models.backbones import build_backbone

    weights = drawn_weights(tmp_path, alpha=0.25, side=side)
    config = RunConfig(dataset="digits", backbone="mobilenet_0.25", weights=weights, image_size=side)
    backbone = build_backbone(config.backbone, weights=weights, image_size=side)
    pixels = np.random.default_rng(1).uniform(0, 255, (4, side, side, 3)).astype("float32")
    check_same_scores(fine_tuning, timm_python, config, pixels, tmp_path, backbone)


@pytest.mark.slow
def test_timm_has_the_features_of_imagenet_weights(fine_tuning, timm_python, tmp_path, assets):
    from PIL import Image

    from ktl.models.backbones import build_backbone

    weights = str(assets / "weights/mobilenet_0_75_224.weights.h5")
    photos = sorted((assets / "data/flowers17/test").glob("*/*.jpg"))[::60]
    pixels = np.stack([np.asarray(Image.open(photo).convert("RGB").resize((224, 224)), "float32") for photo in photos])
    config = RunConfig(dataset="digits", backbone="mobilenet_0.75", weights=weights)
    backbone = build_backbone("mobilenet_0.75", weights=weights)
    check_same_scores(fine_tuning, timm_python, config, pixels, tmp_path, backbone)


def job_of(fine_tuning, photos, folder) -> tuple[dict, Dataset]:
    config = RunConfig(dataset=str(photos), backbone="mobilenet_0.25", weights="random", image_size=32)
    dataset = Dataset.from_directory(photos)
    return fine_tuning.make_job(config, dataset, folder), dataset


def test_job_has_the_photos_of_the_data_set_as_often_as_a_run(fine_tuning, photo_folder, tmp_path):
    job, dataset = job_of(fine_tuning, photo_folder, tmp_path)
    for split in dataset.splits:
        photos = job["splits"][split.name]
        assert [label for _, label in photos] == split.labels.tolist()
        written = [Path(path).read_bytes() for path, _ in photos]
        assert written == [split.read(index) for index in range(len(split))]
    assert (job["width"], job["image_size"], job["classes"]) == (0.25, 32, 6)
    assert job["epochs"] == round(15 * 32 * 32 / 54), "15 epochs of 32 steps of 32 photos"


@pytest.mark.slow
def test_training_in_timm(fine_tuning, timm_python, photo_folder, tmp_path):
    job = {**job_of(fine_tuning, photo_folder, tmp_path)[0], "learning_rate": 3e-3, "seed": 0, "epochs": 4}
    found = fine_tuning.run_training(timm_python, job)
    assert found["validation_top1"] == max(found["epochs"])
    assert len(found["epochs"]) == 4
    test = [label for _, label in job["splits"]["test"]]
    assert found["test_top1"] * len(test) == pytest.approx(round(found["test_top1"] * len(test)), abs=1e-4)
    assert min(found["seconds"], found["cpu_seconds"]) > 0
    assert found["peak_mib"] > 100
    again = fine_tuning.run_training(timm_python, job)
    assert (again["epochs"], again["test_top1"]) == (found["epochs"], found["test_top1"])


RECORDER = """#!{python}
import json, pathlib, sys
job = json.loads(pathlib.Path(sys.argv[2]).read_text())
with open({file!r}, "a") as file:
    print(json.dumps(job), file=file)
scores = {scores}
print(json.dumps(dict(seconds=2.0, validation_top1=scores[job["learning_rate"]], test_top1=0.6 + job["learning_rate"])))
"""


def test_rate_is_chosen_by_validation_photos(fine_tuning, photo_folder, tmp_path):
    program, file = tmp_path / "python", tmp_path / "jobs.jsonl"
    config = RunConfig(dataset=str(photo_folder), backbone="mobilenet_0.25", weights="random", image_size=32)
    for number, (scores, best) in enumerate([((0.5, 0.75, 0.6), 1), ((0.5, 0.75, 0.75), 1), ((0.75, 0.5, 0.6), 0)]):
        of_rates = dict(zip(fine_tuning.RATES, scores, strict=True))
        program.write_text(RECORDER.format(python=sys.executable, file=str(file), scores=of_rates))
        program.chmod(0o755)
        folder = tmp_path / str(number)
        folder.mkdir()
        settings = argparse.Namespace(timm_python=str(program), folder=folder, round=number)
        found = fine_tuning.fine_tune(settings, config, Dataset.from_directory(photo_folder))
        assert found["test_top1"] == pytest.approx(0.6 + fine_tuning.RATES[best])
        assert found["rates"] == {f"{rate:g}": score for rate, score in of_rates.items()}
        assert (found["seconds"], found["other_seconds"]) == (2.0, 4.0)
    jobs = [json.loads(line) for line in file.read_text().splitlines()]
    assert [job["learning_rate"] for job in jobs] == [*fine_tuning.RATES] * 3
    assert [job["seed"] for job in jobs] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_failed_training_says_why(fine_tuning, tmp_path):
    job = {"weights": str(tmp_path / "weights.npz")}
    with pytest.raises(RuntimeError, match="Error: "):
        fine_tuning.run_training(sys.executable, job)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--timm-python", "no-such-python"), "Expected --timm-python to be a program. Received: no-such-python"),
        (("--timm-python", sys.executable, "--backbone", "resnet50"), "Expected --backbone mobilenet_WIDTH with"),
    ],
)
def test_bad_flags_are_one_line(flags, message):
    script = [sys.executable, str(EXPERIMENTS / "benchmark.py"), *flags]
    done = subprocess.run(script, capture_output=True, text=True)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert message in done.stderr
