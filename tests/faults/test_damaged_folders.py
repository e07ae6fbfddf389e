"""Folders that were damaged or edited: each file that is read back, in each way, ends in one line that names it."""

import json
import pickle
import random
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import support
from made_up_folders import made_up, write_kept_layer, write_run, write_search
from made_up_studies import STUDY, study_runs, write_study
from support import edit_json

import ktl
from ktl.config.settings import RunConfig
from ktl.data.duplicates import Duplicate
from ktl.errors import UserError
from ktl.exporting.record import ExportRecord, read_record, write_record
from ktl.exporting.run_subject import subject_of_run
from ktl.files import read_json, write_checksums
from ktl.reporting import page
from ktl.reporting.page import write_report
from ktl.runs.finished_run import read_run
from ktl.runs.run_folder import RunFolder


def flipped(content: bytes, seed: int) -> bytes:
    generator = random.Random(seed)
    place = generator.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << generator.randrange(8)]) + content[place + 1 :]


DAMAGES = {
    **support.DAMAGES,
    "latin": lambda content: content[:5] + b"\xff\xfe" + content[5:],
    "nul": lambda content: content[:5] + b"\0" + content[5:],
    "pickle": lambda content: pickle.dumps([1, 2]),
    "npz": lambda content: support.pickled("test"),
    "huge": lambda content: b'{"format_version": 1, "a": ' + b"9" * 5000 + b"}",
    **{f"flip {seed}": lambda content, seed=seed: flipped(content, seed) for seed in range(2)},
}
"""Name -> a file's content to what is there in its place."""

WRONG = (None, True, -1, 7.5, float("nan"), 1e308, 2**70, "text", [], {}, [[1]], {"a": None})
"""Values that an edited JSON file may have in the place of any other."""


def edits(value: dict) -> list[dict]:
    """Each key of an object, and of the objects in it, gone or with another value; without the checksum."""
    value = {name: inner for name, inner in value.items() if name != "checksum"}
    found = []
    for name, inner in value.items():
        found.append({key: value[key] for key in value if key != name})
        found += [{**value, name: wrong} for wrong in WRONG]
        if isinstance(inner, dict):
            found += [{**value, name: edited} for edited in edits(inner)]
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            found += [{**value, name: [edited, *inner[1:]]} for edited in edits(inner[0])]
    return found


def report(folder: Path) -> bytes:
    return write_report([folder], output=folder.parent / "report.html").read_bytes()


def predict(folder: Path):
    (prediction,) = ktl.predict(folder, np.full((50, 60, 3), 99, np.uint8), verbose=0)
    return prediction


def read_for_export(folder: Path):
    subject = subject_of_run(read_run(folder), calibrate=True)
    return subject.class_names, subject.calibration


NAMES = [f"class {number}" for number in range(20)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_backbone) -> dict[str, Path]:
    """Finished folders: a run with its model, a search, a study, an export."""
    root = tmp_path_factory.mktemp("finished")
    names = NAMES
    test, validation = made_up(60, 20), made_up(40, 20, seed=5)
    photos = [f"{number}.jpg" for number in range(60)]
    config = RunConfig(dataset="/gone", weights="random")
    run = write_run(root / "run", config, class_names=names, photos=photos, validation=validation, test=test)
    write_kept_layer(run, names[:4])
    run.write_model(keras.models.load_model(tiny_backbone))
    run.write_duplicates([Duplicate(photos[3], "test", "0.jpg", "train", 4, False)])
    run.write_result(read_json(run.path / "result.json"))
    write_search(root / "search", run.path)
    write_checksums(root / "search")
    write_study(root / "study", STUDY, study_runs(STUDY, photos=6))
    write_checksums(root / "study")
    write_made_up_export(root / "export", run.path, names)
    return {name: root / name for name in ("run", "search", "study", "export")}


def write_made_up_export(folder: Path, run: Path, class_names: list[str]) -> None:
    folder.mkdir()
    for name in ("model.keras", "labels.txt"):
        shutil.copy(run / name, folder)
    found = {"photos": 60, "undecoded": 0, "largest_difference": 0.0, "labels_changed": 0, "top1": 0.5, "run_top1": 0.5}
    write_record(
        folder, ExportRecord("keras", "none", tuple(class_names), 42, 1.0, "test photos of the run", found, None)
    )
    write_checksums(folder)


def go_on(folder: Path):
    """The command that made the folder, once more: it gives back what is there."""
    kind, work = {
        "run": (ktl.RunConfig, ktl.run),
        "search": (ktl.SearchConfig, ktl.search),
        "study": (ktl.StudyConfig, ktl.study),
    }[folder.name]
    return work(kind.from_dict(read_json(folder / "config.json")), output=folder, verbose=0)


FILES = {
    "run": {
        "config.json": report,
        "result.json": report,
        "environment.json": report,
        "history.csv": report,
        "labels.txt": report,
        "predictions.csv": report,
        "probabilities.npz": report,
        "kept_layer.csv": report,
        "duplicates.csv": report,
        "checksums.json": report,
        "model.keras": predict,
    },
    "search": {"result.json": report, "trials.csv": report, "best/result.json": report},
    "study": {"result.json": report, "summary.csv": report, "runs/3/run.json": report, "duplicates.csv": report},
    "export": {"export.json": read_record, "labels.txt": predict, "model.keras": predict, "checksums.json": predict},
}
"""Kind of folder -> file -> what reads it."""

CASES = [(kind, name, action) for kind, files in FILES.items() for name, action in files.items()]


@pytest.fixture
def work(folders, tmp_path):
    """Gives a copy of a folder."""
    return lambda kind: shutil.copytree(folders[kind], tmp_path / kind)


