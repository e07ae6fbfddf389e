"""The folder of a run: what its files hold, whose it is, and who may work in it."""

import contextlib
import csv
import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from support import one_line

from ktl.config.settings import RunConfig, SearchConfig, StudyConfig
from ktl.data.duplicates import Duplicate
from ktl.data.loading import load_dataset
from ktl.errors import UserError
from ktl.files import read_json
from ktl.runs.run_folder import RunFolder
from ktl.studies.design import part_of
from ktl.studies.records import Part
from ktl.studies.study_folder import StudyFolder
from ktl.tuning.search_folder import SearchFolder

CONFIG = RunConfig(dataset="./no-such-folder")
NAMES = ("ash", "birch", 'elm, "wych"')
PROBABILITIES = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.4, 0.2]])
LABELS = np.array([0, 1, 1])


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "deep" / "run", CONFIG)


def read_csv(path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def snapshot(folder) -> dict:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_new_folder_holds_the_settings_and_nothing_else(folder):
    assert os.listdir(folder.path) == ["config.json"]
    assert read_json(folder.path / "config.json") == CONFIG.as_dict()
    assert folder.result is None


def test_work_goes_on_with_the_photos_and_splits_that_it_began_with(folder, photo_folder, tmp_path):
    dataset = load_dataset(str(photo_folder))
    moved = part_of(dataset, Part(0.5), draw=0)
    shutil.copytree(photo_folder, tmp_path / "copy")
    copied = load_dataset(str(tmp_path / "copy"))  # other files, of other times: the same photos
    for each in (moved, dataset, copied):
        folder.hold_to(each)  # no work is there
    (folder.path / "checkpoint").mkdir()
    recorded = snapshot(folder.path)
    folder.hold_to(dataset)
    with pytest.raises(UserError, match=r"^Expected the photos, classes, splits and files that the run in .* began"):
        folder.hold_to(moved)
    next((tmp_path / "copy" / "class0").iterdir()).unlink()
    with pytest.raises(UserError, match=r"of now \{'train': \d+, 'validation': \d+, 'test': \d+\} photos"):
        folder.hold_to(load_dataset(str(tmp_path / "copy")))
    assert snapshot(folder.path) == recorded


def test_the_same_photos_in_splits_that_an_update_draws_otherwise(folder, photo_folder, monkeypatch):
    folder.hold_to(load_dataset(str(photo_folder)))
    (folder.path / "checkpoint").mkdir()
    monkeypatch.setattr("ktl.data.dataset.SPLIT_SEED", 7)
    with pytest.raises(UserError, match="the same photos and classes in other splits; validation and test are drawn"):
        folder.hold_to(load_dataset(str(photo_folder)))


@pytest.mark.parametrize("changed", ["net.keras", "net.weights.h5", "synsets.csv"])
def test_work_goes_on_with_the_files_that_it_began_with(photo_folder, tmp_path, monkeypatch, changed):
    monkeypatch.chdir(tmp_path)
    dataset = load_dataset(str(photo_folder))
    for name in ("net.keras", "net.weights.h5", "synsets.csv"):
        (tmp_path / name).write_text("one")
    config = StudyConfig(dataset="x", backbone="net.keras", weights="net.weights.h5", synsets="synsets.csv")
    folder = StudyFolder(tmp_path / "out", config)
    folder.hold_to(dataset)
    (tmp_path / "out" / "runs").mkdir()
    folder.hold_to(dataset)
    (tmp_path / changed).write_text("another")
    with pytest.raises(UserError, match=f"Received: others.*{changed}"):
        folder.hold_to(dataset)


def test_an_empty_folder_and_the_same_settings_are_welcome(tmp_path):
    for _ in range(2):
        RunFolder(tmp_path, CONFIG)
        RunFolder(str(tmp_path), RunConfig(dataset=CONFIG.dataset))


def test_history_has_a_row_an_epoch(folder):
    row = {"epoch": 1, "loss": 0.1 + 0.2, "top1": 0.5, "validation_loss": 2.0, "validation_top1": 1 / 3, "seconds": 9.0}
    folder.write_history([row, row | {"epoch": 2}])
    header, first, second = read_csv(folder.path / "history.csv")
    assert header == ["epoch", "loss", "top1", "validation_loss", "validation_top1", "seconds"]
    assert [float(value) for value in first] == list(row.values())  # no digit is lost
    assert second[0] == "2"


def test_labels_are_lines_in_the_order_of_the_logits(folder):
    folder.write_labels(("ö", "b", "a"))
    assert (folder.path / "labels.txt").read_bytes() == "ö\nb\na\n".encode()


def test_predictions_name_the_best_two_classes(folder):
    folder.write_predictions(["x.jpg", "y, z.jpg", "t.jpg"], LABELS, PROBABILITIES, NAMES)
    assert read_csv(folder.path / "predictions.csv") == [
        ["photo", "label", "prediction", "probability", "runner_up", "runner_up_probability"],
        ["x.jpg", "ash", "ash", "0.500000", "birch", "0.300000"],
        ["y, z.jpg", "birch", 'elm, "wych"', "0.700000", "birch", "0.200000"],
        ["t.jpg", "birch", "ash", "0.400000", "birch", "0.400000"],  # the first of equals, as in the scores
    ]


def test_predictions_must_be_as_many_as_photos(folder):
    with pytest.raises(ValueError, match=r"shorter|longer"):
        folder.write_predictions(["x.jpg"], LABELS, PROBABILITIES, NAMES)
    assert not (folder.path / "predictions.csv").exists()


def test_confusion_has_true_classes_in_rows(folder):
    folder.write_confusion(np.array([[1, 0, 0], [1, 0, 1], [0, 0, 0]]), NAMES)
    assert read_csv(folder.path / "confusion.csv") == [
        ["label", *NAMES],
        ["ash", "1", "0", "0"],
        ["birch", "1", "0", "1"],
        ['elm, "wych"', "0", "0", "0"],
    ]


def test_the_kept_layer_has_a_row_an_imagenet_class(folder):
    numbers = {"contribution": 1 / 3, "share": 0.25, "activation": -2e-7}
    folder.write_kept_layer([{"class": "ö", "rank": 1, "synset": "n1", "imagenet_class": "a, b", **numbers}])
    assert read_csv(folder.path / "kept_layer.csv") == [
        ["class", "rank", "synset", "imagenet_class", "contribution", "share", "activation"],
        ["ö", "1", "n1", "a, b", "0.333333", "0.25", "-2e-07"],
    ]


def test_the_model_opens_again_and_a_failed_save_leaves_the_old_one(folder):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    folder.write_model(model)
    assert sorted(os.listdir(folder.path)) == ["config.json", "model.keras"]
    reopened = keras.models.load_model(folder.path / "model.keras")
    np.testing.assert_array_equal(reopened.get_weights()[0], model.get_weights()[0])
    old = (folder.path / "model.keras").read_bytes()

    class Broken:
        def save(self, path):
            path.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        folder.write_model(Broken())
    assert (folder.path / "model.keras").read_bytes() == old


def test_a_value_that_json_cannot_hold_leaves_the_old_file(folder):
    with pytest.raises(TypeError):
        folder.write_json("config.json", {"a": object()})
    assert read_json(folder.path / "config.json") == CONFIG.as_dict()
    assert os.listdir(folder.path) == ["config.json"]


def test_other_settings_are_refused_with_the_differences_and_nothing_is_touched(folder):
    folder.write_json("result.json", {"test": {}})
    before = snapshot(folder.path)
    with pytest.raises(UserError) as error:
        RunFolder(folder.path, dataclasses.replace(CONFIG, epochs=3, head="replaced"))
    text = str(error.value)
    for part in (str(folder.path), "epochs 15 there, 3 here", "head 'kept' there, 'replaced' here", "`output`"):
        assert part in text
    assert "\n" not in text
    assert "batch_size" not in text
    assert snapshot(folder.path) == before


def test_a_run_that_failed_before_its_first_epoch_gives_way(folder):
    other = dataclasses.replace(CONFIG, dataset="typo-corrected")
    assert RunFolder(folder.path, other).result is None
    assert json.loads((folder.path / "config.json").read_text())["dataset"] == "typo-corrected"
    (folder.path / "checkpoint").mkdir()
    with pytest.raises(UserError, match="typo-corrected"):
        RunFolder(folder.path, CONFIG)


def test_a_first_write_that_was_killed_leaves_a_folder_that_works(tmp_path):
    (tmp_path / ".config.json-abc").touch()
    assert RunFolder(tmp_path, CONFIG).result is None


def test_settings_of_another_version_are_differences_too(folder):
    folder.write_json("config.json", {**CONFIG.as_dict(), "momentum": 0.5})
    folder.write_json("result.json", {"test": {}})
    with pytest.raises(UserError, match=r"momentum 0\.5 there, None here"):
        RunFolder(folder.path, CONFIG)


def test_a_setting_that_an_earlier_version_did_not_have_counts_as_not_given(folder):
    recorded = {name: value for name, value in CONFIG.as_dict().items() if name != "image_size"}
    folder.write_json("config.json", recorded)
    folder.write_json("result.json", {"test": {}})
    assert RunFolder(folder.path, CONFIG).result == {"test": {}}
    with pytest.raises(UserError, match="image_size None there, 64 here"):
        RunFolder(folder.path, dataclasses.replace(CONFIG, image_size=64))


@pytest.mark.parametrize("name", ["letter.txt", ".hidden", "checkpoint"])
def test_a_folder_with_something_else_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=r"^Expected `output` to be a new or empty folder, or a run's\.") as caught:
        RunFolder(tmp_path, CONFIG)
    assert one_line(caught).endswith(f"Received: {tmp_path}")
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"^Expected `output` to be a new or empty folder"):
        RunFolder(tmp_path / "file", CONFIG)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("content", ["{not json", "[1, 2]", '"text"', ""])
