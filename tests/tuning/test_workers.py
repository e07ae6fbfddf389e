"""Chief and workers: addresses, and separate commands that find each other and end by themselves."""

import contextlib
import csv
import functools
import signal
import socket
import sys
import time

import keras_tuner
import pytest
from support import Command, free_port

from ktl.errors import UserError
from ktl.machine import backend
from ktl.tuning import oracles, workers
from ktl.tuning.keras_tuner_adapter import TrialTaken


@pytest.fixture
def oracle(tmp_path):
    """A grid of two points."""
    return oracles.new_oracle("grid", {"scale": (1.0, 3.0)}, max_trials=50, epochs=1, seed=0, folder=tmp_path)


# Addresses


@pytest.mark.parametrize(
    ("address", "parts"), [("127.0.0.1:0", ("127.0.0.1", 0)), ("chief.lan:65535", ("chief.lan", 65535))]
)
def test_an_address_is_a_host_and_a_port(address, parts):
    assert workers.split_address(address) == parts


@pytest.mark.parametrize("address", ["", "host", "host:", ":80", "host:x", "host:-1", "host:65536", "80"])
def test_other_texts_are_refused_in_one_line(address):
    with pytest.raises(UserError, match=rf"^Expected chief as HOST:PORT. Received: {address}$"):
        workers.split_address(address)


def test_a_taken_port_is_bad_input(oracle):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(UserError, match=address), workers.serving(oracle, address):
            pass


def test_two_chiefs_cannot_have_the_same_port(oracle):
    with (
        workers.serving(oracle, "127.0.0.1:0") as address,
        pytest.raises(UserError, match=address),
        workers.serving(oracle, address),
    ):
        pass


def test_a_chief_serves_kerastuners_workers_and_nobody_afterwards(oracle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with workers.serving(oracle, "127.0.0.1:0") as address:
        host, port = workers.split_address(address)
        assert host == "127.0.0.1"
        with workers.connected(address):  # KerasTuner's own client takes the oracle's place in its tuners
            client = keras_tuner.engine.base_tuner.BaseTuner(keras_tuner.oracles.RandomSearchOracle()).oracle
        trial = client.create_trial("a")
        assert trial.hyperparameters.values == {"scale": 1.0}
        assert oracle.ongoing_trials["a"].trial_id == trial.trial_id
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), timeout=5)


def test_loopback_is_the_default():
    from ktl.cli.main import build_parser

    assert build_parser().parse_args(["search", "--dataset", "x"]).chief == "127.0.0.1:0"


# Heartbeats and losses


def test_a_worker_without_a_chief_gives_up(monkeypatch):
    monkeypatch.setattr(workers, "CHIEF_START_TIMEOUT", 0.6)
    started = time.monotonic()
    with (
        pytest.raises(UserError, match=r"Expected a chief at 127\.0\.0\.1:\d+"),
        workers.connected(f"127.0.0.1:{free_port()}"),
    ):
        pass
    assert 0.6 <= time.monotonic() - started < 10


@pytest.mark.parametrize("interrupts", [signal.default_int_handler, signal.SIG_IGN])
def test_a_worker_whose_chief_is_gone_ends_with_what_to_do(monkeypatch, request, interrupts):
    """In the background of a shell, too, where an interrupt from the keyboard is ignored."""
    request.addfinalizer(functools.partial(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, interrupts)))
    monkeypatch.setattr(workers, "CHIEF_TIMEOUT", 0.3)
    monkeypatch.setattr(workers, "HEARTBEAT_SECONDS", 0.1)
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"

    def work():
        with workers.connected(address):
            time.sleep(0.5)
            listener.close()
            for _ in range(600):
                time.sleep(0.1)

    with pytest.raises(UserError, match=f"Expected an answer of the chief at {address}"):
        work()


def test_an_interrupt_from_the_keyboard_stays_one():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(KeyboardInterrupt), workers.connected(address):
            raise KeyboardInterrupt


