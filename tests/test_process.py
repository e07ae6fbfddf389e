"""One call before the work: a fresh process in which TensorFlow is quick and quiet; the cores that it may use."""

import logging
import os
import subprocess
import sys

import pytest

from ktl.process import cores, logging_kept

PROGRAM = """
import gc, json, logging, os, sys
import ktl
heavy = "tensorflow" in sys.modules
ktl.prepare_process()
ktl.prepare_process()
names = "TF_CPU_ALLOCATOR_USE_BFC TF_FORCE_GPU_ALLOW_GROWTH XLA_PYTHON_CLIENT_PREALLOCATE TF_CPP_MIN_LOG_LEVEL".split()
loggers = {name: logging.getLogger(name).level for name in ("absl", "tensorflow")}
print(json.dumps([heavy, [os.environ[name] for name in names], loggers, gc.get_freeze_count() > 100_000]))
"""


def prepared(**variables) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "XLA_"))}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=120, check=True)


def test_it_sets_what_it_says_and_tensorflow_is_quiet():
    done = prepared()
    assert done.stdout == '[false, ["true", "true", "false", "3"], {"absl": 40, "tensorflow": 40}, true]\n'
    assert done.stderr == ""


def test_what_the_user_has_set_stays():
    done = prepared(TF_CPP_MIN_LOG_LEVEL="0", TF_CPU_ALLOCATOR_USE_BFC="false", XLA_PYTHON_CLIENT_PREALLOCATE="true")
    assert done.stdout.startswith('[false, ["false", "true", "true", "0"], ')
    assert done.stdout.endswith(", true]\n")
    assert '"absl": 40' not in done.stdout
    assert "oneDNN" in done.stderr


@pytest.mark.parametrize(
    ("file", "variables", "said"),
    [
        (None, {"KERAS_BACKEND": "torch"}, "Expected KERAS_BACKEND to be tensorflow or jax"),
        (None, {"KERAS_MAX_EPOCHS": "1"}, "Expected no KERAS_MAX_EPOCHS"),
        pytest.param('{"nnx_enabled": true}', {}, "KERAS_HOME/keras.json", marks=pytest.mark.long),
        ('{"backend": "theano", "image_data_format": "channels_first", "floatx": "float64", "epsilon": 0.5}', {}, ""),
        ('{"epsilon": 1}', {}, "KERAS_HOME/keras.json"),
        ("[]", {}, "KERAS_HOME/keras.json"),
    ],
)
def test_what_keras_is_set_to_elsewhere_works_or_is_one_line(tmp_path, file, variables, said):
    if file is not None:
        (tmp_path / "keras.json").write_text(file)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "ktl", "boundaries", "mobilenet_0.25", "--image-size", "32"],
        env={**kept, "KERAS_HOME": str(tmp_path), **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert said.replace("KERAS_HOME", str(tmp_path)) in done.stderr
    assert (done.returncode, done.stderr.count("\n")) == ((2, 1) if said else (0, 0))
    assert ("conv_pw_13" in done.stdout) is (not said)


def test_the_cores_are_those_that_the_process_may_use():
    code = "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); from ktl.process import cores; print(cores())"
    done = subprocess.run([sys.executable, "-c", f"import os; {code}"], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert cores() == len(os.sched_getaffinity(0))


def test_all_cores_are_counted_where_nothing_tells_which_a_process_may_use(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == os.cpu_count()


def test_a_message_of_absl_sets_up_no_logging(monkeypatch):
    absl_logging = pytest.importorskip("absl.logging")  # comes with TensorFlow
    monkeypatch.setattr(logging.root, "handlers", [])
    with logging_kept():
        absl_logging.info("not shown")
        assert logging.root.handlers
    assert logging.root.handlers == []


def test_logging_that_somebody_sets_up_stays(monkeypatch, tmp_path):
    for arguments in ({"level": "DEBUG"}, {"filename": tmp_path / "log"}):
        monkeypatch.setattr(logging.root, "handlers", [])
        monkeypatch.setattr(logging.root, "level", logging.WARNING)
        with logging_kept():
            logging.basicConfig(**arguments)
        (handler,) = logging.root.handlers
        handler.close()