def test_someone_elses_config_json_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="Received: "):
        RunFolder(tmp_path, CONFIG)
    assert (tmp_path / "config.json").read_text() == content


def test_what_a_kill_left_half_written_goes_with_the_end_of_the_run(folder, monkeypatch):
    def killed(*arguments):
        raise SystemExit

    monkeypatch.setattr(os, "replace", killed)
    monkeypatch.setattr(os, "unlink", lambda path: None)
    with pytest.raises(SystemExit):
        folder.write_labels(("ash", "birch"))
    monkeypatch.undo()
    (left,) = (path.name for path in folder.path.glob(".labels.txt-*"))
    (folder.path / ".gitignore").write_text("*\n")
    folder.remove_leftovers()
    assert left not in os.listdir(folder.path)
    assert {".gitignore", "config.json"} <= set(os.listdir(folder.path))


def test_a_search_neither_takes_over_nor_overwrites_the_folder_of_something_else(tmp_path):
    run = RunFolder(tmp_path / "run", RunConfig(dataset="x"))
    os.mkdir(run.checkpoint_dir)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    with pytest.raises(UserError, match="Expected the settings of the search"):
        SearchFolder(tmp_path / "run", SearchConfig(dataset="x"))
    for name in ("run", "other"):
        with pytest.raises(UserError, match="Expected a search to overwrite"):
            SearchFolder(tmp_path / name, SearchConfig(dataset="x"), overwrite=True)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


