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
from ktl.errors import UserError
from ktl.exporting.run_subject import subject_of_run
from ktl.files import read_json, write_checksums
from ktl.reporting import page
from ktl.reporting.page import write_report
from ktl.runs.finished_run import read_run


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
    **{f"flip {seed}": lambda content, seed=seed: flipped(content, seed) for seed in range(4)},
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


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_backbone) -> dict[str, Path]:
    """Finished folders: a run with its model, a search, a study."""
    root = tmp_path_factory.mktemp("finished")
    names = [f"class {number}" for number in range(20)]
    test, validation = made_up(60, 20), made_up(40, 20, seed=5)
    photos = [f"{number}.jpg" for number in range(60)]
    config = RunConfig(dataset="/gone", weights="random")
    run = write_run(root / "run", config, class_names=names, photos=photos, validation=validation, test=test)
    write_kept_layer(run, names[:4])
    run.write_model(keras.models.load_model(tiny_backbone))
    run.write_result(read_json(run.path / "result.json"))
    write_search(root / "search", run.path)
    write_checksums(root / "search")
    write_study(root / "study", STUDY, study_runs(STUDY, photos=6))
    write_checksums(root / "study")
    return {name: root / name for name in ("run", "search", "study")}


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
        "checksums.json": report,
        "model.keras": predict,
    },
    "search": {"result.json": report, "trials.csv": report, "best/result.json": report},
    "study": {"result.json": report, "summary.csv": report, "runs/3/run.json": report, "duplicates.csv": report},
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
    actions = (action, read_for_export) if name in ("model.keras", "labels.txt") else (action,)
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


@pytest.mark.parametrize("how_many", [6, pytest.param(None, marks=pytest.mark.slow)], ids=["some", "all"])
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, name, _ in CASES if name.endswith(".json") and "check" not in name]
)
def test_an_edited_file_is_read_or_named(work, kind, name, how_many):
    folder = work(kind)
    path = folder / name
    all_edits = edits(json.loads(path.read_bytes()))
    random.Random(7).shuffle(all_edits)
    for edited in all_edits[:how_many]:
        path.write_text(json.dumps(edited))
        refused = refusal_of(report, folder)
        assert refused is None or "Received: " in refused


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
