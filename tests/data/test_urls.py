"""Photos that a table names by URLs, beside others that are files here."""

import pytest
from support import one_line, plain_photo

from ktl.data.dataset import Dataset
from ktl.data.loading import load_dataset
from ktl.errors import UserError


@pytest.fixture
def rows(place, tmp_path):
    """Lines of a table whose 20 photos of each class are relative to it, at URLs of their own, or files here."""
    (tmp_path / "here").mkdir()
    lines = []
    for number in range(40):
        name = f"{number:02}.png"
        path = f"photos/{name}"
        url = place.put(f"tables/{path}", plain_photo(number))
        (tmp_path / "here" / name).write_bytes(plain_photo(number))
        way = (path, url, str(tmp_path / "here" / name))[number % 3]
        lines.append(f"{way},{('ash', 'birch')[number % 2]}")
    return lines


def read_all(dataset) -> dict[str, bytes]:
    return {photo: split.source.read(photo) for split in dataset.splits for photo in split.photos}


def test_a_table_at_a_url(place, rows):
    url = place.put("tables/labels.csv", "\n".join(["path,label", *rows]).encode())
    dataset = load_dataset(url)
    assert dataset.name == "labels"
    expected = {row.partition(",")[0]: plain_photo(number) for number, row in enumerate(rows)}
    assert read_all(dataset) == expected
    assert load_dataset(url).fingerprint == dataset.fingerprint
    place.put("tables/photos/00.png", plain_photo(77))
    assert load_dataset(url).fingerprint != dataset.fingerprint


def test_a_table_here_with_urls_in_it(place, rows, tmp_path):
    absolute = [row if row.startswith(("/", place.url)) else f"{place.url}/tables/{row}" for row in rows]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *absolute]))
    dataset = Dataset.from_csv(tmp_path / "labels.csv")
    assert sorted(read_all(dataset).values()) == sorted(map(plain_photo, range(40)))
    frame = {"path": [row.partition(",")[0] for row in rows], "label": [row.partition(",")[2] for row in rows]}
    framed = Dataset.from_dataframe(Frame(frame), root=f"{place.url}/tables")
    assert sorted(read_all(framed).values()) == sorted(map(plain_photo, range(40)))


class Frame(dict):
    """A table as pandas has it."""

    @property
    def columns(self):
        return list(self)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("{url}/tables/none.png,ash", "1 that do not exist there: {url}/tables/none.png"),
        ("{url}/tables/photos/00.png,ash", "{url}/tables/photos/00.png in line 42 of {url}/tables/labels.csv again"),
    ],
)
def test_what_is_missing_or_there_twice_is_named(place, rows, more, line):
    more, line = more.format(url=place.url), line.format(url=place.url)
    url = place.put("tables/labels.csv", "\n".join(["path,label", *rows, more]).encode())
    with pytest.raises(UserError) as caught:
        load_dataset(url)
    assert line in one_line(caught)


def test_a_table_that_is_not_there(place):
    with pytest.raises(UserError) as caught:
        load_dataset(f"{place.url}/none.csv")
    assert one_line(caught).endswith(f"Received: {place.url}/none.csv: it does not exist")
