"""Where an export may go."""

import os
import shutil

import pytest

from ktl.errors import UserError
from ktl.exporting.place import (
    MARK,
    clear_partial,
    held,
    make_partial,
    move_into_place,
    place_for_export,
    remove_partial,
)
from ktl.exporting.record import ExportRecord, read_record, write_record
from ktl.files import check_file, write_checksums

FOUND = {
    "photos": 7,
    "undecoded": 1,
    "top1": 0.5,
    "run_top1": 0.5,
    "largest_difference": 1e-6,
    "labels_changed": 0,
}
SCORES = {"top1": 0.5, "top5": 1.0, "mean_class_accuracy": 0.5, "log_loss": 0.7, "ece": 0.1}


RUN = {"dataset": "flowers", "seed": 0}


def record_of(settings: dict | None) -> ExportRecord:
    run = settings and {"settings": settings, "validation": SCORES, "test": SCORES}
    return ExportRecord("savedmodel", "none", ("iris", "rose"), 42, 1.0, "test photos of the run", FOUND, run)


def test_what_is_written_is_read(tmp_path):
    for settings in (RUN, None):
        write_record(tmp_path, record_of(settings))
        assert read_record(tmp_path) == record_of(settings)
    assert read_record(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [("{}", "export.json as ktl wrote it"), ("[]", "object"), ('{"format_version": 99}', "Update ktl")],
)
def test_an_export_json_of_something_else_is_one_line(tmp_path, text, message):
    (tmp_path / "export.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        place_for_export(tmp_path)
    assert "\n" not in f"{error.value}"


def test_a_place_that_tensorflow_does_not_take_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"Expected `export` to be a path in UTF-8") as error:
        place_for_export(tmp_path / os.fsdecode(b"caf\xe9"))
    assert str(error.value).isprintable()


def test_a_place_that_cannot_be_written_to_is_told_before_anything_is_made(tmp_path):
    tmp_path.chmod(0o555)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("whoever runs this may write everywhere")
    for name in ("model", "new/model", "."):
        with pytest.raises(UserError, match=r"^Expected a folder that can be written to\. Received: `export` "):
            place_for_export(tmp_path / name)


def test_a_new_folder_an_empty_one_and_one_with_an_export_of_the_run(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "exported").mkdir()
    write_record(tmp_path / "exported", record_of(RUN))
    for name in ("new", "empty", "exported"):
        for settings in (None, RUN, {**RUN, "of a later version": 7}):
            assert place_for_export(tmp_path / name, settings=settings) == tmp_path / name
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("settings", [{**RUN, "seed": 1}, None])
def test_an_export_of_another_run_is_refused(tmp_path, settings):
    write_record(tmp_path, record_of(settings))
    with pytest.raises(UserError, match=r"an export of another run$"):
        place_for_export(tmp_path, settings=RUN)


@pytest.mark.parametrize("settings", [RUN, None])
def test_an_export_of_version_0_1_is_refused_in_one_line(tmp_path, settings):
    (tmp_path / "MODEL_CARD.md").write_text("# flowers17")
    with pytest.raises(UserError, match=r"`export` [^\n]*, an export by version 0\.1 of ktl\. Name another folder$"):
        place_for_export(tmp_path, settings=settings)


