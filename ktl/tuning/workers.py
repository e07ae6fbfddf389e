"""One chief that holds the oracle, and workers that run its trials: KerasTuner's own protocol between processes.

A worker's heartbeats tell the chief that the worker is there. A worker without them for
`ktl.tuning.oracles.HEARTBEAT_TIMEOUT` counts as lost, and its trial is requeued.

The transport is gRPC without authentication or encryption: loopback, or a network that you trust.
"""

import _thread
import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

import grpc

from ktl.errors import UserError
from ktl.machine import backend
from ktl.process import child_environment, cores
from ktl.tuning.keras_tuner_adapter import TrialTaken, serve_oracle

HEARTBEAT_SECONDS = 5.0
"""Seconds between a worker's heartbeats, and between its checks that the chief is there."""

CHIEF_START_TIMEOUT = 600.0
"""Seconds that a worker waits for a chief to start."""

CHIEF_TIMEOUT = 30.0
"""Seconds without an answer after which the chief counts as lost, and its workers end."""

CHIEF_LOST, TRIAL_TAKEN = signal.SIGUSR1, signal.SIGUSR2
"""The signals that tell a worker's main thread that its chief is lost, or that another worker has its trial now."""

STILL_SECONDS = 30.0
"""Seconds that a worker may stand still, as by Ctrl-Z or with its virtual machine, until it asks whether its trial is
still its own: the chief gives it away after `ktl.tuning.oracles.HEARTBEAT_TIMEOUT`."""

MAX_STARTS = 20
"""Starts of one worker, after which the trials are not what kills it."""

STOPPED = {128 + number for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)}
"""Exit codes of a worker that somebody has stopped, which is no error of its own."""

ENDS_WITH_STDIN = "KTL_ENDS_WITH_STDIN"
"""Environment variable of a worker that ends with the process that started it."""