KINDS = {
    "checkpoint": (RunFolder, RunConfig),
    "trials": (SearchFolder, SearchConfig),
    "runs": (StudyFolder, StudyConfig),
}


@pytest.mark.parametrize(("work", "other"), list(itertools.permutations(KINDS, 2)))
def test_nothing_takes_over_what_another_kind_has_begun(tmp_path, work, other):
    (begun, settings), (wrong, wrong_settings) = KINDS[work], KINDS[other]
    begun(tmp_path / "out", settings(dataset="x"))
    (tmp_path / "out" / work).mkdir()
    with pytest.raises(UserError, match=f"Expected the settings of the {wrong.KIND}"):
        wrong(tmp_path / "out", wrong_settings(dataset="x"))
    begun(tmp_path / "out", settings(dataset="x"))


# Links


@pytest.fixture
def outside(tmp_path):
    """Files of somebody's, which no link in a run's folder may touch."""
    (tmp_path / "outside").mkdir()
    for name in ("state.json", "last-9.npz", "letter.txt"):
        (tmp_path / "outside" / name).write_text("mine")
    return tmp_path / "outside"


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", ["checkpoint", "trials/0", "runs/a/checkpoint", "best", ".lock", "environment.json"])
def test_a_folder_with_links_in_it_is_refused_and_what_they_lead_to_stays(tmp_path, outside, kind, name):
    make, settings = kind
    folder = make(tmp_path / "out", settings(dataset="x"))
    link = folder.path / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside / "letter.txt" if "." in name else outside)
    before = snapshot(outside)
    for overwrite in (False, True):
        if overwrite and make is RunFolder:
            continue
        with pytest.raises(UserError, match="Expected `output` to have no links in it") as error:
            make(tmp_path / "out", settings(dataset="x"), overwrite=overwrite).held().__enter__()
        one_line(error)
        assert snapshot(outside) == before
    assert link.is_symlink()


def test_the_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with RunFolder(tmp_path / "out", CONFIG).held():
        pass
    assert os.listdir(tmp_path / "disk") == ["config.json"]


def test_a_model_is_not_written_where_a_link_leads_to(folder, outside):
    (folder.path / ".model.keras").symlink_to(outside / "letter.txt")
    (folder.path / "model.keras").symlink_to(outside / "letter.txt")
    folder.write_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    assert (outside / "letter.txt").read_text() == "mine"
    assert keras.models.load_model(folder.path / "model.keras").count_params() == 3


