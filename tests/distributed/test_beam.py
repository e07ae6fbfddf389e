"""Portions on Beam's processes of this machine are those that one process computes; kills lose nothing."""

import csv
import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chains import children
from stored_features import rows_in
from support import REPOSITORY
from tiny_predictor import write_model

from ktl.cli.main import main
from ktl.config.settings import RunConfig
from ktl.distributed.beam import bad_rows, require_beam
from ktl.distributed.features import FeaturePass
from ktl.distributed.portions import Portion
from ktl.errors import UserError
from ktl.runs.run import session_for_features

with_beam = pytest.mark.skipif(importlib.util.find_spec("apache_beam") is None, reason="needs the extra beam")


@pytest.fixture
def arguments(photo_folder, tiny_backbone, tmp_path):
    def arguments(*more, photos=photo_folder, cache="cache"):
        network = ("--backbone", tiny_backbone, "--freeze-depth", "block_relu", "--views", 60)
        beam = ("--runner", "direct", "--output", tmp_path / "done", "--shards", 6)
        given = ("features", "--dataset", photos, *network, "--cache-dir", tmp_path / cache, *beam, *more)
        return [str(argument) for argument in given]

    return arguments


@pytest.fixture(scope="module")
def whole(photo_folder, tiny_backbone, tmp_path_factory):
    """What one process computes of all photos, with all cores."""
    folder = tmp_path_factory.mktemp("whole")
    settings = {"dataset": str(photo_folder), "backbone": str(tiny_backbone), "freeze_depth": "block_relu"}
    FeaturePass(session_for_features(**settings, views=60, cache_dir=str(folder))).compute(Portion())
    return rows_in(folder)


def ktl(arguments) -> subprocess.Popen:
    """The command in a process of its own, and in a group that a signal can reach as a whole."""
    program = [sys.executable, "-m", "ktl", *arguments, "--runner-options=--direct_num_workers=2"]
    return subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, start_new_session=True
    )


