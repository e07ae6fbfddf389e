"""Dataset.from_csv and Dataset.from_dataframe: what tables may hold, and the line that each mistake gets."""

import os
from pathlib import Path

import numpy as np
import pytest
from support import count_labels, one_line, write_classes

from ktl.data.dataset import Dataset
from ktl.errors import UserError


def write_csv(folder, text, encoding="utf-8"):
    write_classes(folder / "photos", {"a": 12})
    path = folder / "leaves.csv"
    path.write_bytes(text.encode(encoding))
    return path


def rows(*lines):
    return "path,label,split\n" + "\n".join(lines) + "\n"


def test_csv_with_splits(tmp_path):
    text = rows(
        "photos/a/000.png,oak,train",
        'photos/a/001.png,"ash, white",Train',
        "photos/a/002.png,oak,val",
        "photos/a/003.png,oak,test",
    )
    path = write_csv(tmp_path, text, "utf-8-sig")
    dataset = Dataset.from_csv(path)
    assert dataset.class_names == ("ash, white", "oak")
    assert dataset.train.photos == ("photos/a/000.png", "photos/a/001.png")
    assert dataset.train.labels.tolist() == [1, 0]
    assert dataset.validation.photos == ("photos/a/002.png",)
    assert dataset.test.read(0) == (tmp_path / "photos/a/003.png").read_bytes()


def test_csv_without_splits_is_carved(tmp_path):
    lines = [f"photos/a/{index:03}.png,{'oak' if index < 6 else 'ash'}" for index in range(12)]
    dataset = Dataset.from_csv(write_csv(tmp_path, "path,label\n" + "\n".join(lines)))
    assert [count_labels(split, 2) for split in dataset.splits] == [[4, 4], [1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("text", "received"),
    [
        ("", "path,label or path,label,split"),
        ("file;label\n", "Received: file;label"),
        ("path,label,weight\n", "path,label,weight"),
        (rows("photos/a/000.png,oak,training"), "'training' in line 2"),
        (rows("photos/a/000.png,oak"), "'' in line 2"),
        (rows("photos/a/000.png,,train"), "line 2 of .* without them"),
        (rows("photos/a/000.png,oak,train,7"), "more in line 2"),
        (rows("photos/a/000.png,oak,train", "photos/a/000.png,oak,test"), "in line 3 .* again, after line 2"),
        (rows("photos/a/000.png,oak,train", "./photos/a/000.png,oak,test"), "in line 3 .* again, after line 2"),
        (rows("photos/a/000.png,oak,train", "photos/../photos/a/000.png,oak,test"), "in line 3 .* again, after line 2"),
        (rows("photos/a/900.png,oak,train", "x.png,ash,test"), "2 that do not exist there: photos/a/900.png, x.png"),
        (rows("photos/a/000.png,oak,test"), "test only"),
        (rows(), "nothing only"),
        (rows('photos/a/000.png,"oak'), "line 1 or later of .* unexpected end"),
    ],
)
def test_a_csv_that_cannot_be_used_gets_one_line(tmp_path, text, received):
    with pytest.raises(UserError, match=received) as error:
        Dataset.from_csv(write_csv(tmp_path, text))
    one_line(error)


def test_a_link_to_a_listed_photo_is_that_photo(tmp_path):
    path = write_csv(tmp_path, rows("photos/a/000.png,oak,train", "link.png,ash,train"))
    (tmp_path / "link.png").symlink_to(tmp_path / "photos" / "a" / "000.png")
    with pytest.raises(UserError, match=r"link\.png in line 3 .* again, after line 2"):
        Dataset.from_csv(path)


def test_a_hard_link_to_a_listed_photo_is_that_photo(tmp_path):
    path = write_csv(tmp_path, rows("photos/a/000.png,oak,train", "other.png,ash,train", "link.png,ash,test"))
    (tmp_path / "other.png").write_bytes(b"other")
    os.link(tmp_path / "photos" / "a" / "000.png", tmp_path / "link.png")
    with pytest.raises(UserError, match=r"link\.png in line 4 .* again, after line 2"):
        Dataset.from_csv(path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_no_photo_and_no_table(tmp_path, make):
    """Reading a named pipe would wait without end."""
    path = write_csv(tmp_path, rows("photos/a/000.png,oak,train", "special.png,ash,train"))
    make(tmp_path / "special.png")
    with pytest.raises(UserError, match=r"regular files\. Received: 1 that are none: special\.png") as error:
        Dataset.from_csv(path)
    one_line(error)
    make(tmp_path / "special.csv")
    with pytest.raises(UserError, match=r"special\.csv: .*(regular file|directory)") as error:
        Dataset.from_csv(tmp_path / "special.csv")
    one_line(error)


@pytest.mark.parametrize("twin", ["Oak", "o\u00adak", "\u2060oak", "oak\ufe0f"])
def test_labels_that_look_alike_are_refused_with_their_numbers_of_photos(tmp_path, twin):
    lines = [f"photos/a/{index:03}.png,{('oak', twin, 'ash')[index % 3]},train" for index in range(12)]
    with pytest.raises(UserError, match=r"Received: .*4 photos\) and .*4 photos\)") as error:
        Dataset.from_csv(write_csv(tmp_path, rows(*lines)))
    one_line(error)


def test_words_that_only_a_search_would_take_for_one_are_two_classes(tmp_path):
    names = ("Ma\u00dfe", "Masse")
    lines = [f"photos/a/{index:03}.png,{names[index % 2]},train" for index in range(12)]
    assert Dataset.from_csv(write_csv(tmp_path, rows(*lines))).class_names == ("Masse", "Ma\u00dfe")


def test_a_label_that_shows_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="can be seen") as error:
        Dataset.from_csv(write_csv(tmp_path, rows("photos/a/000.png,\u200b,train", "photos/a/001.png,oak,train")))
    one_line(error)


def test_a_csv_in_another_encoding_gets_one_line(tmp_path):
    with pytest.raises(UserError, match="UTF-8") as error:
        Dataset.from_csv(write_csv(tmp_path, rows("photos/a/000.png,ch\xeane,train"), "latin-1"))
    one_line(error)


# Data frames


class Table(dict):
    """Has what a DataFrame has that is read: names of columns, and a column by its name."""

    @property
    def columns(self):
        return list(self)


@pytest.fixture
def photos(tmp_path):
    return write_classes(tmp_path / "photos", {"a": 12})


class Twice(Table):
    """As pandas has it: a name of two columns gives both."""

    @property
    def columns(self):
        return [*super().columns, "label"]


def make_frame(kind, columns):
    if kind == "table":
        return Table(columns)
    return pytest.importorskip(kind).DataFrame(columns)


@pytest.mark.parametrize(
    "kind", ["table", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("pandas", "polars"))]
)
def test_a_data_frame_is_the_csv_file_of_the_same_rows(photos, kind):
    numbers = range(12)
    columns = {
        "weight": [0.5] * 12,
        "path": [f"a/{index:03}.png" for index in numbers],
        "label": [("oak", "ash")[index % 2] for index in numbers],
        "split": ["train"] * 8 + ["val"] * 2 + ["test"] * 2,
    }
    dataset = Dataset.from_dataframe(make_frame(kind, columns), root=photos)
    lines = ["path,label,split", *map(",".join, zip(columns["path"], columns["label"], columns["split"], strict=True))]
    (photos / "leaves.csv").write_text("\n".join(lines))
    same = Dataset.from_csv(photos / "leaves.csv")
    assert dataset.class_names == same.class_names == ("ash", "oak")
    for split, expected in zip(dataset.splits, same.splits, strict=True):
        assert split.photos == expected.photos
        assert split.labels.tolist() == expected.labels.tolist()
        assert split.read(0) == expected.read(0)


