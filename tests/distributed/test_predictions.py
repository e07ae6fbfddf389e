"""The labels of a list's photos, in portions: those of the photos one by one; what is finished is kept."""

import contextlib
import csv
import functools
import http.server
import io
import itertools
import threading
import tracemalloc

import pytest
from support import free_port, one_line
from tiny_predictor import LABELS, write_model

from ktl import file_systems
from ktl.cli.main import main
from ktl.distributed.portions import Portion, all_portions
from ktl.distributed.predictions import ListedPhotos
from ktl.errors import DamagedError, UserError
from ktl.inference.predict import COLUMNS, predict
from ktl.inference.predictor import load_predictor

OTHER_WORK = r"^Expected another `output` for other photos or another model\. Received: .*, done$"


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_backbone):
    return write_model(tmp_path_factory.mktemp("model"), tiny_backbone)


@pytest.fixture(scope="module")
def predictor(model):
    return load_predictor(model)


@pytest.fixture
def listed(photo_folder, tmp_path):
    """A file that names the photos relative to its folder, as some editors write it, and one that is none."""
    (tmp_path / "photos").symlink_to(photo_folder)
    names = [f"photos/{path.relative_to(photo_folder).as_posix()}" for path in sorted(photo_folder.rglob("*.*"))]
    (tmp_path / "no photo.jpg").write_bytes(b"no photo")
    names.insert(7, "no photo.jpg")
    (tmp_path / "list.txt").write_bytes("\ufeff".encode() + "\r\n".join([*names, "", ""]).encode())
    return names


@pytest.fixture
def work(predictor, model, listed, tmp_path):
    return ListedPhotos(predictor, model=model, names=tmp_path / "list.txt", output=tmp_path / "out")


def rows_of(paths):
    rows = []
    for path in paths:
        with open(path, newline="") as file:
            rows += csv.DictReader(file)
    return rows


def test_all_portions_have_the_labels_of_the_photos_one_by_one(work, listed, predictor, tmp_path):
    portions = all_portions(5)
    done = [work.label(portion) for portion in portions]
    assert [one.photos for one in done] == [sum(map(portion.has, listed)) for portion in portions]
    rows = rows_of(one.path for one in done)
    assert [row["photo"] for row in rows] == [
        name for portion in portions for name in listed if portion.has(name) and name != "no photo.jpg"
    ]
    for row, expected in zip(rows, predict(predictor, [tmp_path / row["photo"] for row in rows]), strict=True):
        assert (row["label"], row["runner_up"]) == (expected.top[0][0], expected.top[1][0])
        assert float(row["probability"]) == pytest.approx(expected.probability, abs=2e-6)
    (bad,) = rows_of(sorted((tmp_path / "out").glob("bad_photos-*.csv")))
    assert bad["photo"] == "no photo.jpg"
    assert sum(one.bad_photos for one in done) == 1


def test_what_is_finished_is_kept_and_what_was_killed_is_done_again(work, tmp_path):
    first, second = (work.label(portion) for portion in all_portions(2))
    before = {path: path.stat().st_ino for path in (tmp_path / "out").iterdir()}
    assert len(before) == 6
    (tmp_path / "out" / "done-00002-of-00002.json").unlink()  # which is written last
    assert [work.label(portion) for portion in all_portions(2)] == [first, second]
    changed = {path.name for path, number in before.items() if path.stat().st_ino != number}
    assert changed == {f"{kind}-00002-of-00002.{end}" for kind, end in KINDS}


KINDS = (("predictions", "csv"), ("bad_photos", "csv"), ("done", "json"))


def test_a_folder_of_other_work_is_refused(work, predictor, listed, tiny_backbone, tmp_path):
    (portion,) = all_portions(1)
    work.label(portion)
    with pytest.raises(UserError, match=r"^Expected the number of portions that `output` has, 1. Received: 2$"):
        work.label(all_portions(2)[0])
    other = write_model(tmp_path / "other", tiny_backbone, list(itertools.chain(LABELS[:-1], ["another"])))
    places = {"names": tmp_path / "list.txt", "output": tmp_path / "out"}
    with pytest.raises(UserError, match=OTHER_WORK):
        ListedPhotos(predictor, model=other, **places).label(portion)
    (tmp_path / "list.txt").write_text("\n".join(listed[1:]))
    with pytest.raises(UserError, match=OTHER_WORK):
        work.label(portion)


def test_what_else_is_in_a_model_s_folder_makes_no_other_model(predictor, listed, tiny_backbone, tmp_path):
    model, (portion,) = write_model(tmp_path / "model", tiny_backbone), all_portions(1)
    places = {"model": model, "names": tmp_path / "list.txt", "output": model / "labels"}
    first = ListedPhotos(predictor, **places).label(portion)
    (model / "report.html").write_text("a page")
    assert ListedPhotos(predictor, **places).label(portion) == first


@pytest.mark.parametrize("content", ["{}", '{"of": 3, "photos": 1, "bad_photos": 0}', "[]", '{"of"'])
def test_a_damaged_record_is_named_in_one_line(work, tmp_path, content):
    (portion,) = all_portions(1)
    work.label(portion)
    (tmp_path / "out" / "done-00001-of-00001.json").write_text(content)
    with pytest.raises(DamagedError) as caught:
        work.label(portion)
    assert "done-00001-of-00001.json" in one_line(caught)


def test_on_the_command_line(model, listed, tmp_path, capsys):
    given = ["predict", "--model", str(model), "--list", str(tmp_path / "list.txt"), "--output", str(tmp_path / "out")]
    assert main([*given, "--shard", "2/2"]) + main([*given, "--shards", "2"]) in (1, 2)  # 1 of what has the bad photo
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["shard 2/2", "shard 1/2", "shard 2/2"]
    assert lines[0] == lines[2]


