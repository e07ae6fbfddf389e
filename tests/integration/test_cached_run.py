"""A whole run with and without the cache."""

import csv
import errno
import shutil

import numpy as np
import pytest
from support import Listener

from ktl.config.settings import RunConfig
from ktl.errors import UserError
from ktl.features import shards as shards_module
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


@pytest.mark.parametrize(("freeze_depth", "augmentation"), [("block_relu", "none"), ("all", "standard")])
def test_a_cached_run_gives_the_numbers_of_an_uncached_one(start, tmp_path, freeze_depth, augmentation):
    settings = {"freeze_depth": freeze_depth, "augmentation": augmentation, "least_steps": 12}
    cached, listener = start("cached", cache="on", **settings)
    uncached, other = start("uncached", cache="off", **settings)
    assert any(text.startswith("cache on") for text in listener.messages)
    assert "cache off: as asked" in other.messages
    for split in ("validation", "test"):
        for name, value in uncached[split].items():
            assert cached[split][name] == pytest.approx(value, abs=1e-3), (split, name)
    assert probabilities(tmp_path / "cached")[0] == probabilities(tmp_path / "uncached")[0]
    np.testing.assert_allclose(*(probabilities(tmp_path / name)[1] for name in ("cached", "uncached")), atol=1e-3)


SEARCHED = ("looking for duplicates", 72)
"""Each run's last task, of all photos."""


def test_a_warm_cache_computes_nothing_and_serves_other_heads_and_rates(start):
    cold, listener = start("cold", cache="on")
    assert [task for task, _ in listener.tasks[:-1]] == ["reading photos", "checking photos", "computing frozen layers"]
    warm, listener = start("warm", cache="on")
    assert listener.tasks == [SEARCHED]
    assert warm["test"] == cold["test"]
    _, listener = start("other", cache="on", head="replaced", learning_rate=1e-4, scale=5.0)
    assert listener.tasks == [SEARCHED]


def test_a_cache_folder_that_cannot_be_made(start, monkeypatch):
    refused = r"^Expected `cache_dir` to be a folder that can be written to. Received: .*/proc"
    with pytest.raises(UserError, match=refused):
        start("asked", cache="auto", cache_dir="/proc/ktl")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc")
    with pytest.raises(UserError, match=refused):
        start("on", cache="on", cache_dir=None)
    _, listener = start("auto", cache="auto", cache_dir=None)
    assert any(text.startswith("cache off: [Errno") for text in listener.messages)
    _, listener = start("off", cache="off", cache_dir="/proc/ktl")
    assert "cache off: as asked" in listener.messages


def test_seeds_share_the_augmented_views(start):
    settings = {"cache": "on", "augmentation": "standard", "views": 2}
    first, listener = start("first", seed=1, **settings)
    assert ("computing frozen layers", 2 * first["photos"]["train"] + 18) in listener.tasks
    second, listener = start("second", seed=2, **settings)
    assert listener.tasks == [SEARCHED]
    assert second["validation"] != first["validation"]


def test_a_warm_cache_still_lists_the_bad_photos(start, photo_folder, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photo_folder, folder)
    bad = next(folder.glob("class0/*.png"))
    bad.write_bytes(bad.read_bytes()[:100])
    settings = {"cache": "on", "dataset": str(folder), "on_bad_image": "skip"}
    results = [start(output, **settings)[0] for output in ("cold", "warm")]
    for result in results:
        assert [photo["photo"] for photo in result["bad_photos"]] == [f"class0/{bad.name}"]
    assert sum(results[1]["photos"].values()) == 71


def test_a_full_disk_is_told_and_the_run_goes_on_without_the_cache(start, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards_module, "write_all", full)
    result, listener = start("full", cache="on")
    assert any(text.startswith("cache off: no space left in") for text in listener.messages)
    assert result["epochs"] == 3


def test_what_is_in_the_cache_is_used_however_little_more_has_room(start, tmp_path):
    """A disk that fills up between two trainings must not change what the second one trains on."""
    folder = {"cache": "on", "cache_dir": str(tmp_path / "cache")}
    start("first", **folder)
    _, listener = start("second", **folder, head="replaced", cache_limit=1e-6)
    assert any(text.startswith("cache on") for text in listener.messages)
    _, listener = start("other", **folder, cache_limit=1e-6, freeze_depth="stem_relu")
    assert any(text.startswith("cache off: it would take") for text in listener.messages)


def test_float16_features_and_augmented_views_train(start):
    result, listener = start("views", cache="on", cache_dtype="float16", augmentation="standard", views=2)
    photos = result["photos"]
    assert listener.tasks[2][1] == 2 * photos["train"] + photos["validation"] + photos["test"]
    assert result["epochs"] == 3
