"""One call before the work: a fresh process in which TensorFlow is quick and quiet; the cores that it may use."""

import os
import subprocess
import sys

from ktl.process import cores

PROGRAM = """
import gc, json, logging, os, sys
import ktl
heavy = "tensorflow" in sys.modules
ktl.prepare_process()
ktl.prepare_process()
names = ("TF_CPU_ALLOCATOR_USE_BFC", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_CPP_MIN_LOG_LEVEL")
loggers = {name: logging.getLogger(name).level for name in ("absl", "tensorflow")}
print(json.dumps([heavy, [os.environ[name] for name in names], loggers, gc.get_freeze_count() > 100_000]))
"""


def prepared(**variables) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=120, check=True)


def test_it_sets_what_it_says_and_tensorflow_is_quiet():
    done = prepared()
    assert done.stdout == '[false, ["true", "true", "3"], {"absl": 40, "tensorflow": 40}, true]\n'
    assert done.stderr == ""


def test_what_the_user_has_set_stays():
    done = prepared(TF_CPP_MIN_LOG_LEVEL="0", TF_CPU_ALLOCATOR_USE_BFC="false", TF_FORCE_GPU_ALLOW_GROWTH="false")
    assert done.stdout.startswith('[false, ["false", "false", "0"], ')
    assert done.stdout.endswith(", true]\n")
    assert '"absl": 40' not in done.stdout
    assert "oneDNN" in done.stderr


def test_the_cores_are_those_that_the_process_may_use():
    code = "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); from ktl.process import cores; print(cores())"
    done = subprocess.run([sys.executable, "-c", f"import os; {code}"], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert cores() == len(os.sched_getaffinity(0))


def test_all_cores_are_counted_where_nothing_tells_which_a_process_may_use(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == os.cpu_count()
