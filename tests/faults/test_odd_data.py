"""Data sets that are odd: each is refused in one line, or read as a person would, and trained on."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from html_page import HtmlPage
from PIL import Image
from support import encode, one_line, plain_photo, smooth_pixels, write_classes

import ktl
from ktl.data.input_pipeline import PhotoCache, check_photos
from ktl.data.loading import load_dataset
from ktl.errors import UserError
from ktl.reporting.page import write_report


def read(folder: Path):
    """The data set in a folder, once each photo was decoded."""
    dataset = load_dataset(str(folder))
    return check_photos(dataset, image_size=42, on_bad_image="fail", cache=PhotoCache(memory_gib=0))[0]


def with_photo(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda root: (root / "ash" / name).write_bytes(content) and None


def with_loop(root: Path) -> None:
    (root / "ash" / "loop.png").symlink_to(root / "ash" / "loop.png")


def with_empty_split(root: Path) -> None:
    for name in ("ash", "birch", "cedar"):
        (root / name).rename(root / f"moved {name}")
    write_classes(root / "train", {"ash": 5, "birch": 5})
    write_classes(root / "test", {"ash": 0, "birch": 0})
    for name in ("ash", "birch", "cedar"):
        for photo in (root / f"moved {name}").iterdir():
            photo.unlink()
        (root / f"moved {name}").rmdir()


def zeros(width: int, height: int) -> bytes:
    """A PNG file of black pixels: some kilobytes, whatever its size in pixels."""
    return encode(Image.new("1", (width, height)), "PNG")


REFUSED = {
    "a class of one photo": (lambda root: write_classes(root, {"one": 1}), "class 'one'"),
    "a class of no photo": (lambda root: write_classes(root, {"none": 0}), "none in .*none"),
    "a split without photos": (with_empty_split, "Received: none in .*test"),
    "a link to itself": (with_loop, r"ash/loop\.png"),
    "0 bytes": (with_photo("empty.png", b""), r"ash/empty\.png \(the file is empty\)"),
    "text that calls itself a photo": (with_photo("text.jpg", b"hello, world\n" * 9), r"text\.jpg \(not an image"),
    "20,000 x 20,000": (with_photo("huge.png", zeros(20_000, 20_000)), r"huge\.png \(more than 178,956,970 pixels"),
    "letter case of classes": (lambda root: write_classes(root, {"Ash": 5}), "differ in more than letter case"),
}
"""What is odd -> how a folder of three classes becomes so, and what it is refused for."""


@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_could_train_on_is_refused_in_one_line(tmp_path, name):
    make, message = REFUSED[name]
    root = write_classes(tmp_path / "photos", {"ash": 6, "birch": 6, "cedar": 6})
    make(root)
    with pytest.raises(UserError, match=message) as error:
        read(root)
    one_line(error)


NAMES = ("a b", "caf\u00e9", "\u732b", "\U0001f98a", "'quoted', \"twice\"", "-x", "%s {0}", "con.", "UPPER")
"""Classes with spaces, accents, other scripts, and what tables, shells and formats have a meaning for."""


def test_a_folder_of_oddities_is_trained_on_reported_and_predicted(tmp_path, tiny_backbone):
    root = write_classes(tmp_path / "my photos \u00fc", dict.fromkeys(NAMES, 6))
    odd = {
        "1 x 1.png": plain_photo(60_001),
        "lying.jpg": encode(smooth_pixels(9, 7, seed=1), "PNG"),
        "lying.png": encode(smooth_pixels(9, 7, seed=2), "JPEG"),
        "wide.png": encode(smooth_pixels(1, 900, seed=3), "PNG"),
        "\u732b 1.PNG": encode(smooth_pixels(8, 8, seed=4), "PNG"),
    }
    for photo, content in odd.items():
        (root / NAMES[0] / photo).write_bytes(content)
    (root / NAMES[1] / "loop").symlink_to(root)
    (root / "loop").symlink_to(root / "loop")
    out = tmp_path / "out"
    settings = {"backbone": str(tiny_backbone), "cache": "off", "epochs": 1, "batch_size": 8, "least_steps": 1}
    result = ktl.run(dataset=str(root), **settings, output=out, verbose=0)
    assert sum(result["photos"].values()) == 6 * len(NAMES) + len(odd)
    assert result["bad_photos"] == []
    assert sorted((out / "labels.txt").read_text().splitlines()) == sorted(NAMES)
    with open(out / "predictions.csv", newline="") as file:
        assert {row["label"] for row in csv.DictReader(file)} == set(NAMES)
    page = HtmlPage(write_report(out, output=tmp_path / "report.html"))
    assert {row[0] for row in page.rows("classes")[1:]} == set(NAMES)
    predictions = ktl.predict(out, root / NAMES[0], verbose=0)
    assert len(predictions) == 6 + len(odd)
    assert {prediction.label for prediction in predictions} <= set(NAMES)


def test_a_loss_that_is_no_number_ends_a_run_in_one_line_and_leaves_no_result(tmp_path, photo_folder, tiny_backbone):
    settings = {"backbone": str(tiny_backbone), "cache": "off", "epochs": 2, "least_steps": 1, "learning_rate": 1e30}
    with pytest.raises(UserError, match=r"Expected a finite loss. Received: (nan|inf) in epoch 1") as error:
        ktl.run(dataset=str(photo_folder), **settings, output=tmp_path / "out", verbose=0)
    one_line(error)
    assert not (tmp_path / "out" / "result.json").exists()


@pytest.mark.long
def test_ten_thousand_classes(tmp_path, tiny_backbone):
    root = tmp_path / "photos"
    for number in range(10_000):
        (root / f"class {number}").mkdir(parents=True)
        for photo in range(3):
            pixels = np.full((2, 2, 3), (number % 256, number // 256, 80 * photo), np.uint8)
            (root / f"class {number}" / f"{photo}.bmp").write_bytes(encode(pixels, "BMP"))
    settings = {"backbone": str(tiny_backbone), "freeze_depth": "all", "epochs": 1, "batch_size": 256, "views": 1}
    result = ktl.run(dataset=str(root), **settings, cache="off", output=tmp_path / "out", verbose=0)
    assert result["photos"] == {"train": 10_000, "validation": 10_000, "test": 10_000}
    with open(tmp_path / "out" / "confusion.csv", newline="", encoding="utf-8") as file:
        assert sum(1 for _ in file) == 10_001
    (tmp_path / "out" / "checksums.json").unlink()
    assert ktl.predict(tmp_path / "out", root / "class 7", verbose=0)[0].label.startswith("class ")
    write_report(tmp_path / "out", output=tmp_path / "report.html")
    assert json.loads((tmp_path / "out" / "result.json").read_text())["test"]["top1"] >= 0
