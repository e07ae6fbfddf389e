"""Where results may go: not into the data set, whatever the spelling, and nothing is made before that is known."""

import json
import os

import pytest
from support import one_line, write_classes

import ktl
from ktl.errors import UserError
from ktl.runs.run import check_places, default_output

SETTINGS = {"backbone": "mobilenet_0.25", "weights": "random"}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_classes(tmp_path / "photos", {"ash": 5, "birch": 5})


def tree(folder) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.mark.parametrize("call", [ktl.run, ktl.search, ktl.study])
@pytest.mark.parametrize(
    "place",
    ["photos", "photos/out", "./photos/ash/out", "link/out", "photos/../photos/new/out", "beside/../photos/out"],
)
def test_results_within_the_data_set_are_refused_before_anything_is_made(photos, tmp_path, call, place):
    (tmp_path / "link").symlink_to(photos)
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"Expected `output` outside of the data set photos, .* Received: ") as error:
        call(dataset="photos", **SETTINGS, output=place, verbose=0)
    one_line(error)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("place", ["far/train/out", "far/train/ash/out", "far/birch", "photos/train/out"])
def test_results_where_links_of_the_data_set_lead_are_refused(photos, tmp_path, place):
    (tmp_path / "far").mkdir()
    photos.rename(tmp_path / "far" / "train")
    (tmp_path / "far" / "train" / "birch").rename(tmp_path / "far" / "birch")
    (tmp_path / "far" / "train" / "birch").symlink_to(tmp_path / "far" / "birch")
    photos.mkdir()
    (photos / "train").symlink_to("../far/train")
    config = ktl.RunConfig(dataset="photos", cache_dir="far/cache")
    check_places(config, output="far/out")
    with pytest.raises(UserError, match="Expected `output` outside of the data set photos"):
        check_places(config, output=place)


def test_the_default_place_is_in_the_data_set_where_one_works_there(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    with pytest.raises(UserError, match=r"Expected `output` outside of the data set \."):
        ktl.run(dataset=".", **SETTINGS, verbose=0)
    with pytest.raises(UserError, match=r"Expected `output` outside of the data set"):
        ktl.run(dataset=str(tmp_path / "photos"), **SETTINGS, verbose=0)
    assert sorted(os.listdir(photos)) == ["ash", "birch"]


def test_a_cache_and_an_export_are_no_part_of_the_data_set_either(photos, tmp_path):
    config = ktl.RunConfig(dataset="photos", cache_dir="photos/cache")
    with pytest.raises(UserError, match="Expected `cache_dir` outside"):
        check_places(config, output="out")
    with pytest.raises(UserError, match="Expected `export` outside"):
        check_places(ktl.RunConfig(dataset="photos"), output="out", export=tmp_path / "photos" / "model")
    off = ktl.RunConfig(dataset="photos", cache="off", cache_dir="photos/cache")
    check_places(off, output="out", export=None)


@pytest.mark.parametrize("place", ["out", "photos-2/out", "../out", "photos/../out"])
def test_beside_the_data_set_all_is_well(photos, place):
    check_places(ktl.RunConfig(dataset="photos"), output=place)


def test_beside_the_photos_of_a_table_all_is_well(photos, tmp_path):
    (tmp_path / "photos" / "photos.csv").write_text("path,label\n")
    check_places(ktl.RunConfig(dataset="photos/photos.csv"), output="photos/runs/first")


@pytest.mark.parametrize("call", [ktl.run, ktl.search, ktl.study])
@pytest.mark.parametrize(
    "settings",
    [
        {"dataset": "./nope"},
        {"dataset": "photos", "backbone": "nope"},
        {"dataset": "photos", "weights": "nope.weights.h5"},
        {"dataset": "photos", "cache": "off"},  # of which a photo is damaged
    ],
)
def test_a_call_that_fails_before_it_trains_leaves_nothing(photos, tmp_path, call, settings):
    (photos / "ash" / "000.png").write_bytes(b"damaged")
    before = tree(tmp_path)
    with pytest.raises(UserError) as error:
        call(**{**SETTINGS, "image_size": 32, **settings}, verbose=0)
    one_line(error)
    assert tree(tmp_path) == before
    assert not default_output(ktl.RunConfig(dataset="photos")).parent.exists()


@pytest.mark.parametrize("call", [ktl.search, ktl.study])
def test_what_was_to_be_overwritten_is_not_given_up_for_a_wrong_name(photos, tmp_path, call):
    kind = {ktl.search: ktl.SearchConfig, ktl.study: ktl.StudyConfig}[call]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text(json.dumps(kind(dataset="photos").as_dict()))
    (tmp_path / "out" / "result.json").write_text("{}")
    with pytest.raises(UserError, match="does not exist"):
        call(dataset="./nope", output="out", overwrite=True, verbose=0)
    assert sorted(os.listdir("out")) == ["config.json", "result.json"]
