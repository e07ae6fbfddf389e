"""What answers at once loads nothing heavy."""

import os
import resource
import subprocess
import sys

import pytest
from support import REPOSITORY

HEAVY = {"tensorflow", "keras", "numpy", "scipy", "sklearn", "PIL", "rich", "tensorflow_datasets", "keras_tuner"}


def fresh_python(*arguments) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "100"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=60)


def loaded_packages(importtime: str) -> set[str]:
    """The top-level packages in what `python -X importtime` writes."""
    return {
        line.rsplit("|", 1)[1].strip().split(".")[0]
        for line in importtime.splitlines()
        if line.startswith("import time:")
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", "import ktl, ktl.cli.main"),
        (str(REPOSITORY / "experiments" / "run.py"), "--help"),
        (str(REPOSITORY / "experiments" / "run.py"), "--dataset", "digits", "--head", "neck"),
    ],
)
def test_nothing_heavy_is_loaded(arguments):
    done = fresh_python("-X", "importtime", *arguments)
    packages = loaded_packages(done.stderr)
    assert "ktl" in packages
    assert packages & HEAVY == set()


def sub_commands() -> list[str]:
    from ktl.cli.commands import COMMANDS

    return list(COMMANDS)


def test_help_of_every_sub_command():
    commands = sub_commands()
    assert {"run", "backbones", "boundaries"} <= set(commands)
    for command in commands:
        done = fresh_python("-c", "from ktl.cli.main import main; main()", command, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"usage: ktl {command}")


SUB_COMMANDS = ("export", "predict", "report", "run", "search", "study")
SCRIPTS = (*SUB_COMMANDS, "benchmark", "compare_commits", "figures", "guide_table", "paper", "probes", "recipes")


def test_every_script_is_known():
    parts = {
        "changes",
        "co_tuning",
        "endings",
        "feeding",
        "held_out",
        "interventions",
        "recipe_table",
    }  # of other scripts
    assert {path.stem for path in (REPOSITORY / "experiments").glob("*.py")} - parts == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_of_every_script_answers_at_once(name):
    usage = f"usage: ktl {name} " if name in SUB_COMMANDS else f"usage: {name}.py "
    seconds = []
    while not seconds or (seconds[-1] >= 0.5 and len(seconds) < 3):  # its work alone: others may be at work here
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = fresh_python(str(REPOSITORY / "experiments" / f"{name}.py"), "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(usage)
    assert min(seconds) < 0.5


def test_help_names_every_flag_with_its_default():
    text = fresh_python(str(REPOSITORY / "experiments" / "run.py"), "--help").stdout
    for part in ("data:", "network:", "training:", "machine:", "output:", "--head-multiplier FLOAT", "(default: kept)"):
        assert part in text