def test_heartbeats_come_until_the_end(monkeypatch):
    monkeypatch.setattr(workers, "HEARTBEAT_SECONDS", 0.05)
    sent = []
    with workers.heartbeats(lambda: sent.append(1)):
        time.sleep(0.6)
    time.sleep(0.2)
    count = len(sent)
    time.sleep(0.3)
    assert 3 <= count == len(sent)


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_worker_that_stood_still_asks_whether_its_trial_is_still_its_own(oracle, monkeypatch, is_ours):
    monkeypatch.setattr(workers, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(workers, "STILL_SECONDS", 0.3)
    asked, sent = [], []

    def ask():
        asked.append(1)
        return is_ours

    def send():
        sent.append(1)
        time.sleep(0.5 if len(sent) == 3 else 0)  # as the whole process would

    expected = contextlib.nullcontext() if is_ours else pytest.raises(TrialTaken)
    with (
        workers.serving(oracle, "127.0.0.1:0") as address,
        workers.connected(address),
        expected,
        workers.heartbeats(send, is_ours=ask),
    ):
        for _ in range(20):
            time.sleep(0.1)
    assert asked == [1]
    assert len(sent) > 10 if is_ours else len(sent) == 3


def python(code: str) -> workers.Worker:
    return workers.Worker("w", [sys.executable, "-c", code], {})


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(143)", "sys.exit(130)"])
def test_a_worker_that_was_stopped_starts_again(oracle, tmp_path, end):
    """Its third start ends as it should; the trial that it had is given out again."""
    held = oracle.create_trial("w")
    code = f"""
import os, pathlib, signal, sys
starts = pathlib.Path({str(tmp_path / "starts")!r})
starts.write_text((starts.read_text() if starts.exists() else "") + os.environ["KERASTUNER_TUNER_ID"])
if len(starts.read_text()) < 3:
    {end}
"""
    worker = python(code)
    oracle.exhausted = True
    workers.supervise(oracle, [worker])
    assert (worker.starts, (tmp_path / "starts").read_text()) == (3, "www")
    assert oracle.create_trial("other").trial_id == held.trial_id


def test_a_worker_that_is_always_killed_is_no_endless_loop(oracle, monkeypatch):
    monkeypatch.setattr(workers, "MAX_STARTS", 3)
    with pytest.raises(UserError, match="it was killed 3 times"):
        workers.supervise(oracle, [python("import os; os.kill(os.getpid(), 9)")])


@pytest.mark.parametrize(("code", "error"), [(2, UserError), (1, RuntimeError)])
def test_a_workers_own_error_ends_the_search_and_the_other_workers(oracle, code, error):
    patient = python("import time; time.sleep(600)")
    with pytest.raises(error):
        workers.supervise(oracle, [patient, python(f"raise SystemExit({code})")])
    assert patient.process.poll() is not None


# Commands


def test_chief_and_worker_as_separate_commands_find_each_other_and_end(tmp_path, photo_folder, tiny_backbone):
    flags = ["--dataset", photo_folder, "--backbone", tiny_backbone, "--space", "scale=1,10", "--epochs", "1"]
    flags += ["--seeds", "1", "--freeze-depth", "block_relu", "--output", "out", "--cache-dir", "cache"]
    flags += ["--chief", f"127.0.0.1:{free_port()}"]
    worker = Command("search", *flags, "--role", "worker", folder=tmp_path)  # it waits for its chief
    try:
        code, out, err = Command("search", *flags, "--role", "chief", folder=tmp_path).wait()
        assert code == 0, err
        assert worker.wait(30)[:2] == (0, "")
    finally:
        worker.process.kill()
    with open(tmp_path / "out" / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["scale"], row["status"]) for row in rows) == [("1.0", "completed"), ("10.0", "completed")]
    assert "2 completed trials" in out


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ["0", "1", "0"]),
        ("", ["0", "1", "0"]),
        ("2, 3", ["2", "3", "2"]),
        ("GPU-a,GPU-b", ["GPU-a", "GPU-b", "GPU-a"]),
    ],
)
def test_workers_share_the_gpus_that_were_given_to_the_process(monkeypatch, given, expected):
    monkeypatch.setattr(backend, "gpus", lambda: [("one", (8, 0)), ("two", (8, 0))])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    found = workers.local_workers(3, ["ktl"])
    assert [worker.environment["CUDA_VISIBLE_DEVICES"] for worker in found] == expected