def refusal_of(action, folder: Path) -> str | None:
    """The one line with which a command ends, or None."""
    try:
        action(folder)
    except UserError as error:
        return f"{error}"
    return None


@pytest.mark.parametrize(("kind", "name", "action"), CASES, ids=[f"{kind}/{name}" for kind, name, _ in CASES])
def test_a_damaged_file_is_named_and_changes_no_answer(work, kind, name, action):
    folder = work(kind)
    path = folder / name
    content, right = path.read_bytes(), action(folder)
    is_of_model = kind == "run" and name in ("model.keras", "labels.txt")
    actions = (action, read_for_export) if is_of_model else (action,)
    for damage, damaged in DAMAGES.items():
        path.write_bytes(damaged(content))
        for act in actions:
            refused = refusal_of(act, folder)
            if refused is None:  # as of a bit in a key that nobody reads
                assert damage.startswith("flip"), damage
                assert act is not action or act(folder) == right, damage
            else:
                assert path.name in refused, (damage, refused)
                assert "Received: " in refused
                assert "\n" not in refused
    path.unlink()
    path.mkdir()
    assert path.name in (refusal_of(action, folder) or "")


@pytest.mark.parametrize(
    "how_many",
    [3, pytest.param(10, marks=pytest.mark.slow), pytest.param(None, marks=pytest.mark.long)],
    ids=["few", "some", "all"],
)
@pytest.mark.parametrize(
    ("kind", "name", "action"), [case for case in CASES if case[1].endswith(".json") and "check" not in case[1]]
)
def test_an_edited_file_is_read_or_named(work, kind, name, action, how_many):
    folder = work(kind)
    path = folder / name
    all_edits = edits(json.loads(path.read_bytes()))
    random.Random(7).shuffle(all_edits)
    for edited in all_edits[:how_many]:
        path.write_text(json.dumps(edited))
        refused = refusal_of(action, folder)
        assert refused is None or "Received: " in refused


@pytest.mark.parametrize("kind", ["run", "search", "study"])
def test_of_a_damaged_result_the_same_command_says_how_to_go_on(work, kind):
    folder = work(kind)
    path = folder / "result.json"
    content, right = path.read_bytes(), go_on(folder)
    assert right == read_json(path)
    for damage, damaged in DAMAGES.items():
        path.write_bytes(damaged(content))
        refused = refusal_of(go_on, folder)
        if refused is None:
            assert damage.startswith("flip"), damage
            assert go_on(folder) == right
        else:
            assert "result.json as ktl wrote it. Received: " in refused, (damage, refused)
            assert "Remove it: then the same command " in refused
            assert "\n" not in refused


def test_what_fails_on_files_as_they_were_written_stays_a_bug(work, monkeypatch):
    def fail(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr("ktl.reporting.page.RUN_SECTIONS", (page.Section("Result", "result", fail),))
    folder = work("run")
    with pytest.raises(ZeroDivisionError):
        report(folder)
    edit_json(folder / "result.json")
    with pytest.raises(UserError, match=r"files that were edited, .*ZeroDivisionError"):
        report(folder)


def test_a_file_of_version_0_1_without_checksums_is_named_where_it_does_not_fit(work):
    folder = work("run")
    (folder / "checksums.json").unlink()
    report(folder)
    for name in ("labels.txt", "predictions.csv", "history.csv", "probabilities.npz", "kept_layer.csv"):
        content = (folder / name).read_bytes()
        for damaged in (b"", content[: len(content) // 2], content[:5] + b"\xff" + content[5:], b"a,b\n1\n"):
            (folder / name).write_bytes(damaged)
            refused = refusal_of(report, folder)
            assert refused is None or "Received: " in refused
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(("kind", "other"), [("run", "confusion.csv"), ("export", "export.json")])
def test_labels_of_another_model_are_noticed_without_checksums(work, kind, other):
    folder = work(kind)
    if kind == "run":
        RunFolder(folder, RunConfig(dataset="/gone", weights="random")).write_confusion(np.eye(20, dtype=int), NAMES)
    (folder / "checksums.json").unlink()
    assert predict(folder).label in NAMES
    for names in (NAMES[::-1], [f"other {number}" for number in range(20)]):
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in names))
        refused = refusal_of(predict, folder)
        assert f"labels.txt as ktl wrote it. Received: other class names than {other} has" in (refused or "")


def test_a_model_of_another_network_or_with_code_in_it_is_refused(work, tmp_path):
    folder = work("run")
    (folder / "checksums.json").unlink()
    pixels = keras.Input((8, 8, 3))
    other = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(pixels))
    coded = keras.layers.Dense(20)(keras.layers.GlobalAveragePooling2D()(keras.layers.Lambda(lambda x: x * 2)(pixels)))
    for output, reason in ((other, "20 classes, of which the model beside it has 3"), (coded, "Lambda")):
        keras.Model(pixels, output).save(folder / "model.keras")
        for action in (predict, read_for_export):
            assert reason in (refusal_of(action, folder) or "")


def test_a_flipped_bit_anywhere_in_a_model_is_seen_without_checksums_too(work):
    folder = work("run")
    (folder / "checksums.json").unlink()
    content, right = (folder / "model.keras").read_bytes(), predict(folder)
    with zipfile.ZipFile(folder / "model.keras") as archive:
        weights = archive.getinfo("model.weights.h5")
    for place in range(weights.header_offset + 60, weights.header_offset + weights.compress_size, 4001):
        (folder / "model.keras").write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert "model.keras" in (refusal_of(predict, folder) or "") or predict(folder) == right
