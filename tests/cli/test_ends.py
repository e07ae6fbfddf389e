"""How commands end before their end: signals, a full disk, no memory."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
from support import REPOSITORY

from ktl.cli import ends
from ktl.cli.commands import COMMANDS, Command
from ktl.cli.ends import Ended, line_of, signals_end
from ktl.cli.main import main

COMMAND = """
import signal, sys, time
from ktl.cli import main as cli
from ktl.cli.commands import COMMANDS, Command

def work(options):
    try:
        print("at work", flush=True)
        time.sleep(30)
    finally:
        {cleaning}

COMMANDS["backbones"] = Command(help="", add_flags=lambda parser: None, run=work, loads_tensorflow=False)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(cli.main(["backbones"]))
"""


def start(cleaning: str = "pass") -> subprocess.Popen:
    program = [sys.executable, "-c", COMMAND.format(cleaning=cleaning)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert process.stdout.readline() == "at work\n"
    return process


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")],
)
def test_a_signal_ends_a_command_and_says_how_to_go_on(number, code, line):
    process = start()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (code, "", f"ktl: {line}; repeat the command to continue\n")


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(second):
    process = start(cleaning="print('cleaning', flush=True); time.sleep(30)")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    began = time.monotonic()
    process.send_signal(second)
    assert process.wait(20) == 128 + second
    assert time.monotonic() - began < 5
    process.communicate()


STARTED = """
import runpy, signal, sys

class Interrupting:
    def find_spec(name, path, target=None):
        if name == sys.argv[1]:
            sys.meta_path.remove(Interrupting)
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupting)
runpy.run_module("ktl", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["ktl.cli.main", "ktl.cli.flags"])
def test_an_interrupt_while_the_command_line_is_imported_ends_quietly(module):
    program = [sys.executable, "-c", STARTED, module]
    done = subprocess.run(program, capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_an_interrupt_while_flags_are_read_is_one_line(interruptible, monkeypatch, capsys):
    interrupted = Command(
        help="", add_flags=lambda parser: signal.raise_signal(signal.SIGINT), run=print, loads_tensorflow=False
    )
    monkeypatch.setitem(COMMANDS, "backbones", interrupted)
    assert main(["backbones"]) == 130
    assert capsys.readouterr().err == "ktl: interrupted; repeat the command to continue\n"


class Swallowing:
    """Whatever is raised in the end of such an object goes nowhere."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interruptible(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(ends, "AGAIN", 0.05)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_is_swallowed_comes_again_and_lets_cleaning_end(interruptible, capsys):
    cleaned, slept = [], []

    def work():
        Swallowing()
        try:
            time.sleep(3)
            slept.append(True)
        finally:
            try:
                raise OSError
            except OSError:
                time.sleep(0.2)
            cleaned.append(True)

    with pytest.raises(Ended), signals_end():
        work()
    assert cleaned
    assert not slept, "it came before the work's own end"
    assert capsys.readouterr().err == ""
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_what_a_library_makes_of_an_interrupt_is_one(interruptible):
    def in_a_library():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("INTERNAL: KeyboardInterrupt") from None

    with pytest.raises(Ended), signals_end():
        in_a_library()
    with pytest.raises(Ended), signals_end():
        Swallowing()


def test_what_c_code_prints_of_an_interrupt_is_not_shown(interruptible, capsys):
    """It calls `sys.excepthook` (PyErr_Print), as TensorFlow's does with an import that was interrupted."""

    def print_in_c(text):
        sys.excepthook(SystemError, SystemError(text), None)

    def work():
        print_in_c("a bug")
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            print_in_c("returned a result with an exception set")

    with pytest.raises(Ended), signals_end():
        work()
    print_in_c("another bug")
    assert capsys.readouterr().err == "SystemError: a bug\nSystemError: another bug\n"


CHAIN = """
import os, subprocess, sys, time
from ktl.process import child_environment, end_with_parent
end_with_parent()
if len(sys.argv) < 2:
    child = subprocess.Popen([sys.executable, __file__, "child"], env={**os.environ, **child_environment()})
    print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_child_ends_with_its_parent_however_that_ends(tmp_path):
    (tmp_path / "chain.py").write_text(CHAIN)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    program = [sys.executable, str(tmp_path / "chain.py")]
    parent = subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    time.sleep(1.0)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 3
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(number: int) -> bool:
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class ResourceExhaustedError(Exception):
    """As TensorFlow's is known."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/full/a"), "space on the disk. Received: .* (/full/a)"),
        (OSError("h5: write failed: errno = 28, error message = 'No space left on device'"), "space on the disk"),
        (OSError(errno.ENAMETOOLONG, "File name too long", b"/a"), "names that the file system takes"),
        (
            OSError(errno.EACCES, "Permission denied", "/root/a"),
            "may read or write. Received: Permission denied (/root/a)",
        ),
        (OSError(errno.EPERM, "Operation not permitted"), "may read or write. Received: Operation not permitted"),
        (OSError(errno.EFBIG, "File too large"), "files that may be as large"),
        (MemoryError("Unable to allocate 3 TiB"), "enough memory. Received: Unable to allocate 3 TiB"),
        (ResourceExhaustedError("OOM when\nallocating"), "enough memory. Received: OOM when allocating"),
    ],
)
def test_what_the_machine_lacks_is_one_line(error, said):
    for raised in (error, caused_by(error)):
        line = line_of(raised)
        assert line.startswith("Expected ")
        assert "\n" not in line
        for part in said.split(".*"):
            assert part.strip() in line


def caused_by(error: Exception) -> Exception:
    try:
        raise RuntimeError("of a library") from error
    except RuntimeError as outer:
        return outer


def test_a_bug_is_none():
    assert line_of(ZeroDivisionError("division by zero")) is None
    assert line_of(OSError(errno.EIO, "Input/output error")) is None