@contextlib.contextmanager
def serving(oracle, address: str) -> Iterator[str]:
    """Serves an oracle to workers while the context lasts; yields the address at which they find it.

    Args:
        oracle: from `ktl.tuning.oracles`.
        address: HOST:PORT to listen on; port 0 for any that is free.

    Raises:
        UserError: the address is not one, or is taken.
    """
    host, _ = split_address(address)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)])
    serve_oracle(oracle, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise UserError(f"Expected chief as a free address of this machine. Received: {address}") from error
    server.start()
    try:
        yield f"{host}:{port}"
    finally:
        server.stop(grace=1.0).wait()


def split_address(address: str) -> tuple[str, int]:
    """The host and the port of HOST:PORT. Raises UserError for any other text."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 2**16):
        raise UserError(f"Expected chief as HOST:PORT. Received: {address}")
    return host, int(port)


@dataclasses.dataclass
class Worker:
    """A worker on this machine, and the command that starts it."""

    name: str
    command: Sequence[str]
    environment: dict
    starts: int = 0
    process: subprocess.Popen = dataclasses.field(init=False)

    def start(self) -> None:
        environment = {**os.environ, **self.environment, "KERASTUNER_TUNER_ID": self.name, ENDS_WITH_STDIN: "1"}
        environment |= child_environment()
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # the command line has set it, and sets it there too
        self.starts += 1
        self.process = subprocess.Popen(self.command, env=environment, stdin=subprocess.PIPE)

    def close(self) -> None:
        """Closes what leads to the process, once it has ended."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):  # nobody reads it any more
                self.process.stdin.close()


def local_workers(count: int, command: Sequence[str]) -> list[Worker]:
    """Workers for this machine, not started: a GPU each where there are any, else each its share of the cores."""
    gpus = backend.gpus()
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")  # by their numbers on the machine, or their names
    names = [name.strip() for name in given if name.strip()] or [str(index) for index in range(len(gpus))]
    threads = str(max(1, cores() // max(1, count)))
    shares = [
        {"CUDA_VISIBLE_DEVICES": names[index % len(gpus)]}
        if gpus
        else {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads, "OMP_NUM_THREADS": threads}
        for index in range(count)
    ]
    return [Worker(f"worker-{index}", command, share) for index, share in enumerate(shares)]


def supervise(oracle, workers: Sequence[Worker]) -> None:
    """Runs local workers until every trial has ended and every worker, of other machines too, was told to stop.

    A worker that was killed or stopped is started again, and its trial goes on; one that ends with an error ends the
    search.

    Raises:
        UserError: a worker met bad input, or is killed whenever it is started.
        RuntimeError: a worker met a bug.
    """
    for worker in workers:
        worker.start()
    running = list(workers)
    try:
        while running or not oracle.exhausted or oracle.active_workers():
            running = [worker for worker in running if not _ended(worker, oracle)]
            time.sleep(0.1)
    finally:
        for worker in running:
            worker.process.kill()
            worker.process.wait()
            worker.close()


def _ended(worker: Worker, oracle) -> bool:
    """Whether a worker has ended as it should; one that was killed is started again."""
    code = worker.process.poll()
    if code is None:
        return False
    worker.close()
    if code == 0:
        return True
    if code == 2:
        raise UserError(f"Expected {worker.name} to run trials. Received: its message above")
    if code > 0 and code not in STOPPED:
        raise RuntimeError(f"{worker.name} ended with exit code {code}; its traceback is above")
    if worker.starts == MAX_STARTS:
        raise UserError(
            f"Expected {worker.name} to run trials. Received: it was killed {MAX_STARTS} times, as for want of memory"
        )
    oracle.worker_lost(worker.name)
    worker.start()
    return False


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Makes this process a worker of the chief at HOST:PORT while the context lasts.

    KerasTuner's tuners that are made inside ask that chief for their trials.

    Raises:
        UserError: the chief does not answer in time, or is gone.
    """
    host, port = split_address(address)
    if os.environ.get(ENDS_WITH_STDIN):
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    _wait_for_chief(host, port)
    os.environ["KERASTUNER_ORACLE_IP"], os.environ["KERASTUNER_ORACLE_PORT"] = host, str(port)
    os.environ.setdefault("KERASTUNER_TUNER_ID", f"worker-{uuid.uuid4().hex[:8]}")
    done = threading.Event()
    # Not an interrupt from the keyboard: a shell starts its background jobs with that ignored.
    raised = {CHIEF_LOST: _ChiefLostError, TRIAL_TAKEN: TrialTaken}
    before = {number: signal.signal(number, _raising(kind)) for number, kind in raised.items()}
    threading.Thread(target=_watch_chief, args=(host, port, done), daemon=True).start()
    try:
        yield
    except _ChiefLostError as error:
        raise UserError(
            f"Expected an answer of the chief at {address}. Received: none for {CHIEF_TIMEOUT:.0f} s. "
            "Start it again, and this worker too; its trial goes on"
        ) from error
    finally:
        done.set()
        for number, handler in before.items():
            signal.signal(number, handler)
        del os.environ["KERASTUNER_ORACLE_IP"], os.environ["KERASTUNER_ORACLE_PORT"]


@contextlib.contextmanager
def heartbeats(send: Callable[[], object], *, is_ours: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Calls `send` every HEARTBEAT_SECONDS while the context lasts, in a thread of its own.

    Two processes that write one trial's folder would remove each other's checkpoints.

    Args:
        send: asks the chief about this worker's trial, which tells it that the worker is there.
        is_ours: whether the chief still takes this worker for the one that has the trial; it is asked where the process
            has stood still. If not, `TrialTaken` is raised in the main thread.
    """
    done = threading.Event()

    def repeat():
        before = _clocks()
        while not done.wait(HEARTBEAT_SECONDS):
            stood = max(now - then for now, then in zip(_clocks(), before, strict=True))
            if stood > STILL_SECONDS and not is_ours() and not done.is_set():
                _thread.interrupt_main(TRIAL_TAKEN)
                return
            before = _clocks()
            send()

    threading.Thread(target=repeat, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _clocks() -> tuple[float, float]:
    """The first stands still where the machine does, the second may be set."""
    return time.monotonic(), time.time()


def _end_with_stdin() -> None:
    """Ends this process at once when the process that started it is gone: then its standard input ends.

    A search that is repeated after a kill starts new workers, and two processes must not write one trial.
    """
    os.read(0, 1)  # not sys.stdin: its lock would be held when Python ends
    os._exit(1)


def _wait_for_chief(host: str, port: int) -> None:
    deadline = time.monotonic() + CHIEF_START_TIMEOUT
    while not _answers(host, port):
        if time.monotonic() > deadline:
            raise UserError(f"Expected a chief at {host}:{port}. Received: no answer for {CHIEF_START_TIMEOUT:.0f} s")
        time.sleep(0.5)


class _ChiefLostError(BaseException):
    """Not an Exception: KerasTuner would take it for a bad trial."""


def _raising(kind: type[BaseException]) -> Callable:
    def handle(number: int, frame) -> None:
        raise kind

    return handle


def _watch_chief(host: str, port: int, done: threading.Event) -> None:
    seen = time.monotonic()
    while not done.wait(HEARTBEAT_SECONDS):
        if _answers(host, port):
            seen = time.monotonic()
        elif time.monotonic() - seen > CHIEF_TIMEOUT:
            _thread.interrupt_main(CHIEF_LOST)
            return


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=HEARTBEAT_SECONDS).close()
    except OSError:
        return False
    return True