@pytest.mark.parametrize("labels", [[0, 1] * 6, np.array([0, 1] * 6)])
def test_whole_numbers_are_class_names_too_and_missing_splits_are_carved(photos, labels, monkeypatch):
    monkeypatch.chdir(photos)
    frame = Table(path=[Path("a", f"{index:03}.png") for index in range(12)], label=labels)
    dataset = Dataset.from_dataframe(frame)
    assert dataset.class_names == ("0", "1")
    assert [count_labels(split, 2) for split in dataset.splits] == [[4, 4], [1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("frame", "received"),
    [
        ([["a/000.png", "oak"]], "frame to be a table with columns path and label. Received: list"),
        (Table(file=["a/000.png"], label=["oak"]), "no path among file, label"),
        (Table(), "no path and no label among no columns"),
        (Table(path=["a/000.png", None], label=["oak", "ash"]), "Received: None in row 1 of frame"),
        (Table(path=["a/000.png"], label=[float("nan")]), "Received: nan in row 0 of frame"),
        (Table(path=["a/000.png"], label=[""]), "row 0 of frame without them"),
        (Table(path=["a/000.png"], label=["oak"], split=[None]), "'None' in row 0 of frame"),
        (Table(path=["a/000.png"] * 2, label=["oak"] * 2), "a/000.png in row 1 of frame again, after row 0"),
        (Twice(path=["a/000.png"], label=["oak"]), "each column once. Received: label twice"),
        (Table(path=["a/900.png"], label=["oak"]), "1 that do not exist there: a/900.png"),
    ],
)
def test_a_frame_that_cannot_be_used_gets_one_line(photos, frame, received):
    with pytest.raises(UserError, match=received) as error:
        Dataset.from_dataframe(frame, root=photos)
    one_line(error)
