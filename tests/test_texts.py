"""Texts by hand: files, pipes with and without a writer, and what has no end."""

import os
import threading
import time

import pytest

from ktl import texts


def test_a_byte_order_mark_is_no_part_of_it(tmp_path):
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfepochs = 3\r\n")
    assert texts.read_text(tmp_path / "file") == "epochs = 3\r\n"


LONG = b"a" * 100_000
"""More than a pipe holds: whoever writes it waits for who reads."""


def write(path, *, delay: float = 0.0) -> threading.Thread:
    """Opens a pipe for writing, if nobody has, and writes to it in a thread, which goes with the process."""

    def work():
        opened = path if isinstance(path, int) else os.open(path, os.O_WRONLY)
        with open(opened, "wb") as file:
            time.sleep(delay)
            file.write(LONG)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_pipe_waits_for_who_opens_it_to_write(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = write(tmp_path / "pipe")
    assert texts.read_text(tmp_path / "pipe") == LONG.decode()
    writer.join(10)


def test_who_has_a_pipe_open_may_take_longer_than_there_is_time_to_open_it(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "WRITER_SECONDS", 0.05)
    os.mkfifo(tmp_path / "pipe")
    writer = write(os.open(tmp_path / "pipe", os.O_RDWR), delay=0.2)  # which waits for no reader
    assert texts.read_text(tmp_path / "pipe") == LONG.decode()
    writer.join(10)


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