# What a failure leaves


def fail_in(folder, name, error):
    with folder.held():
        (folder.path / name).mkdir()
        raise error


@pytest.mark.parametrize("error", [UserError("bad weights"), KeyboardInterrupt()])
def test_a_failure_before_any_work_leaves_nothing_that_was_made_for_it(tmp_path, error):
    (tmp_path / "there").mkdir()
    folder = RunFolder(tmp_path / "there" / "runs" / "a", CONFIG)
    folder.write_json("dataset.json", {})
    (folder.path / ".config.json-abcdefgh").touch()
    with pytest.raises(type(error)), folder.held():
        raise error
    assert os.listdir(tmp_path / "there") == []


@pytest.mark.parametrize("work", ["checkpoint", "trials", "runs", "somebody's"])
def test_a_failure_leaves_what_is_not_its_own_and_what_can_go_on(tmp_path, work):
    with pytest.raises(UserError):
        fail_in(RunFolder(tmp_path / "out", CONFIG), work, UserError("disk full"))
    assert set(os.listdir(tmp_path / "out")) == ({work} if work == "somebody's" else {work, "config.json"})


def test_a_failure_leaves_what_an_earlier_call_began(folder):
    with pytest.raises(UserError), RunFolder(folder.path, CONFIG).held():
        raise UserError("bad weights")
    assert os.listdir(folder.path) == ["config.json"]


# Who works in it


def test_two_folders_of_one_path_are_not_at_work_at_once(folder):
    other = RunFolder(folder.path, CONFIG)
    with folder.held(), pytest.raises(UserError, match=r"^Expected no other process at work on the run in "):
        other.held().__enter__()
    with other.held():
        assert sorted(os.listdir(folder.path)) == [".lock", "config.json"]
    assert os.listdir(folder.path) == ["config.json"]


