"""Texts by hand: files, pipes with and without a writer, and what has no end."""

import os
import threading
import time

import pytest

from ktl import texts


def test_a_byte_order_mark_is_no_part_of_it(tmp_path):
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfepochs = 3\r\n")
    assert texts.read_text(tmp_path / "file") == "epochs = 3\r\n"


@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_a_pipe_waits_for_who_writes_to_it_however_slowly(tmp_path, monkeypatch, delay):
    monkeypatch.setattr(texts, "WRITER_SECONDS", 0.2)
    os.mkfifo(tmp_path / "pipe")

    def write():
        with open(tmp_path / "pipe", "w") as file:
            time.sleep(delay)
            file.write("a" * 100_000)

    writer = threading.Thread(target=write)
    writer.start()
    assert texts.read_text(tmp_path / "pipe") == "a" * 100_000
    writer.join()


def test_what_a_shell_substitutes_for_a_command_is_read_whole():
    """`<(...)` is a pipe whose writer may have ended already."""
    for content in (b"", b"a\nb\n"):
        reading, writing = os.pipe()
        os.write(writing, content)
        os.close(writing)
        assert texts.read_text(f"/dev/fd/{reading}") == content.decode()
        os.close(reading)


def test_a_pipe_that_nobody_writes_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "WRITER_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(TimeoutError, match="nobody has opened"):
        texts.read_text(tmp_path / "pipe")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_text_has_an_end():
    with pytest.raises(ValueError, match="more than 16,777,216 bytes"):
        texts.read_text("/dev/zero")
