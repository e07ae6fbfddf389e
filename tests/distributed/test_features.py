"""Features that are computed without a training, as a whole and in portions, are those that a run computes."""

import os
import shutil

import pytest
from stored_features import rows_in
from support import Listener, start, write_photos

from ktl.config.settings import RunConfig
from ktl.data.loading import load_dataset
from ktl.distributed.features import FeaturePass
from ktl.distributed.portions import Portion
from ktl.errors import UserError
from ktl.features.folder import own_entries
from ktl.runs.run import run, session_for_features

pytestmark = pytest.mark.usefixtures("settled_photos")

SEARCHED = ("looking for duplicates", 72)
"""A run's last task, of all photos."""


@pytest.fixture
def settings(tiny_backbone, photo_folder):
    photos = {"dataset": str(photo_folder), "backbone": str(tiny_backbone), "freeze_depth": "block_relu", "views": 2}
    return {**photos, "epochs": 1, "batch_size": 8, "least_steps": 1, "cache": "on"}


@pytest.fixture(scope="module")
def whole(tiny_backbone, photo_folder, tmp_path_factory):
    """What a run has computed of all photos."""
    folder = tmp_path_factory.mktemp("whole")
    photos = {"dataset": str(photo_folder), "backbone": str(tiny_backbone), "freeze_depth": "block_relu", "views": 2}
    training = {"epochs": 1, "batch_size": 8, "least_steps": 1, "cache": "on", "cache_dir": str(folder / "cache")}
    run(RunConfig(**photos, **training), output=folder / "run", verbose=0)
    return rows_in(folder / "cache")


def compute(settings, *portions, **others):
    """What each portion found, of one pass."""
    listener = Listener()
    frozen = FeaturePass(session_for_features(**{**settings, **others}, reporter=listener))
    return [frozen.compute(portion) for portion in portions or [Portion()]], listener


def test_they_are_those_of_a_run_which_then_computes_nothing(settings, whole, tmp_path):
    cache = str(tmp_path / "cache")
    (computed,), listener = compute(settings, cache_dir=cache)
    assert [task for task, _ in listener.tasks] == ["reading photos", "checking photos", "computing frozen layers"]
    assert rows_in(tmp_path / "cache") == whole
    assert (computed.filled.photos, computed.filled.there, computed.photos) == (72, 0, 72)
    listener = Listener()
    run(RunConfig(**settings, cache_dir=cache), output=tmp_path / "run", verbose=listener)
    assert listener.tasks == [SEARCHED]
    assert any(line.endswith("72 of 72 photos are there") for line in listener.messages)
    (again,), _ = compute(settings, cache_dir=cache)
    assert (again.filled.there, again.photos) == (72, 0)


def test_portions_are_the_whole_and_each_computes_its_own_alone(settings, whole, tmp_path, photo_folder):
    names = [photo for split in load_dataset(str(photo_folder)).splits for photo in split.photos]
    portions = [Portion(number, 4) for number in (3, 1, 4, 2)]
    found, listener = compute(settings, *portions, cache_dir=str(tmp_path))
    assert [one.photos for one in found] == [sum(map(portion.has, names)) for portion in portions]
    read = [total for task, total in listener.tasks if task in ("reading photos", "checking photos")]
    assert read == [one.photos for one in found for _ in range(2)]
    assert rows_in(tmp_path) == whole


def test_more_portions_than_photos(settings, whole, tmp_path):
    found, _ = compute(settings, *(Portion(number, 100) for number in range(1, 101)), cache_dir=str(tmp_path))
    assert 0 in [one.photos for one in found]
    assert rows_in(tmp_path) == whole


def compute_in_process(settings, number):
    FeaturePass(session_for_features(**settings)).compute(Portion(number, 2))


def test_several_at_once(settings, whole, tmp_path):
    settings["cache_dir"] = str(tmp_path)
    processes = [start(compute_in_process, settings, number) for number in (1, 2, 2)]
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert rows_in(tmp_path) == whole


def test_several_depths_in_one_pass(settings, whole, tmp_path):
    (computed,), listener = compute(settings, cache_dir=str(tmp_path), freeze_depth="block_relu, all")
    assert computed.filled.features == {"block_relu": (11, 11, 16), "predictions": (20,)}
    assert ("computing frozen layers", 2 * 54 + 18) in listener.tasks
    assert whole.items() <= rows_in(tmp_path).items()
    assert len(own_entries(tmp_path)) == 2


