import errno
import os
import signal
import stat
import subprocess
import sys

import pytest
from support import REPOSITORY

from ktl.errors import UserError
from ktl.files import (
    FORMAT_VERSION,
    format_version,
    read_json,
    read_lines,
    read_regular,
    reading,
    write_atomically,
    write_checksums,
    write_json,
    write_lines,
)
from ktl.folders import empty_folder


def test_text_and_bytes_arrive_whole(tmp_path):
    write_atomically(tmp_path / "text", "a\nµ\r\n")
    assert (tmp_path / "text").read_bytes() == "a\nµ\r\n".encode()
    write_atomically(str(tmp_path / "bytes"), lambda file: file.write(b"\0\1\n"))
    assert (tmp_path / "bytes").read_bytes() == b"\0\1\n"
    assert sorted(os.listdir(tmp_path)) == ["bytes", "text"]


def test_others_may_read_the_file(tmp_path):
    write_atomically(tmp_path / "text", "a")
    assert stat.S_IMODE((tmp_path / "text").stat().st_mode) == 0o644


def test_a_bare_name_goes_to_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_atomically("text", "a")
    assert (tmp_path / "text").read_text() == "a"


def test_an_interrupt_just_after_the_move_is_an_interrupt(tmp_path, monkeypatch):
    replace = os.replace

    def interrupted(*paths):
        replace(*paths)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "text", "new")
    assert (tmp_path / "text").read_text() == "new"


def test_only_a_newline_ends_a_line(tmp_path):
    (tmp_path / "labels.txt").write_bytes("a\rb\nµ\x0b\u2028c\r\nd\n".encode())
    assert read_lines(tmp_path / "labels.txt") == ("a\rb", "µ\x0b\u2028c\r", "d")


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, error):
    def fail(file):
        file.write(b"half")
        file.flush()
        raise error

    write_atomically(tmp_path / "text", "old")
    with pytest.raises(type(error)):
        write_atomically(tmp_path / "text", fail)
    assert (tmp_path / "text").read_text() == "old"
    assert os.listdir(tmp_path) == ["text"]


def test_a_file_cannot_replace_a_folder(tmp_path):
    (tmp_path / "text").mkdir()
    with pytest.raises(UserError, match=r"Received: .*text, a folder"):
        write_atomically(tmp_path / "text", "new")
    assert os.listdir(tmp_path) == ["text"]


def test_a_link_to_a_folder_is_replaced_and_the_folder_is_not(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").symlink_to("folder")
    write_atomically(tmp_path / "text", "new")
    assert (tmp_path / "text").read_text() == "new"
    assert list((tmp_path / "folder").iterdir()) == []


KILLED_WHILE_WRITING = """
import os, signal, sys
from ktl.files import write_atomically

def write(file):
    file.write(b"new" * 100_000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

write_atomically(sys.argv[1], write)
"""


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path):
    write_atomically(tmp_path / "text", "old")
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path / "text")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "text").read_text() == "old"
    assert len(os.listdir(tmp_path)) == 2  # the half-written one has another name


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "/dev/null"])
def test_what_is_no_regular_file_is_not_read(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        read_regular(tmp_path / name)


def test_json_comes_back_without_its_format_version(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, None, "é"]})
    assert read_json(tmp_path / "a.json") == {"b": [1, None, "é"]}
    assert format_version(tmp_path / "a.json") == FORMAT_VERSION
    (tmp_path / "old.json").write_text('{"b": 1}')
    assert (read_json(tmp_path / "old.json"), format_version(tmp_path / "old.json")) == ({"b": 1}, 0)


@pytest.mark.parametrize("text", ["", "[1]", '{"a"', '{"format_version": 99}', '{"format_version": "1"}', "\x00"])
def test_what_is_no_json_object_of_ours_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match="Received") as error:
        read_json(tmp_path / "a.json")
    assert "a.json" in str(error.value)
    assert "\n" not in str(error.value)


OF_OTHERS = {
    "another program's": '{"run/labels.txt": "0a1b"}',
    "no JSON": "0a1b  run/labels.txt",
    "by chance alike": '{"sha256": {"run/labels.txt": "0a1b"}}',
}


@pytest.mark.parametrize("content", OF_OTHERS.values(), ids=OF_OTHERS)
def test_checksums_of_somebody_else_above_a_folder_of_ours_do_not_count(tmp_path, content):
    (tmp_path / "run").mkdir()
    write_lines(tmp_path / "run" / "labels.txt", ["ash", "birch"])
    write_checksums(tmp_path / "run")
    (tmp_path / "checksums.json").write_text(content)
    assert read_lines(tmp_path / "run" / "labels.txt") == ("ash", "birch")
    (tmp_path / "run" / "labels.txt").write_text("oak\nbirch\n")
    with pytest.raises(UserError, match="another content than"):
        read_lines(tmp_path / "run" / "labels.txt")


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path):
    with (
        pytest.raises(
            UserError, match=r"^Expected a file that this user may read\. Received: .* \(Permission denied\)$"
        ),
        reading(tmp_path / "a.json"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "a.json"))


def test_brackets_in_brackets_are_an_object_or_one_line(tmp_path):
    path, refused = tmp_path / "a.json", []
    for depth in range(900, 1000):  # one that is just read may be too deep to be written, as its checksum needs
        path.write_text('{"a": ' + "[" * depth + "]" * depth + "}")
        try:
            read_json(path)
        except UserError:
            refused.append(depth)
    assert refused
    assert refused == list(range(refused[0], 1000))


def test_what_tells_whose_folder_it_is_goes_last(tmp_path, monkeypatch):
    for name in ("a", "config.json", "z"):
        (tmp_path / name).touch()
    gone = []
    monkeypatch.setattr(os, "unlink", lambda path: gone.append(os.path.basename(path)))
    empty_folder(tmp_path, last="config.json")
    assert sorted(gone[:2]) == ["a", "z"]
    assert gone[2:] == ["config.json"]
