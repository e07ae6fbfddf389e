"""A whole run with and without the cache."""

import csv

import numpy as np
import pytest
from support import Listener

from ktl.config.settings import RunConfig
from ktl.errors import UserError
from ktl.runs.run import run

pytestmark = pytest.mark.usefixtures("settled_photos")


@pytest.fixture
def start(tiny_backbone, photo_folder, tmp_path):
    def start(output, **settings):
        defaults = {"dataset": str(photo_folder), "backbone": str(tiny_backbone), "freeze_depth": "block_relu"}
        defaults |= {
            "epochs": 3,
            "batch_size": 8,
            "least_steps": 1,
            "augmentation": "none",
            "cache_dir": str(tmp_path / "cache"),
        }
        listener = Listener()
        config = RunConfig(**{**defaults, **settings})
        return run(config, output=tmp_path / output, verbose=listener), listener

    return start


def probabilities(path):
    with open(path / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    return [row["photo"] for row in rows], np.array([float(row["probability"]) for row in rows])


SEARCHED = ("looking for duplicates", 72)
"""Each run's last task, of all photos."""


@pytest.mark.parametrize(("freeze_depth", "augmentation"), [("block_relu", "none"), ("all", "standard")])
def test_a_cached_run_gives_the_numbers_of_an_uncached_one(start, tmp_path, freeze_depth, augmentation):
    settings = {"freeze_depth": freeze_depth, "augmentation": augmentation, "least_steps": 12}
    cached, listener = start("cached", cache="on", **settings)
    uncached, other = start("uncached", cache="off", **settings)
    assert [task for task, _ in listener.tasks[:-1]] == ["reading photos", "checking photos", "computing frozen layers"]
    assert any(text.startswith("cache on") for text in listener.messages)
    assert "cache off: as asked" in other.messages
    for split in ("validation", "test"):
        for name, value in uncached[split].items():
            assert cached[split][name] == pytest.approx(value, abs=1e-3), (split, name)
    assert probabilities(tmp_path / "cached")[0] == probabilities(tmp_path / "uncached")[0]
    np.testing.assert_allclose(*(probabilities(tmp_path / name)[1] for name in ("cached", "uncached")), atol=1e-3)


def test_a_warm_cache_computes_nothing_whatever_the_head_the_rate_and_the_seed(start):
    """Nor does it forget the type of the features, and their views."""
    settings = {"cache": "on", "cache_dtype": "float16", "augmentation": "standard", "views": 2}
    cold, listener = start("cold", seed=1, **settings)
    photos = cold["photos"]
    assert listener.tasks[2] == ("computing frozen layers", 2 * photos["train"] + photos["validation"] + photos["test"])
    warm, listener = start("warm", seed=2, head="replaced", learning_rate=1e-4, scale=5.0, **settings)
    assert listener.tasks == [SEARCHED]
    assert warm["validation"] != cold["validation"]


def test_a_cache_folder_that_cannot_be_made(start):
    refused = r"^Expected `cache_dir` to be a folder that can be written to. Received: .*/proc"
    with pytest.raises(UserError, match=refused):
        start("asked", cache="auto", cache_dir="/proc/ktl")