def test_what_a_kill_has_left_is_no_obstacle(tmp_path):
    output = tmp_path / "model"
    for partial in (tmp_path / ".model.ktl-partial", output / ".ktl-partial"):
        make_partial(partial)
        (partial / "model.onnx").touch()
        assert place_for_export(output) == output
        assert not partial.exists()
        (partial.parent / f"{partial.name}.lock").touch()
        assert place_for_export(output) == output
        assert list(partial.parent.iterdir()) == []
        assert remove_partial(output) == partial
        output.mkdir(exist_ok=True)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_somebody_else_has_under_the_name_of_a_partial_export_stays(tmp_path, kind):
    foreign = tmp_path / ".model.ktl-partial"
    mine = foreign / "mine.txt" if kind == "folder" else foreign
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"^Expected nothing, [^\n]*ktl-partial\. Received: something else\. [^\n]*$"):
        place_for_export(tmp_path / "model")
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("is_there", [True, False])
def test_an_export_is_moved_into_its_folder(tmp_path, is_there):
    output = tmp_path / "model"
    if is_there:
        output.mkdir()
    partial = remove_partial(output)
    make_partial(partial)
    (partial / "assets").mkdir()
    for name in ("export.json", "saved_model.pb", "assets/labels.txt"):
        (partial / name).write_text(name)
    inode = output.stat().st_ino if is_there else None
    move_into_place(partial, output)
    assert {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()} == {
        "export.json",
        "saved_model.pb",
        "assets/labels.txt",
    }
    assert not (output / MARK).exists()
    assert inode in (None, output.stat().st_ino)


@pytest.mark.parametrize("there", [False, True])
def test_a_link_in_the_place_of_a_partial_export_leads_nowhere(tmp_path, there):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "letter.txt").write_text("mine")
    output = tmp_path / "model"
    if there:
        output.mkdir()
    link = output / ".ktl-partial" if there else tmp_path / ".model.ktl-partial"
    link.symlink_to(tmp_path / "outside")
    partial = remove_partial(output)
    assert partial == link
    assert not link.is_symlink()
    partial.mkdir()
    (partial / "model").touch()
    move_into_place(partial, output)
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["letter.txt"]


def write_whole(partial, output):
    """An export in its partial folder as it is before it is moved: verified, with its checksums, without the mark."""
    remove_partial(output)
    make_partial(partial)
    (partial / "assets").mkdir()
    (partial / "assets" / "labels.txt").write_text("iris\nrose\n")
    (partial / "saved_model.pb").write_bytes(b"model")
    write_record(partial, record_of(RUN))
    write_checksums(partial, pattern="**/*")
    (partial / MARK).unlink()


@pytest.mark.parametrize("moved", [(), ("assets",), ("assets", "checksums.json", "saved_model.pb")])
def test_an_export_that_a_kill_left_whole_is_taken_for_what_it_is(tmp_path, moved):
    output = tmp_path / "model"
    if moved:
        output.mkdir()
    partial = output / ".ktl-partial" if moved else tmp_path / ".model.ktl-partial"
    write_whole(partial, output)
    for name in moved:
        (partial / name).rename(output / name)
    assert place_for_export(output, settings=RUN) == output
    assert not partial.exists()
    assert read_record(output) == record_of(RUN)
    check_file(output / "saved_model.pb")
    check_file(output / "assets" / "labels.txt")


@pytest.mark.parametrize("is_there", [True, False])
def test_what_another_process_is_writing_stays(tmp_path, is_there):
    output = tmp_path / "new" / "model"
    if is_there:
        output.mkdir(parents=True)
    with held(output) as partial:
        make_partial(partial)
        for call in (place_for_export, clear_partial, lambda place: held(place).__enter__()):
            with pytest.raises(UserError, match=r"^Expected no other process at work on an export to [^\n]*$"):
                call(output)
        assert (partial / MARK).is_file()
        shutil.rmtree(partial)
    assert list(tmp_path.rglob("*")) == ([output.parent, output] if is_there else [])


def test_a_lock_is_made_where_no_link_leads_to(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".model.ktl-partial.lock").symlink_to(tmp_path / "mine")
    with held(tmp_path / "model"):
        assert (tmp_path / "mine").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("lost", ["saved_model.pb", "assets/labels.txt", "checksums.json", "export.json"])
def test_one_that_lacks_a_file_is_removed(tmp_path, lost):
    partial = tmp_path / ".model.ktl-partial"
    write_whole(partial, tmp_path / "model")
    (partial / lost).unlink()
    if lost == "export.json":
        (partial / MARK).touch()  # which is there while that is not
    assert not remove_partial(tmp_path / "model").exists()
    assert not (tmp_path / "model").exists()