def test_list_photos_labels_and_model_at_urls(work, listed, model, place, tmp_path, capsys):
    """They are those of the same files here; what is done is not done again."""
    expected = rows_of([work.label(portion).path for portion in all_portions(2)])
    for name in listed:
        place.put(f"lists/{name}", (tmp_path / name).read_bytes())
    # A URL, a path of this machine, or relative to the list.
    meant = [f"{place.url}/lists/{listed[0]}", str(tmp_path / listed[1]), *listed[2:], f"{place.url}/none.jpg"]
    place.put("lists/list.txt", "\n".join(meant).encode())
    given = ["predict", "--model", place.put_folder(model, "model"), "--list", f"{place.url}/lists/list.txt"]
    given += ["--output", f"{place.url}/labels", "--shards", "2"]
    assert main(given) == 1
    told = capsys.readouterr().out
    assert f"in {place.url}/labels/predictions-00002-of-00002.csv" in told
    found, bad = {}, {}
    short = dict(zip(meant[:2], listed[:2], strict=True))
    for name in place.names("labels/"):
        if name.endswith(".csv"):
            rows = list(csv.DictReader(io.StringIO(place.get(name).decode(), newline="")))
            (bad if "bad_photos" in name else found).update(
                (short.get(row["photo"], row["photo"]), row) for row in rows
            )
    columns = set(COLUMNS) - {"photo"}
    assert {name: {key: row[key] for key in columns} for name, row in found.items()} == {
        row["photo"]: {key: row[key] for key in columns} for row in expected
    }
    assert {name: row["reason"] for name, row in bad.items()}.keys() == {"no photo.jpg", f"{place.url}/none.jpg"}
    assert bad[f"{place.url}/none.jpg"]["reason"] == "cannot be read: No such file or directory"
    place.delete("labels/done-00002-of-00002.json")
    place.delete(f"lists/{listed[0]}")  # nothing is read again of what is done
    assert main([*given[:-2], "--shard", "1/2"]) + main([*given[:-2], "--shard", "2/2"]) in (1, 2)
    assert len(place.names("labels/")) == 6
    assert main([*given[:-1], "3"]) == 2
    assert "Expected the number of portions that --output has, 2. Received: 3" in capsys.readouterr().err


@contextlib.contextmanager
def web_server(folder, port):
    """Python's own, of a folder."""
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing."""


@pytest.mark.slow
def test_a_server_that_goes_ends_the_work_and_nothing_is_lost(predictor, model, photo_folder, tmp_path, monkeypatch):
    """Its photos are none that cannot be read: when it is back, the same command goes on."""
    pytest.importorskip("aiohttp", reason="needs the extra cloud: no aiohttp")
    monkeypatch.setattr(file_systems, "WAITS", (0.0,))
    port, photos = free_port(), sorted(path.relative_to(photo_folder).as_posix() for path in photo_folder.rglob("*.*"))
    (tmp_path / "list.txt").write_text("\n".join(f"http://127.0.0.1:{port}/{photo}" for photo in [*photos, "none.jpg"]))
    work = ListedPhotos(predictor, model=model, names=tmp_path / "list.txt", output=tmp_path / "out")
    first, second = all_portions(2)
    with web_server(photo_folder, port):
        done = work.label(first)
    before = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(before) == 3
    with pytest.raises(UserError, match=rf"^Expected http://127\.0\.0\.1:{port}/.* to be reached\. Received: Cannot c"):
        work.label(second)
    assert {path.name for path in (tmp_path / "out").iterdir()} == before
    assert work.label(first) == done
    with web_server(photo_folder, port):
        both = (done, work.label(second))
    assert (sum(one.photos for one in both), sum(one.bad_photos for one in both)) == (73, 1)
    rows = rows_of(one.path for one in both)
    expected = predict(predictor, [photo_folder / row["photo"].split("/", 3)[3] for row in rows])
    assert [row["label"] for row in rows] == [prediction.label for prediction in expected]


def test_a_list_is_read_in_flat_memory(predictor, model, tmp_path):
    """Of 200,000 names, which would take 20 MB; a portion has a thousandth of them."""
    with (tmp_path / "list.txt").open("wb") as file:
        file.writelines(b"photos/%09d.jpg\n" % number for number in range(200_000))
    work = ListedPhotos(predictor, model=model, names=tmp_path / "list.txt", output=tmp_path / "out")
    tracemalloc.start()
    try:
        done = work.label(Portion(5, 1000))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 150 < done.photos == done.bad_photos < 250
    assert most < 4 * 10**6


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "Expected photos, or a file of their names with --list. Received: neither"),
        (["x.jpg", "--list", "x"], "Expected photos, or a file of their names with --list. Received: both"),
        (["x.jpg", "--shards", "2"], "Expected --list with --shards. Received: none"),
        (["--list", "x"], "Expected --output, a folder for the predictions, with --list. Received: none"),
        (["--list", "x", "--output", "y", "--csv"], "Expected CSV files with --list. Received: --csv, which prints"),
        (
            ["--list", "missing", "--output", "y"],
            "Expected --list to be a file that can be read. Received: missing",
        ),
        (["--list", ".", "--output", "y"], "Expected --list to be a file that can be read. Received: . ("),
        (["--list", "x", "--output", "y", "--shards", "0"], "Expected --shards from 1 to 1,000,000. Received: 0"),
        (["--list", "x", "--output", "y", "--shard", "3/2"], "Expected --shard as NUMBER/COUNT"),
    ],
)
def test_bad_input_is_one_line(model, tmp_path, monkeypatch, capsys, arguments, line):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "--model", str(model), *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"ktl: {line}")
    assert list(tmp_path.iterdir()) == []
