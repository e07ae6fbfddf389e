"""What is left of a run: read as data, whole or refused."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from support import one_line

from ktl.errors import UserError
from ktl.runs.finished_run import FILES, command_of, has_ended, read_run
from ktl.runs.run import run


@pytest.fixture(scope="module")
def finished(tiny_backbone, photo_folder, tmp_path_factory):
    """A run's folder and what `run` gave. Do not write here."""
    path = tmp_path_factory.mktemp("finished") / "run"
    settings = {"dataset": str(photo_folder), "backbone": str(tiny_backbone), "freeze_depth": "all", "seed": 4}
    return path, run(**settings, epochs=1, cache="off", class_weight={0: 2.0}, output=path, verbose=0)


def test_all_that_a_run_left_is_read(finished):
    path, result = finished
    found = read_run(path)
    assert found.path == path
    assert (found.settings["seed"], found.settings["freeze_depth"]) == (4, "all")
    assert "format_version" not in found.settings
    assert found.extras == {"class_weight": {"0": 2.0}}
    assert found.result == result
    assert found.environment["precision"] == "float32"
    assert found.class_names == tuple(f"class{label}" for label in range(6))
    assert set(found.probabilities) == {"validation", "test", "validation_labels", "test_labels"}
    assert found.probabilities["test"].shape == (len(found.test_photos), 6)
    top1 = np.mean(found.probabilities["test"].argmax(axis=1) == found.probabilities["test_labels"])
    assert found.result["test"]["top1"] == pytest.approx(top1)


def test_a_run_without_extras_has_none(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config.pop("extras")
    config.pop("checksum")
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert read_run(tmp_path / "run").extras == {}


def test_a_search_s_best_run_is_read(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "search" / "best")
    assert read_run(str(tmp_path / "search")).path == tmp_path / "search" / "best"


@pytest.mark.parametrize("lost", FILES)
def test_what_has_not_ended_is_refused(finished, tmp_path, lost):
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / lost).unlink()
    way_on = "Name a folder that a run wrote" if lost == "config.json" else "Repeat the command that began it"
    line = f"^Expected the folder of a run that has ended. .*, without {lost}. {way_on}$"
    with pytest.raises(UserError, match=line) as caught:
        read_run(tmp_path / "run")
    one_line(caught)


def test_what_is_no_folder_of_a_run_is_refused(finished, tmp_path):
    with pytest.raises(UserError, match="which is no folder"):
        read_run(tmp_path / "none")
    with pytest.raises(UserError, match=r"without config\.json, result\.json"):
        read_run(tmp_path)
    shutil.copytree(finished[0], tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"config\.json as ktl wrote it\. Received: nothing .*, at dataset") as caught:
        read_run(tmp_path / "other")
    one_line(caught)


@pytest.mark.parametrize("name", FILES[:3])
def test_files_of_a_later_version_are_refused_in_one_line(finished, tmp_path, name):
    shutil.copytree(finished[0], tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(UserError, match=f"^Expected format_version 1 .*: 2 in .*{name}. Update") as caught:
        read_run(tmp_path / "run")
    one_line(caught)


def test_files_that_say_no_format_are_those_of_version_0_1(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    for name in FILES[:3]:
        value = json.loads((tmp_path / "run" / name).read_text())
        value.pop("format_version")
        value.pop("checksum", None)
        (tmp_path / "run" / name).write_text(json.dumps(value))
    assert read_run(tmp_path / "run").result == finished[1]


@pytest.mark.parametrize("changed", ["class1 class0", "klass0 class1", "class0 class0"])
def test_class_names_that_were_changed_are_noticed_without_checksums(finished, tmp_path, changed):
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "checksums.json").unlink()
    names = (tmp_path / "run" / "labels.txt").read_text().split()
    (tmp_path / "run" / "labels.txt").write_text("\n".join([*changed.split(), *names[2:]]))
    with pytest.raises(UserError, match=r"predictions\.csv .*: other labels than labels\.txt") as caught:
        read_run(tmp_path / "run")
    one_line(caught)


@pytest.mark.parametrize("lost", ["model.keras", "predictions.csv"])
def test_a_run_that_has_ended_but_is_not_whole_is_told(finished, tmp_path, lost):
    assert has_ended(finished[0], "run")
    assert not has_ended(tmp_path, "run")
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / lost).unlink()
    with pytest.raises(UserError, match=rf"a run that has ended, without {lost}\. ") as caught:
        has_ended(tmp_path / "run", "run")
    one_line(caught)


def test_the_command_is_the_recorded_one(finished):
    found = read_run(finished[0])
    assert found.command == found.result["command"]
    assert found.command.startswith("python experiments/run.py --dataset ")
    assert "--seed 4" in found.command


def test_of_version_0_1_every_setting_is_a_flag():
    settings = {
        "dataset": "my photos",
        "image_size": None,
        "deterministic": False,
        "tensorboard": True,
        "space": {"scale": [1.0, 10.0], "freeze_depth": None},
        "keep": 3,
    }
    command = command_of({"settings": settings}, script="search", without=("keep",))
    assert command == (
        "python experiments/search.py --dataset 'my photos' --tensorboard --space 'scale=1.0,10.0 freeze_depth'"
    )


def test_reading_loads_neither_tensorflow_nor_the_settings(finished):
    code = f"""
import sys
from ktl.runs.finished_run import read_run
read_run({str(finished[0])!r})
print(sorted({{"tensorflow", "keras", "ktl.config.settings"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
