"""Whatever the flags of a command are, it ends with one line and exit code 2, and leaves nothing behind."""

import contextlib
import io
import os
import re
import string

import pytest
from hostile import TEXTS, assert_one_line, share
from hypothesis import given
from hypothesis import strategies as st

from ktl.cli.main import build_parser, main

LAST = {
    "run": ["--dataset", "./missing"],
    "features": ["--dataset", "./missing"],
    "search": ["--dataset", "./missing"],
    "study": ["--dataset", "./missing"],
    "export": ["--run", "missing", "--output", "out"],
    "report": ["missing"],
    "predict": ["--model", "missing", "photo.jpg"],
    "serve": ["missing"],
    "backbones": ["missing"],
    "boundaries": ["missing"],
    "cache": ["list", "--cache-dir", "missing"],
}
"""Command -> arguments that come last, and end it where all others are understood."""

FIRST = {"serve": ["--port", "0"]}
"""Command -> arguments that come first; another server may have the default port."""

GOOD = (
    "1 3 64 0.5 1e-3 auto on off none all fail skip adamw standard balanced kept kept,replaced digits random grid "
    "float32 mobilenet_0.25 scale=1,3 freeze_depth chief worker list clear savedmodel litert int8 3/64 ::1 127.0.0.1:0 https://x.org"
)
"""Texts that some flag takes."""

# Digits and dots alone, or letters alone, would be names that the system asks the network for.
HOSTS = st.text(string.punctuation, min_size=1, max_size=9).map(lambda text: f"{text}_") | st.sampled_from(
    ["", " ", "\0", "x" * 300, "a..b", "\udc80", "256.256.256.256.256", "[::1]", "::1%nowhere"]
)


def flags_of(command: str) -> list[str]:
    options = build_parser().parse_args([command, *LAST[command]])
    return re.findall(r"^ +--([a-z-]+)", options.parser.format_help(), re.MULTILINE)


FLAGS = {command: flags_of(command) for command in LAST}


def called(arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    output, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code
    return code, output.getvalue(), error.getvalue()


@st.composite
def arguments_of(draw, command: str) -> list[str]:
    """Some of a command's flags and others, with values of any kind, and arguments without a flag."""
    found = []
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from([*FLAGS[command], "", "no-such-flag"]))
        value = draw(HOSTS if name in ("host", "chief") else TEXTS | st.sampled_from(GOOD.split()))
        forms = {"alone": [f"--{name}"], "two": [f"--{name}", value], "one": [f"--{name}={value}"], "bare": [value]}
        found += forms[draw(st.sampled_from(["two", "two", "one", "alone", "bare"]))]
    return found


@pytest.fixture(scope="module")
def empty_folder(tmp_path_factory):
    """The current one."""
    folder = tmp_path_factory.mktemp("empty")
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.mark.parametrize("command", FLAGS)
@given(data=st.data())
@share(0.6)
def test_a_command_takes_its_flags_or_says_in_one_line_what_is_wrong(empty_folder, command, data):
    given_flags = data.draw(arguments_of(command))
    code, output, error = called([command, *FIRST.get(command, ()), *given_flags, *LAST[command]])
    if code == 0 and output.startswith("usage: "):
        return
    assert (code, output) == (2, ""), error
    assert error.endswith("\n")
    assert_one_line(error[:-1])
    assert error.startswith("ktl")
    assert not list(empty_folder.iterdir())
    assert "missing" in error or "Received: " in error or error.endswith("--help lists the flags\n")
