"""Data flows one way, and what answers at once loads nothing heavy."""

import argparse
import ast
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

import ktl

# A module imports only modules that stand before it. A new module gets its place here.
ORDER = (
    "errors",
    "streams",
    "tf_data",
    "files",
    "heads",
    "imagenet",
    "space",
    "graph",
    "layers",
    "freezing",
    "cpu",
    "folding",
    "torch_weights",
    "efficientnet_lite",
    "backbones",
    "network",
    "photos",
    "splits",
    "caltech256",
    "catalogue",
    "datasets",
    "pipelines",
    "duplicates",
    "zero_shot",
    "features",
    "config",
    "reporter",
    "feeding",
    "training",
    "evaluation",
    "knowledge",
    "calibration",
    "intervals",
    "results",
    "runs",
    "oracles",
    "workers",
    "tuning",
    "figures",
    "trials",
    "searches",
    "cells",
    "studies",
    "decoding",
    "converters",
    "classifier",
    "saved_model",
    "model_card",
    "proof",
    "exporting",
    "report_figures",
    "report_format",
    "report_settings",
    "report_photos",
    "report_run",
    "report_search",
    "report_study",
    "report_comparison",
    "report",
    "progress",
    "predicting",
    "server",
    "cli",
    "__main__",
)

HEAVY = {"tensorflow", "keras", "numpy", "scipy", "sklearn", "PIL", "rich", "tensorflow_datasets", "keras_tuner"}


def imported_modules(path: Path) -> set[str]:
    """The ktl modules that a file imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = "ktl." * bool(node.level) + (node.module or "")
            names |= {parent.rstrip(".")} | {f"{parent.rstrip('.')}.{alias.name}" for alias in node.names}
    modules = {name.split(".")[1] for name in names if name.startswith("ktl.")}
    return {module for module in modules if (path.parent / f"{module}.py").exists()}


def back_edges(folder: Path, order) -> list[str]:
    found = []
    for path in sorted(folder.glob("*.py")):
        if path.stem == "__init__":
            continue
        if path.stem not in order:
            found.append(f"{path.stem} has no place in ORDER")
            continue
        earlier = order[: order.index(path.stem)]
        found += [f"{path.stem} imports {module}" for module in sorted(imported_modules(path)) if module not in earlier]
    return found


def test_every_import_goes_back_in_the_order():
    assert back_edges(Path(ktl.__file__).parent, ORDER) == []


def test_the_order_names_no_module_that_is_gone():
    assert [name for name in ORDER if not (Path(ktl.__file__).parent / f"{name}.py").exists()] == []


@pytest.mark.parametrize(
    "line",
    [
        "import ktl.late",
        "from ktl import late",
        "from ktl.late import thing",
        "from . import late",
        "from .late import thing",
        "def f():\n    from ktl import late",
        "if True:\n    import ktl.late as x",
    ],
)
def test_a_back_edge_of_every_form_is_found(tmp_path, line):
    (tmp_path / "early.py").write_text(line)
    (tmp_path / "late.py").write_text("import ktl.early")
    assert back_edges(tmp_path, ("early", "late")) == ["early imports late"]
    assert back_edges(tmp_path, ("late", "early")) == ["late imports early"]
    assert back_edges(tmp_path, ("late",))[0] == "early has no place in ORDER"


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
        ("-c", "import ktl, ktl.cli"),
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
    from ktl.cli import _parser

    return [
        name
        for action in _parser()._actions
        if isinstance(action, argparse._SubParsersAction)
        for name in action.choices
    ]


def test_help_of_every_sub_command():
    commands = sub_commands()
    assert {"run", "backbones", "boundaries"} <= set(commands)
    for command in commands:
        done = fresh_python("-c", "from ktl.cli import main; main()", command, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"usage: ktl {command}")


SUB_COMMANDS = ("export", "predict", "report", "run", "search", "study")
SCRIPTS = (*SUB_COMMANDS, "benchmark", "figures", "paper", "recipes")


def test_every_script_is_known():
    parts = {"interventions"}  # of other scripts
    assert {path.stem for path in (REPOSITORY / "experiments").glob("*.py")} - parts == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_of_every_script_answers_at_once(name):
    usage = f"usage: ktl {name} " if name in SUB_COMMANDS else f"usage: {name}.py "
    seconds = []
    for _ in range(3):  # the best of three, and its work alone: others may be at work on this machine
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