HOLD = """
import sys
{first}
from ktl.config.settings import RunConfig
from ktl.runs.run_folder import RunFolder
with RunFolder(sys.argv[1], RunConfig(dataset="./no-such-folder")).held():
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def another_process_at_work(path, *, first=""):
    command = [sys.executable, "-c", HOLD.format(first=first), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.communicate("done\n")
    assert process.returncode == 0 or process.returncode == -signal.SIGKILL


def test_two_processes_are_not_at_work_on_one_folder(folder):
    with another_process_at_work(folder.path):
        with pytest.raises(UserError, match=r"^Expected no other process at work on the run in ") as caught:
            folder.held().__enter__()
        assert "name another `output`" in one_line(caught)
    with folder.held():
        pass
    assert os.listdir(folder.path) == ["config.json"]


def test_a_process_that_was_killed_keeps_nobody_out(folder):
    with another_process_at_work(folder.path) as process:
        process.kill()
        process.wait()
        with folder.held():
            pass
    assert os.listdir(folder.path) == ["config.json"]


def test_folders_are_held_where_fcntl_is_absent_too(folder):
    """As on Windows: a fresh process in which it cannot be imported."""
    with another_process_at_work(folder.path, first="sys.modules['fcntl'] = None"):
        done = subprocess.run(
            [sys.executable, "-c", HOLD.format(first="sys.modules['fcntl'] = None"), str(folder.path)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "Expected no other process at work on the run in" in done.stderr
    assert os.listdir(folder.path) == ["config.json"]


def test_a_lock_that_cannot_be_removed_is_in_nobody_s_way(folder, monkeypatch):
    """Where an open file has to stay, as on Windows."""

    def refuse(path, *arguments, **settings):
        raise PermissionError(13, "in use", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with folder.held():
        pass
    monkeypatch.undo()
    assert sorted(os.listdir(folder.path)) == [".lock", "config.json"]
    with RunFolder(folder.path, CONFIG).held():
        pass
    assert os.listdir(folder.path) == ["config.json"]


def test_what_a_process_is_at_work_on_is_not_overwritten(tmp_path):
    search = SearchFolder(tmp_path / "search", SearchConfig(dataset="x"))
    (tmp_path / "search" / "trials").mkdir()
    with search.held(), pytest.raises(UserError, match="no other process at work on the search"):
        SearchFolder(tmp_path / "search", SearchConfig(dataset="y"), overwrite=True)
    assert (tmp_path / "search" / "trials").is_dir()


def test_overwriting_keeps_the_folder_itself(tmp_path):
    """It may be a link; and a kill in the middle leaves what can be overwritten again."""
    SearchFolder(tmp_path / "search", SearchConfig(dataset="x"))
    (tmp_path / "search" / "trials").mkdir()
    (tmp_path / "search" / "trials.csv").touch()
    (tmp_path / "link").symlink_to(tmp_path / "search")
    SearchFolder(tmp_path / "link", SearchConfig(dataset="y"), overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "search") == ["config.json"]
    assert json.loads((tmp_path / "search" / "config.json").read_text())["dataset"] == "y"


# Folders of version 0.1


def begun_by_version_0_1(path, config=CONFIG, *, work) -> dict:
    """A folder as it left it: no file says its format, and there was no `class_weight`. What it has."""
    path.mkdir()
    recorded = {name: value for name, value in config.as_dict().items() if name != "class_weight"}
    if isinstance(config, StudyConfig):  # of which a study had no say
        recorded |= {"head": "kept", "scale": 3.0, "freeze_depth": "auto", "learning_rate": 0.001}
    (path / "config.json").write_text(json.dumps(recorded))
    if work == "result.json":
        (path / work).write_text(json.dumps({"test": {"top1": 0.5}}))
    else:
        (path / work).mkdir()
    return snapshot(path)


@pytest.mark.parametrize("work", KINDS)
def test_what_version_0_1_has_not_finished_is_refused_in_one_line(tmp_path, work):
    kind, settings = KINDS[work]
    config = settings(dataset="x")
    before = begun_by_version_0_1(tmp_path / "old", config, work=work)
    with pytest.raises(UserError, match=r"Received: one that version 0\.1 began\. Finish it with") as caught:
        kind(tmp_path / "old", config)
    assert "Name another `output`" in one_line(caught)
    assert snapshot(tmp_path / "old") == before
    kind(tmp_path / "old", config, overwrite=True)
    assert os.listdir(tmp_path / "old") == ["config.json"]


@pytest.mark.parametrize("work", KINDS)
def test_what_version_0_1_has_finished_has_its_result_and_is_left_as_it_is(tmp_path, work):
    kind, settings = KINDS[work]
    config = settings(dataset="x")
    before = begun_by_version_0_1(tmp_path / "old", config, work="result.json")
    assert kind(tmp_path / "old", config).result == {"test": {"top1": 0.5}}
    assert snapshot(tmp_path / "old") == before
    with pytest.raises(UserError, match="class_weight 'none' there, 'balanced' here"):
        kind(tmp_path / "old", dataclasses.replace(config, class_weight="balanced"))


def test_a_folder_of_a_later_version_is_refused_in_one_line(folder):
    folder.write_json("result.json", {"test": {}})
    for name in ("result.json", "config.json"):
        recorded = json.loads((folder.path / name).read_text())
        (folder.path / name).write_text(json.dumps({**recorded, "format_version": 2}))
        with pytest.raises(UserError, match=r"^Expected format_version 1 .*: 2 in .*Update ktl") as caught:
            _ = RunFolder(folder.path, CONFIG).result
        one_line(caught)


def test_every_json_file_says_its_format(folder, photo_folder):
    folder.hold_to(load_dataset(str(photo_folder)))
    folder.write_json("result.json", {"test": {}})
    for name in ("config.json", "dataset.json", "result.json"):
        assert json.loads((folder.path / name).read_text())["format_version"] == 1
    assert folder.result == {"test": {}}


# Extras


def test_extras_are_a_part_of_the_settings(tmp_path):
    RunFolder(tmp_path / "run", CONFIG, extras={"class_weight": {"1": 2.0}})
    recorded = read_json(tmp_path / "run" / "config.json")
    assert recorded == {**CONFIG.as_dict(), "extras": {"class_weight": {"1": 2.0}}}
    RunFolder(tmp_path / "run", CONFIG, extras={"class_weight": {"1": 3.0}})  # no work is there
    (tmp_path / "run" / "checkpoint").mkdir()
    RunFolder(tmp_path / "run", CONFIG, extras={"class_weight": {"1": 3.0}})
    with pytest.raises(UserError, match=r"extras \{'class_weight': \{'1': 3\.0\}\} there, None here\. Name another"):
        RunFolder(tmp_path / "run", CONFIG)
    RunFolder(tmp_path / "run", CONFIG, overwrite=True)
    assert "extras" not in json.loads((tmp_path / "run" / "config.json").read_text())


def test_duplicates_survive_their_file(tmp_path):
    folder = RunFolder(tmp_path / "run", RunConfig(dataset="stripes"))
    assert folder.read_duplicates() is None
    found = (
        Duplicate("a.jpg", "test", "b.jpg", "validation", 0, True),
        Duplicate("c.jpg", "validation", "d.jpg", "train", 5, False),
    )
    folder.write_duplicates(found)
    assert folder.read_duplicates() == found
