"""Standard input, output and error that are missing, that nobody reads, or that have no room."""

import os
import subprocess
import sys

import pytest
from support import REPOSITORY

COMMAND = """
import os, sys
from ktl.cli import main as cli
from ktl.cli.commands import COMMANDS, Command

def work(options):
{work}

COMMANDS["backbones"] = Command(help="", add_flags=lambda parser: None, run=work, loads_tensorflow=False)
sys.exit(cli.main(["backbones"]))
"""


def run(work: str, *, shell: str = '"$@"', cwd=None, **environment: str) -> subprocess.CompletedProcess:
    """A command that does this, started by a shell's line."""
    program = COMMAND.format(work="\n".join(f"    {line}" for line in work.splitlines()))
    return subprocess.run(
        ["bash", "-c", shell, "bash", sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_nothing_that_is_printed_goes_into_a_file_of_the_commands(tmp_path, closed):
    work = """with open("data", "wb", buffering=0) as file:
    file.write(b"mine")
    print("noise", file=sys.stderr)
    print("noise", flush=True)
    for number in range(3):
        os.write(number, b"noise") if number else os.read(number, 1)
    assert sys.stdin.buffer.read() == b""
"""
    done = run(work, shell=f'"$@" {closed}' if closed.startswith("<") else f'"$@" </dev/null {closed}', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data").read_bytes() == b"mine"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_who_has_seen_enough_is_no_error(unbuffered):
    done = run("print('row\\n' * 100_000)", shell='"$@" | head -1; exit ${PIPESTATUS[0]}', PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stdout, done.stderr) == (0, "row\n", "")


TABLE = """from rich.table import Table
from ktl.cli.tables import output_console
table = Table("row")
for _ in range(10_000):
    table.add_row("row")
output_console().print(table)
"""


def test_a_reader_who_has_seen_enough_of_a_table_is_no_error():
    done = run(TABLE, shell='"$@" | head -2; exit ${PIPESTATUS[0]}')
    assert (done.returncode, done.stderr) == (0, "")


def test_a_command_goes_on_when_nobody_reads_its_progress(tmp_path):
    work = """from ktl.cli.tables import PlainConsole
console = PlainConsole(stderr=True)  # that of the terminal's reporter
for _ in range(10_000):
    console.print("still at work")
print("still at work", file=sys.stderr)
open("done", "w").close()
"""
    done = run(work, shell='"$@" 2>&1 | head -1; exit ${PIPESTATUS[0]}', cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "still at work\n")
    assert (tmp_path / "done").exists()


def test_an_error_that_nobody_reads_has_its_exit_code():
    done = run("raise cli.UserError('bad')", shell='"$@" 2>&1 | true; exit ${PIPESTATUS[0]}')
    assert done.returncode == 2


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_standard_output_is_one_line(unbuffered):
    done = run("print('row')", shell='"$@" >/dev/full', PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 2
    assert done.stderr.startswith("ktl: Expected space on the disk. Received: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "ascii:surrogateescape"])
def test_what_the_encoding_cannot_say_is_an_escape(encoding):
    done = run("print('\\xe9 \\udce9')", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout) == (0, "\\xe9 \\udce9\n")


def test_a_folder_that_was_removed_is_one_line(tmp_path):
    (tmp_path / "gone").mkdir()
    done = run("os.getcwd()", shell='rmdir ../gone; "$@"', cwd=tmp_path / "gone")
    assert done.returncode == 2
    assert done.stderr.startswith("ktl: Expected a folder to work in. Received: ")
    assert done.stderr.count("\n") == 1
