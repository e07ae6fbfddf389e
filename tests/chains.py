"""Commands that are stopped at random moments of their lives and repeated, and what has to hold then."""

import csv
import dataclasses
import json
import os
import random
import signal
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path

import numpy as np
from support import Command, start, until

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

ENDS = {
    signal.SIGKILL: (-signal.SIGKILL, None),
    signal.SIGTERM: (143, "ktl: ended by SIGTERM; repeat the command to continue"),
    signal.SIGINT: (130, "ktl: interrupted; repeat the command to continue"),
}
"""Signal -> the exit code of a command that it stops, and its last line."""

VARYING = ("seconds", "checksum", "sha256")
"""Keys of JSON files and columns of CSV files that are others each time, and checksums of files that have these."""

MOST_LOST = 2
"""Workers that may be killed in one search: KerasTuner's trial fails with the third that is lost with it."""


def _read_json(path: Path):
    def without(value):
        if isinstance(value, dict):
            return {name: without(inner) for name, inner in value.items() if name not in VARYING}
        return [without(inner) for inner in value] if isinstance(value, list) else value

    return without(json.loads(path.read_text()))


def _read_csv(path: Path):
    text = path.read_text()
    assert text.endswith("\n"), path
    rows = list(csv.DictReader(text.splitlines(), strict=True))
    return [{name: cell for name, cell in row.items() if name not in VARYING} for row in rows]


def _read_npz(path: Path):
    with np.load(path, allow_pickle=False) as arrays:
        return {name: (arrays[name].shape, arrays[name].tobytes()) for name in arrays.files}


