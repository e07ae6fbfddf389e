"""Flags of the commands, and how errors that name arguments come to name flags."""

import re
import subprocess
import sys

import pytest
from support import REPOSITORY

import ktl
from ktl.cli.commands import COMMANDS
from ktl.cli.flags import Parser
from ktl.cli.main import build_parser, main

# Users' commands rest on these: a change is a decision, not an accident.
RUN = """dataset data-dir image-size augmentation on-bad-image memory-gib cache cache-views cache-dtype cache-dir
cache-limit backbone weights head scale hidden-units freeze-depth epochs batch-size optimizer learning-rate
head-multiplier warmup-epochs weight-decay label-smoothing patience seed xla precision strategy deterministic"""
FLAGS = {
    "run": f"{RUN} output json export",
    "search": f"{RUN} space oracle max-trials seeds keep workers tensorboard output json export overwrite role chief",
    "study": " ".join(
        (
            *(name for name in RUN.split() if name not in ("head", "scale", "freeze-depth", "learning-rate")),
            "heads depths shares seeds synsets output json overwrite",
        )
    ),
    "export": "run output format quantization calibrate json",
    "report": "output",
    "predict": "model csv json",
    "serve": "host port",
    "backbones": "",
    "boundaries": "image-size",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_flags_of_a_command(command, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main([command, "--help"])
    found = re.findall(r"^ +--([a-z-]+)", capsys.readouterr().out, re.MULTILINE)
    assert sorted(found) == sorted(FLAGS[command].split())


def test_the_version(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"ktl {ktl.__version__}\n"
    assert re.fullmatch(r"\d+\.\d+\.\d+", ktl.__version__)


def test_the_package_is_built_with_this_version(tmp_path):
    command = [sys.executable, "-c", "from setuptools import setup; setup()", "--quiet", "--version"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [ktl.__version__]


def test_arguments_that_an_error_quotes_are_shown_as_the_commands_flags():
    parser = Parser()
    parser.add_argument("--learning-rate")
    parser.add_argument("photos")
    message = "Lower `learning_rate`, see `ktl run`, not `photos`, `epochs` or learning_rate"
    assert parser.as_flags(message) == "Lower --learning-rate, see `ktl run`, not `photos`, `epochs` or learning_rate"


def test_the_parser_knows_the_command_that_was_named():
    options = build_parser().parse_args(["run", "--dataset", "digits"])
    assert options.command == "run"
    assert options.parser.as_flags("`epochs` and `max_trials`") == "--epochs and `max_trials`"


def test_a_bad_setting_is_told_as_its_flag(capsys):
    assert main(["run", "--dataset", "digits", "--learning-rate", "-1"]) == 2
    output, error = capsys.readouterr()
    assert (output, error) == ("", "ktl: Expected --learning-rate to be at least 0. Received: -1.0\n")
