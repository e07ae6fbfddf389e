"""A folder at a URL is read as one on this disk, whatever is in it: `file://` leads to the same files."""

import pytest
from support import plain_photo, write_classes

from ktl.data.dataset import Dataset
from ktl.errors import UserError

pytest.importorskip("fsspec", reason="needs fsspec")

STRANGE = (
    "loose.png",
    ".hidden.png",
    "notes.txt",
    ".hidden",
    "ash/notes.txt",
    "ash/photo.heic",
    "ash/.hidden.png",
    "ash/deep/a.png",
    "ash/deep/notes.txt",
    "ash/.deep/a.png",
    ".folder/a.png",
    "__MACOSX/a.png",
    "beside/deeper/a.png",
)


def write(root, *names):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(plain_photo(5000 + number) if path.suffix == ".png" else b"no photo")


def same(root):
    """What both say of the folder."""
    here, there = Dataset.from_directory(root), Dataset.from_directory(f"file://{root}")
    for split, other in zip(here.splits, there.splits, strict=True):
        assert split.photos == other.photos
        assert split.labels.tolist() == other.labels.tolist()
        assert [split.read(index) for index in range(len(split))] == [other.read(index) for index in range(len(other))]
    assert (here.name, here.class_names, here.found.set_aside) == (there.name, there.class_names, there.found.set_aside)
    counts = [sorted((kind.what, kind.count) for kind in found.passed_over) for found in (here.found, there.found)]
    assert counts[0] == counts[1]
    return dict(counts[0])


def test_class_folders_with_all_that_people_have_in_them(tmp_path):
    write_classes(tmp_path / "photos", {"ash": 20, "birch tree": 20, "Älm": 20})
    write(tmp_path / "photos", *(name for name in STRANGE if not name.startswith("beside")))
    assert sum(same(tmp_path / "photos").values()) == 10


def test_splits(tmp_path):
    for split, count in (("train", 12), ("val", 3), ("test", 4)):
        write_classes(tmp_path / "photos" / split, {"ash": count, "birch": count})
    write(tmp_path / "photos", *STRANGE[:4], *(f"train/{name}" for name in STRANGE), *STRANGE[-3:])
    write(tmp_path / "photos", *(f"train/beside/{number}.png" for number in range(3)))
    assert len(same(tmp_path / "photos")) == 6


def test_a_class_may_be_called_train(tmp_path):
    same(write_classes(tmp_path / "photos", {"train": 20, "bus": 20}))


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ((), r"^Expected path to be a folder of photos\. Received: file://.*, which has no file in it"),
        (("a.png",), r"^Expected a folder of class folders with photos, or of train.* with no folder in it$"),
        (("ash/notes.txt", "birch/a.png"), r"^Expected photos \(.*\) in each class folder\. Received: none in .*/ash$"),
        (("val/a/1.png", "valid/a/1.png"), r"^Expected one validation folder in .*\. Received: two, valid among them"),
        (("val/a/1.png", "val/b/1.png"), r"^Expected training photos in .*\. Received: validation only$"),
    ],
)
def test_bad_folders(tmp_path, names, line):
    write(tmp_path, *names)
    with pytest.raises(UserError, match=line):
        Dataset.from_directory(f"file://{tmp_path}")
