"""Small pictures of test photos in a page."""

import base64
import dataclasses
import io
import shutil

import numpy as np
import pytest
from html_page import HtmlPage as Page
from made_up_folders import HOSTILE, made_up, write_run
from PIL import Image

from ktl.config.settings import RunConfig
from ktl.data.loading import load_dataset
from ktl.reporting import thumbnails as report_photos
from ktl.reporting.page import write_report
from ktl.runs.finished_run import read_run


def test_each_photo_is_in_the_page_once_small_and_the_right_one(hostile):
    _, page, _, _, split, _ = hostile
    symbols = page.root.all("symbol")
    assert len(symbols) == 36
    assert page.source.count("data:image/jpeg") == 36
    whole = [Image.open(io.BytesIO(split.read(number))).convert("L") for number in range(36)]
    for symbol in symbols:
        encoded = symbol.one("image").attributes["href"].removeprefix("data:image/jpeg;base64,")
        small = Image.open(io.BytesIO(base64.b64decode(encoded)))
        assert max(small.size) <= 160
        away = [np.abs(np.asarray(w.resize(small.size), float) - np.asarray(small.convert("L"))).mean() for w in whole]
        assert symbol.attributes["id"] == f"photo-{np.argmin(away)}"
    uses = [use.attributes["href"] for use in page.root.all("use") if use.attributes["href"].startswith("#photo-")]
    assert set(uses) == {f"#{symbol.attributes['id']}" for symbol in symbols}


def test_photos_are_those_that_their_captions_name(hostile):
    _, page, _, _, split, names = hostile
    for figure in page.root.all("figure", kind="photo"):
        number = int(figure.one("use").attributes["href"].removeprefix("#photo-"))
        assert figure.one("span", kind="file").text == split.photos[number]
        spoken = figure.one("svg").attributes["aria-label"]
        assert spoken.startswith(f"Photo of {names[split.labels[number]]}, taken for ")


def test_without_the_data_set_photos_have_names_and_the_page_says_so(many):
    page, *_ = many
    assert not page.root.all("symbol")
    assert "/no/such/folder could not be read" in page.section("confusion").text
    assert len(page.section("mistakes").all("figure")) == 24


@pytest.mark.parametrize("name", ["gone", "./gone/", "gone.csv", "cifar10", "caltech256", "no:such"])
def test_a_data_set_that_is_gone_is_not_fetched(name, compared, tmp_path, monkeypatch):
    monkeypatch.setattr(report_photos, "load_dataset", lambda *_, **__: pytest.fail("would fetch it"))
    run = read_run(compared[0][0])
    gone = dataclasses.replace(run, settings={**run.settings, "dataset": name, "data_dir": str(tmp_path)})
    assert report_photos.thumbnails(gone, [0]) == {}


def test_a_photo_that_went_or_broke_leaves_the_others(dataset, tmp_path):
    root = shutil.copytree(dataset.parent, tmp_path / "copy")
    split = load_dataset(str(root / "photos.csv")).test
    (root / split.photos[3]).write_bytes(b"no photo")
    folder = tmp_path / "run"
    write_run(
        folder,
        RunConfig(dataset=str(root / "photos.csv")),
        class_names=sorted(HOSTILE),
        photos=["unknown.jpg", *split.photos[1:]],
        validation=made_up(30, 6),
        test=(made_up(36, 6)[0], split.labels),
    )
    page = Page(write_report([folder], output=tmp_path / "report.html"))
    missing = {f"photo-{number}" for number in range(36)} - {s.attributes["id"] for s in page.root.all("symbol")}
    assert missing == {"photo-0", "photo-3"}