def done_by(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


@with_beam
@pytest.mark.slow
def test_two_processes_compute_the_whole_once(arguments, whole, tmp_path):
    code, out, err = done_by(ktl([*arguments(), "--json"]))
    assert code == 0, err
    found = json.loads(out)
    assert (found["shard"], found["photos"], found["there"], found["computed"]) == ("all 6", 72, 0, 72)
    assert rows_in(tmp_path / "cache") == whole
    assert (tmp_path / "done" / "bad_photos.csv").read_text() == "photo,reason\n"
    code, out, err = done_by(ktl(arguments()))
    assert out.splitlines()[0] == "shard all 6 of stripes: 72 photos, 72 were there, 0 computed", err


@with_beam
@pytest.mark.slow
def test_bad_photos_are_aside(arguments, photo_folder, whole, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(photo_folder, photos)
    (photos / "class0" / "00.png").write_bytes(b"no photo")
    code, _, err = done_by(ktl(arguments(photos=photos)))
    assert code == 2
    assert err.splitlines()[-1].startswith("ktl: Expected photos that can be decoded. Received: 1 of 72 that cannot: ")
    code, _, err = done_by(ktl(arguments("--on-bad-image", "skip", photos=photos)))
    assert code == 0, err
    with open(tmp_path / "done" / "bad_photos.csv", newline="") as file:
        (bad,) = csv.DictReader(file)
    assert bad["photo"] == "class0/00.png"
    (key,) = whole
    assert rows_in(tmp_path / "cache")[key].items() <= whole[key].items()


def shards_in(folder: Path) -> set[tuple[str, int]]:
    return {(path.name, path.stat().st_ino) for path in folder.glob("*/*.shard")}


def last_processes(parent: int) -> list[int]:
    """Those that a process has started, or those that they have started."""
    return [last for child in children(parent) for last in last_processes(child)] or [parent]


def kill_all(process) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def kill_worker(process) -> None:
    os.kill(last_processes(process.pid)[0], signal.SIGKILL)
    code, _, err = done_by(process)
    assert code == 2
    assert err.splitlines()[-1].startswith("ktl: Expected the job on --runner direct to end. Received: ")


@with_beam
@pytest.mark.slow
@pytest.mark.parametrize("kill", [kill_all, kill_worker])
def test_a_killed_job_goes_on(arguments, whole, tmp_path, kill):
    process = ktl(arguments())
    while not shards_in(tmp_path / "cache") and process.poll() is None:
        time.sleep(0.05)
    kill(process)
    before = shards_in(tmp_path / "cache")
    assert before
    code, _, err = done_by(ktl(arguments()))
    assert code == 0, err
    assert before <= shards_in(tmp_path / "cache")
    assert rows_in(tmp_path / "cache") == whole


@pytest.fixture
def labelling(photo_folder, tiny_backbone, tmp_path):
    """The flags that label 72 photos and one that is none, by a tiny model."""
    photos = sorted(photo_folder.rglob("*.*"))
    (tmp_path / "list.txt").write_text("\n".join(map(str, [*photos, tmp_path / "none.jpg"])))
    model = write_model(tmp_path / "model", tiny_backbone)
    return [
        "predict",
        "--model",
        str(model),
        "--list",
        str(tmp_path / "list.txt"),
        "--output",
        str(tmp_path / "labels"),
    ]


@with_beam
@pytest.mark.slow
def test_labels_are_those_of_one_process(labelling, tmp_path):
    alone = [*labelling[:-1], str(tmp_path / "alone")]
    assert main([*alone, "--shards", "4"]) == 1
    code, out, err = done_by(ktl([*labelling, "--shards", "4", "--runner", "direct"]))
    assert code == 1, err
    assert [line.partition(":")[0] for line in out.splitlines()] == [f"shard {number}/4" for number in range(1, 5)]
    names = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert len(names) == 12
    for name in names:
        assert (tmp_path / "labels" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


@with_beam
@pytest.mark.slow
def test_what_a_worker_says_is_the_line(labelling, tmp_path):
    """The list names a photo on a server that nobody is at."""
    (tmp_path / "list.txt").write_text("http://127.0.0.1:9/a.jpg")
    code, _, err = done_by(ktl([*labelling, "--shards", "2", "--runner", "direct"]))
    assert code == 2
    assert err.splitlines()[-1].startswith(
        "ktl: Expected http://127.0.0.1:9/a.jpg to be reached. Received: Cannot conn"
    )


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--runner", "direct", "--shard", "1/2"], "Expected no --shard with --runner, which computes all of them."),
        (["--runner-options", "x"], "Expected --runner with --runner-options. Received: none"),
        (
            ["--runner", "direct", "--runner-options", "'"],
            "Expected --runner-options as a shell reads flags.",
        ),
    ],
)
def test_flags_of_beam_for_labels(labelling, capsys, more, line):
    assert main([*labelling, *more]) == 2
    assert capsys.readouterr().err.startswith(f"ktl: {line}")


def test_the_file_of_bad_photos():
    bad = [{"photo": 'a "b", c.jpg', "reason": "cut off"}, {"photo": "d.jpg", "reason": "empty"}]
    assert list(bad_rows(json.dumps({"bad_photos": bad}))) == ['"a ""b"", c.jpg",cut off', "d.jpg,empty"]
    assert list(bad_rows(json.dumps({"error": "Expected"}))) == []


@pytest.mark.skipif(importlib.util.find_spec("apache_beam") is not None, reason="Beam is installed")
def test_without_beam_a_line_tells_how_to_install_it(arguments, capsys):
    with pytest.raises(UserError, match=r'Install it: pip install "apache-beam>=2\.77"$'):
        require_beam()
    assert main(arguments()) == 2
    assert "Expected Apache Beam, which --runner needs." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--shard", "1/2"], "Expected no --shard with --runner, which computes all of them. Received: 1/2"),
        (["--shards", "0"], "Expected --shards from 1 to 1,000,000. Received: 0"),
    ],
)
def test_flags_that_exclude_each_other(arguments, capsys, more, line):
    assert main(arguments(*more)) == 2
    assert capsys.readouterr().err == f"ktl: {line}\n"


@pytest.mark.parametrize("name", ["output", "shards", "runner-options"])
def test_flags_of_beam_without_it(photo_folder, capsys, name):
    assert main(["features", "--dataset", str(photo_folder), f"--{name}", "3"]) == 2
    assert capsys.readouterr().err == f"ktl: Expected --runner with --{name}. Received: none\n"


def test_all_settings_reach_the_workers(tmp_path):
    """As JSON, of which the worker makes them again."""
    config = RunConfig(dataset="x", memory_gib=1, cache_dir=str(tmp_path), freeze_depth="all,3")
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    assert RunConfig(**json.loads(json.dumps(settings))) == config