@pytest.mark.parametrize("more", [{"refit": "on"}, {"folds": 3}])
def test_what_a_refit_sees_is_computed_too(settings, tmp_path, more):
    cache = str(tmp_path / "cache")
    compute(settings, Portion(1, 2), Portion(2, 2), cache_dir=cache, **more)
    listener = Listener()
    run(RunConfig(**settings, cache_dir=cache, **more), output=tmp_path / "run", verbose=listener)
    assert "computing frozen layers" not in dict(listener.tasks)


@pytest.fixture
def with_bad_photo(photo_folder, tmp_path):
    """The photos, of which the first cannot be read."""
    folder = tmp_path / "photos"
    shutil.copytree(photo_folder, folder)
    (folder / "class0" / "00.png").write_bytes(b"no photo")
    return str(folder)


def test_bad_photos_are_left_out_where_that_is_asked(settings, with_bad_photo, whole, tmp_path):
    settings |= {"dataset": with_bad_photo, "cache_dir": str(tmp_path / "cache")}
    (computed,), listener = compute(settings, on_bad_image="skip")
    assert [photo for photo, _ in computed.filled.bad_photos] == ["class0/00.png"]
    assert computed.photos == 71
    (key,) = whole
    assert rows_in(tmp_path / "cache")[key].items() <= whole[key].items()
    assert any(line.startswith("skipped 1 photos that cannot be read: class0/00.png (") for line in listener.messages)


def test_bad_photos_stop_the_portion_that_has_them(settings, with_bad_photo, tmp_path):
    settings |= {"dataset": with_bad_photo, "cache_dir": str(tmp_path / "cache")}
    its, other = sorted((Portion(1, 2), Portion(2, 2)), key=lambda portion: not portion.has("class0/00.png"))
    (computed,), _ = compute(settings, other)
    assert computed.photos == computed.filled.photos
    with pytest.raises(UserError, match=r"^Expected photos that can be decoded. Received: 1 .* class0/00.png \("):
        compute(settings, its)


def test_what_is_there_counts_as_used_now(settings, tmp_path):
    """Else it would be the first to go when room is needed."""
    compute(settings, cache_dir=str(tmp_path))
    shards = [shard.path for entry in own_entries(tmp_path) for shard in entry.shards]
    for path in shards:
        os.utime(path, (1, 1))
    compute(settings, cache_dir=str(tmp_path))
    assert shards
    assert all(path.stat().st_mtime > 1 for path in shards)


def test_rows_of_other_photos_make_room(settings, tmp_path):
    """The limit is for all photos: what is asked for now has room, if that of before goes."""
    settings["dataset"] = str(write_photos(tmp_path / "half", classes=3))
    (alone,), _ = compute(settings, cache_dir=str(tmp_path / "alone"))
    before = {
        **settings,
        "dataset": str(write_photos(tmp_path / "more", classes=5)),
        "cache_dir": str(tmp_path / "cache"),
    }
    compute(before)
    limit = 1.2 * alone.filled.nbytes / 2**30
    (beside,), _ = compute(settings, cache_dir=str(tmp_path / "cache"), cache_limit=limit)
    assert beside.filled.nbytes == alone.filled.nbytes
    found = rows_in(tmp_path / "cache")
    assert all(rows.items() <= found[entry].items() for entry, rows in rows_in(tmp_path / "alone").items())


@pytest.mark.parametrize(
    ("others", "line"),
    [
        ({"freeze_depth": "none"}, "Expected `freeze_depth` to freeze something: .* Received: none"),
        ({"freeze_depth": "all,none"}, "Expected `freeze_depth` to freeze something: .* Received: none"),
        ({"freeze_depth": "all,nothing"}, "Expected `freeze_depth` to be none, all, auto or one of: .*nothing"),
        ({"freeze_depth": " , "}, "Expected at least one `freeze_depth`. Received:  , "),
        ({"cache": "off"}, "Expected `cache` auto or on: .* Received: off"),
        ({"head": "auto"}, "Expected a `head` by name: .* Received: auto"),
        ({"cache_limit": 1e-4}, "Expected `cache_limit` of 0.001 GiB or more, .* Received: 0.0001"),
        ({"cache_dir": "/proc/ktl"}, "Expected `cache_dir` to be a folder that can be written to. Received: .*"),
    ],
)
def test_what_cannot_be_computed_is_refused(settings, tmp_path, others, line):
    with pytest.raises(UserError, match=f"^{line}"):
        compute({**settings, "cache_dir": str(tmp_path), **others})
    assert own_entries(tmp_path) == [] or not own_entries(tmp_path)[0].shards