def _read_keras(path: Path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None, path
        return archive.namelist()


def _read_page(path: Path):
    text = path.read_text()
    assert text.rstrip().endswith("</html>"), path
    return text


READERS: dict[str, Callable] = {
    ".json": _read_json,
    ".csv": _read_csv,
    ".npz": _read_npz,
    ".keras": _read_keras,
    ".html": _read_page,
    ".txt": Path.read_text,
    ".md": Path.read_text,
    ".png": Path.read_bytes,
}
"""How a file is read that has to be whole whenever it is there, and what of it is the same after any stops."""


def read_all(folder: Path) -> dict:
    """Path -> what is in it, of all files below a folder that are not hidden; of those without a reader, nothing."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            found[name.as_posix()] = READERS.get(path.suffix, lambda path: None)(path)
    return found


def names_in(folder: Path) -> set[str]:
    """All files below a folder, hidden ones too; of shards, whose names are drawn, whether there are any."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {(path.with_name("any.shard") if path.suffix == ".shard" else path).as_posix() for path in files}


def epochs_done(folder: Path) -> dict:
    """(training, epoch) -> its seconds, which are others when it is repeated."""
    states = {path.parent: json.loads(path.read_text())["history"] for path in folder.glob("out/**/state.json")}
    if (folder / "out" / "history.csv").exists():  # of a run, whose checkpoints go at its end
        with open(folder / "out" / "history.csv", newline="") as file:
            states[folder / "out" / "checkpoint"] = list(csv.DictReader(file))
    return {
        (training.name if training.parent.name == "out" else str(training), int(row["epoch"])): float(row["seconds"])
        for training, history in states.items()
        for row in history
        if training.name != "checkpoint-refit"  # nothing is left of its epochs when it has ended
    }


def files_done(pattern: str) -> Callable[[Path], dict]:
    """Files -> their inodes: of those that match, each is written once."""
    return lambda folder: {str(path.relative_to(folder)): path.stat().st_ino for path in folder.glob(pattern)}


@dataclasses.dataclass
class Job:
    """A command that goes on where it was stopped. It works in a folder of its own, and writes to `out` there.

    Attributes:
        arguments: of `ktl`.
        work_done: folder -> what is done by now: name -> what a repetition would change. None of it may go.
        is_compared: whether a file has to be the same after any number of stops.
        printed: whether what it prints is its result.
        environment: variables that it has.
        within: what it runs in.
        workers: whether its children are killed, too.
    """

    arguments: tuple
    work_done: Callable[[Path], dict] = lambda folder: {}
    is_compared: Callable[[str], bool] = lambda name: True
    printed: bool = False
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    within: Callable = nullcontext
    workers: bool = False

    def start(self, folder: Path) -> Command:
        """Starts it once more."""
        return Command(*self.arguments, folder=folder, environment=self.environment, within=self.within)

    def result(self, folder: Path) -> dict:
        """What has to be the same."""
        return {name: content for name, content in read_all(folder / "out").items() if self.is_compared(name)}


@dataclasses.dataclass(frozen=True)
class Ended:
    """A job that nothing disturbs: its folder, how long it lives, and what it prints."""

    job: Job
    folder: Path
    seconds: float
    printed: str

    @cached_property
    def result(self) -> dict:
        return self.job.result(self.folder)

    @cached_property
    def work_done(self) -> dict:
        return self.job.work_done(self.folder)


def run_undisturbed(job: Job, folder: Path) -> Ended:
    """Runs a job to its end."""
    folder.mkdir(parents=True)
    start(int).join()  # the process that others are forked from has loaded TensorFlow by then
    began = time.monotonic()
    code, printed, err = job.start(folder).wait()
    assert code == 0, err
    return Ended(job, folder, time.monotonic() - began, printed)


class Chain:
    """A job in a folder of its own that is stopped, and repeated, until it ends; then compared.

    It is stopped at random moments, but the first time as soon as something is done that has to last.

    Args:
        ended: what it is compared with.
        folder: a new one.
        chance: draws the moments and the signals.

    Attributes:
        stops: what stopped it.
        in_the_middle: how often some of what has to last was done, and some not.
    """

    def __init__(self, ended: Ended, folder: Path, chance: random.Random):
        self.ended, self.job, self.folder, self.chance = ended, ended.job, folder, chance
        self.stops: list[str] = []
        self.in_the_middle = 0
        self.done: dict = {}
        folder.mkdir(parents=True)

    def run(self, most: int) -> list[str]:
        """Stops it so many times, or less if it ends before; gives what stopped it."""
        command, lost = None, 0
        while len(self.stops) < most:
            command = command or self.job.start(self.folder)
            self._wait(command)
            if not command.running:
                break
            workers = children(command.process.pid)
            if self.job.workers and lost < MOST_LOST and (lost == 0 or self.chance.random() < 0.5):
                self._kill_one_of(workers, command)
                lost += 1
                continue
            if not self._stop(command, self.chance.choice(SIGNALS), workers):
                break
            command = None
        self.compare(command or self.job.start(self.folder))
        return self.stops

    def _wait(self, command: Command) -> None:
        if self.ended.work_done and not self.stops:
            until(lambda: self.job.work_done(self.folder) or not command.running, limit=300)
        else:
            command.process.join(self.chance.uniform(0, self.ended.seconds))

    def _kill_one_of(self, workers: list[int], command: Command) -> None:
        """Kills a worker, and waits for the one that takes its place."""
        kill(self.chance.choice(workers), signal.SIGKILL)
        self.stops.append("worker SIGKILL")
        self._count(self.job.work_done(self.folder))
        until(lambda: set(children(command.process.pid)) - set(workers) or not command.running, limit=60)

    def _count(self, now: dict) -> None:
        self.in_the_middle += 0 < len(now) < len(self.ended.work_done)

    def _stop(self, command: Command, with_signal: signal.Signals, workers: list[int]) -> bool:
        """Whether the signal came before the command's end; then what is there is looked at."""
        kill(command.process.pid, with_signal)
        code, printed, err = command.wait(60)
        if code == 0:
            return False
        expected, line = ENDS[with_signal]
        assert code in (expected, -with_signal), (with_signal, code, err)  # the latter of one that was about to end
        assert "Traceback" not in err, err
        assert line is None or code != expected or err.splitlines()[-1] == line, err
        until(lambda: not any(map(is_running, workers)), limit=10)
        self.stops.append(with_signal.name)
        self.look()
        self._count(self.done)
        assert not self.job.printed or self.ended.printed.startswith(printed)
        return True

    def look(self) -> None:
        """Every file is whole or not there, and what was done by now is not lost, and was not done again."""
        read_all(self.folder / "out")
        now = self.job.work_done(self.folder)
        lost = {name: (value, now.get(name)) for name, value in self.done.items() if now.get(name) != value}
        assert not lost, (self.stops, lost)
        self.done = now

    def compare(self, command: Command) -> None:
        code, printed, err = command.wait()
        assert code == 0, (self.stops, err)
        self.look()
        found = self.job.result(self.folder)
        assert found.keys() == self.ended.result.keys()
        for name, content in self.ended.result.items():
            assert found[name] == content, (self.stops, name)
        assert not self.job.printed or printed == self.ended.printed
        assert names_in(self.folder / "out") == names_in(self.ended.folder / "out")


def kill(process: int, with_signal: signal.Signals) -> None:
    """Sends a signal to a process that may have ended."""
    try:
        os.kill(process, with_signal)
    except ProcessLookupError:
        return


def _state(process: int) -> tuple[str, int] | None:
    """A process's state and its parent; None if it is gone."""
    try:
        state, parent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return state, int(parent)


def is_running(process: int) -> bool:
    """Whether a process has not ended."""
    state = _state(process)
    return state is not None and state[0] != "Z"


def children(parent: int) -> list[int]:
    """The processes that a process has started, and that still run."""
    numbers = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [number for number in numbers if is_running(number) and (_state(number) or ("", 0))[1] == parent]
