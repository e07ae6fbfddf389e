"""Flags of the commands, and how errors that name arguments come to name flags."""

import os
import re
import subprocess
import sys
import threading

import pytest
from support import REPOSITORY

import ktl
from ktl.cli.commands import COMMANDS
from ktl.cli.flags import Parser, config_from
from ktl.cli.main import build_parser, main
from ktl.config.settings import RunConfig, StudyConfig
from ktl.errors import UserError

# Users' commands rest on these: a change is a decision, not an accident.
RUN = """dataset data-dir image-size augmentation flip on-bad-image memory-gib cache views cache-dtype cache-dir
cache-limit backbone weights head scale hidden-units freeze-depth epochs batch-size least-steps optimizer learning-rate
head-multiplier refit folds warmup-epochs weight-decay label-smoothing class-weight objective patience
seed xla precision strategy deterministic"""
VARIED = ("head", "scale", "freeze-depth", "learning-rate", "head-multiplier")
FLAGS = {
    "run": f"config {RUN} output json export",
    "features": f"config {RUN} shard runner runner-options shards output json",
    "search": f"config {RUN} space oracle max-trials seeds keep workers tensorboard output json export overwrite "
    "role chief",
    "study": " ".join(
        (
            *(name for name in RUN.split() if name not in (*VARIED, "refit", "folds")),
            "config heads depths shares shots seeds synsets output json overwrite",
        )
    ),
    "export": "run output format quantization calibrate json",
    "report": "output",
    "predict": "model csv json list output shards shard runner runner-options",
    "serve": "host port allow-origins",
    "backbones": "",
    "boundaries": "image-size",
    "cache": "cache-dir json",
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
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", ktl.__version__)


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


RUN_FILE = """
dataset = "digits"
learning_rate = 0.01
scale = 10
freeze_depth = 3
deterministic = true
"""


def config(tmp_path, text: str, command: str, *flags: str):
    (tmp_path / "settings.toml").write_text(text)
    options = build_parser().parse_args([command, "--config", str(tmp_path / "settings.toml"), *flags])
    return config_from(options)


def test_a_file_of_settings_which_flags_come_before(tmp_path):
    expected = RunConfig(dataset="digits", learning_rate=0.02, scale=10.0, freeze_depth="3", deterministic=True)
    assert config(tmp_path, RUN_FILE, "run", "--learning-rate", "0.02") == expected
    # A flag's value counts where it is the default, too.
    assert config(tmp_path, RUN_FILE, "run", "--scale", "3").scale == 3
    assert config(tmp_path, "", "run", "--dataset", "digits") == RunConfig(dataset="digits")


def test_files_of_a_search_and_a_study(tmp_path):
    text = 'dataset = "digits"\n[space]\nscale = [1, 10]\nhead = ["kept"]\n'
    assert config(tmp_path, text, "search").space == {"scale": (1.0, 10.0), "head": ("kept",)}
    text = 'dataset = "digits"\nheads = ["kept"]\ndepths = ["none", 3]\nshares = []\n'
    expected = StudyConfig(dataset="digits", heads="kept", depths="none,3", shares="none")
    assert config(tmp_path, text, "study") == expected


BAD_FILES = {
    "no toml": ("learning_rate 3", "`config` to be a readable TOML file. Received: /"),
    "unknown name": (
        'dataset = "digits"\nlearning-rate = 3',
        "toml to be one of: dataset, data_dir, .*-rate$",
    ),
    "bad type": ('dataset = "digits"\nepochs = "three"', "`epochs` to be a whole number. Received: 'three'$"),
    "deep": (f"space = {'[' * 5000}", "`config` to be a readable TOML file. Received: /"),
    "no data set": ("epochs = 3", "`dataset`, as a flag or in the file of `config`. Received: neither$"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_told_in_one_line(tmp_path, name):
    text, message = BAD_FILES[name]
    with pytest.raises(UserError, match=rf"^Expected [^\n]*{message}"):
        config(tmp_path, text, "run")


def test_a_file_may_be_a_pipe_as_a_shell_makes_it_but_has_an_end(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("epochs = 3",))
    writer.start()
    options = build_parser().parse_args(["run", "--dataset", "digits", "--config", str(tmp_path / "pipe")])
    assert config_from(options).epochs == 3
    writer.join()
    endless = tmp_path / "endless.json"
    endless.symlink_to("/dev/zero")
    for command in (["run", "--config", "/dev/zero"], ["search", "--dataset", "digits", "--space", str(endless)]):
        assert main(command) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_file_and_a_missing_data_set_get_exit_code_2(tmp_path, capsys):
    assert main(["run", "--config", str(tmp_path / "none.toml")]) == 2
    assert capsys.readouterr().err.startswith("ktl: Expected --config to be a readable TOML file. Received: ")
    assert main(["run"]) == 2
    message = "ktl: Expected --dataset, as a flag or in the file of --config. Received: neither\n"
    assert capsys.readouterr() == ("", message)


def test_the_parser_knows_the_command_that_was_named():
    options = build_parser().parse_args(["run", "--dataset", "digits"])
    assert options.command == "run"
    assert options.parser.as_flags("`epochs` and `max_trials`") == "--epochs and `max_trials`"


def test_a_bad_setting_is_told_as_its_flag(capsys):
    assert main(["run", "--dataset", "digits", "--learning-rate", "-1"]) == 2
    output, error = capsys.readouterr()
    assert (output, error) == ("", "ktl: Expected --learning-rate to be at least 0. Received: -1.0\n")
