"""Exports at URLs: whole or not there, and nothing of anybody else's is touched."""

import json

import numpy as np
import pytest
from support import one_line
from tiny import tiny_classifier

from ktl.errors import UserError
from ktl.exporting.export import export
from ktl.exporting.place import MARK, place_for_export
from ktl.exporting.place_at import folder_for
from ktl.exporting.record import EXPORT_JSON
from ktl.folders import new_folder
from ktl.inference.predict import predict

FILES = {"model.keras": b"a model", "assets/labels.txt": b"rose\n", EXPORT_JSON: b"{}"}


def write(folder):
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_what_the_block_makes_is_there_afterwards(place):
    with folder_for(f"{place.url}/deep/model") as folder:
        assert new_folder(folder, argument="output").name == "model"
        write(folder)
        assert place.names("deep") == []
    assert {name.removeprefix("deep/model/"): place.get(name) for name in place.names("deep")} == FILES


def test_what_is_there_is_seen_and_not_written_again(place):
    for name, content in FILES.items():
        place.put(f"model/{name}", content)
    with folder_for(f"{place.url}/model") as folder:
        assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == FILES.keys()
        (folder / "model.keras").write_bytes(b"another")
    assert place.get("model/model.keras") == b"a model"


def test_a_block_that_fails_leaves_nothing(place):
    def fail():
        with folder_for(f"{place.url}/model") as folder:
            write(folder)
            raise UserError(f"Expected another folder. Received: {folder}")

    with pytest.raises(UserError, match=rf"^Expected another folder\. Received: {place.url}/model$"):
        fail()
    assert place.names() == []


def test_what_an_interrupted_copy_has_left_is_removed(place):
    for name in ("saved_model.pb", "variables/variables.index", MARK):
        place.put(f"model/{name}", b"half")
    place.put("model beside/notes.txt", b"mine")
    with folder_for(f"{place.url}/model") as folder:
        assert not folder.exists()
        write(folder)
    assert place.names("model/") == sorted(f"model/{name}" for name in FILES)
    assert place.get("model beside/notes.txt") == b"mine"


def test_something_else_is_left_alone(place):
    place.put("model/notes.txt", b"mine")
    with pytest.raises(UserError) as caught, folder_for(f"{place.url}/model", argument="export") as folder:
        place_for_export(folder)
    assert one_line(caught).endswith(f"Received: `export` {place.url}/model")
    assert place.names() == ["model/notes.txt"]


def test_a_folder_here_is_itself(tmp_path):
    with folder_for(tmp_path / "model") as folder:
        assert folder == tmp_path / "model"
    with pytest.raises(UserError, match=r"^Expected `output` as a folder, or a URL that files can be written to"):
        folder_for("https://example.org/model").__enter__()


@pytest.mark.slow
def test_an_export_is_verified_and_used_there(tiny_backbone, photo_folder, place, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    classifier = tiny_classifier(tiny_backbone, seed=1)
    url, photos = f"{place.url}/model", sorted(photo_folder.rglob("*.png"))[:5]
    found = export(classifier, url, photos=photos, format="keras", verbose=0)
    assert found["test"]["photos"] == 5
    assert MARK not in {name.rpartition("/")[2] for name in place.names()}
    assert json.loads(place.get("model/export.json"))["format"] == "keras"
    for there, here in zip(predict(url, photos, verbose=0), predict(classifier, photos, verbose=0), strict=True):
        assert there.label == here.label
        np.testing.assert_allclose(there.probability, here.probability, atol=1e-5)
    with pytest.raises(UserError, match=rf"^Expected a new or empty folder\. Received: `output` {url}$"):
        export(classifier, url, photos=photos, format="keras", verbose=0)
