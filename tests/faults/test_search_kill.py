"""Searches whose processes are killed, and continued by the same command."""

import csv
import os
import random
import signal
import time
from pathlib import Path

import pytest
from support import Command

pytestmark = pytest.mark.slow

SPACE = "scale=1,10,freeze_depth=depthwise_relu,block_relu"
TRIALS = 4


class Searches:
    """Commands of one search, which differ in their folder and what is added."""

    def __init__(self, folder, photos, backbone):
        self.folder = folder
        settings = {
            "dataset": photos,
            "backbone": backbone,
            "space": SPACE,
            "epochs": 8,
            "seeds": 1,
            "patience": 0,
            "batch_size": 4,
            "least_steps": 1,
            "learning_rate": 0.003,
            "cache_dir": "cache",
        }
        self.flags = [part for name, value in settings.items() for part in ("--" + name.replace("_", "-"), str(value))]

    def start(self, output, *more) -> Command:
        return Command("search", *self.flags, "--deterministic", "--output", output, *more, folder=self.folder)

    def table(self, output) -> dict:
        """Trial -> its settings and numbers, those of time left out."""
        with open(self.folder / output / "trials.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len({row["trial"] for row in rows}) == len(rows)
        return {row.pop("trial"): {key: row[key] for key in row if key != "seconds"} for row in rows}

    def same_table(self, output, other) -> bool:
        """The same trials with the same settings, and with the same numbers to 1e-6."""
        ours, theirs = self.table(output), self.table(other)
        assert set(ours) == set(theirs)
        for trial, row in ours.items():
            for key, value in row.items():
                if key.startswith("validation_") and value:
                    assert float(value) == pytest.approx(float(theirs[trial][key]), abs=1e-6)
                else:
                    assert value == theirs[trial][key]
        return True

    def states(self, output) -> list[Path]:
        return list((self.folder / output / "trials").glob("trial_*/seed-0/state.json"))


@pytest.fixture(scope="module")
def searches(tmp_path_factory, photo_folder, tiny_backbone):
    """With an undisturbed search in `calm`."""
    searches = Searches(tmp_path_factory.mktemp("searches"), photo_folder, tiny_backbone)
    code, _, err = searches.start("calm").wait()
    assert code == 0, err
    table = searches.table("calm")
    assert len(table) == TRIALS
    assert {row["status"] for row in table.values()} == {"completed"}
    assert max(float(row["validation_top1"]) for row in table.values()) > 0.4  # it did learn; chance is 1/6
    return searches


@pytest.fixture(scope="module")
def pair(searches):
    """The same, with an undisturbed search of two workers in `calm-pair`: half the threads each round otherwise."""
    code, _, err = searches.start("calm-pair", "--workers", "2").wait()
    assert code == 0, err
    assert set(searches.table("calm-pair")) == set(searches.table("calm"))
    return searches


def until(condition, *, limit: float = 120):
    """Waits for something true, and gives it."""
    end = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def children(parent: int) -> list[int]:
    """The processes that a process has started, and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, owner = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(owner) == parent and state != "Z":
            found.append(int(stat.parent.name))
    return found


def test_twenty_kills_at_random_moments_change_nothing(searches):
    """Each search is killed some time after its first sign of work, repeated, and ends as the undisturbed one."""
    chance, kills, seen = random.Random(0), 0, []
    while kills < 20:
        command = searches.start("killed")
        before = {path: path.stat().st_mtime_ns for path in searches.states("killed")}

        def worked(command=command, before=before):
            now = {path: path.stat().st_mtime_ns for path in searches.states("killed")}
            return now != before or not command.running

        if chance.random() < 0.7:  # else while it starts
            until(worked)
        time.sleep(chance.uniform(0, 0.7))
        if not command.running:
            break
        os.kill(command.process.pid, signal.SIGKILL)
        assert command.wait()[0] == -signal.SIGKILL
        kills += 1
        seen.append(len(searches.states("killed")))
    assert kills >= 5
    assert len(set(seen)) > 1  # in more than one trial
    code, _, err = searches.start("killed").wait()
    assert code == 0, err
    assert searches.same_table("killed", "calm")
    for name in ("predictions.csv", "confusion.csv"):
        best = Path("best") / name
        assert (searches.folder / "killed" / best).read_bytes() == (searches.folder / "calm" / best).read_bytes()


def test_a_killed_worker_starts_again_and_the_search_completes(pair):
    command = pair.start("worker", "--workers", "2")
    workers = until(lambda: len(children(command.process.pid)) == 2 and children(command.process.pid))
    until(lambda: pair.states("worker"))
    os.kill(workers[0], signal.SIGKILL)
    until(lambda: len({*children(command.process.pid)} - {workers[0]}) == 2)  # a new one
    code, _, err = command.wait()
    assert code == 0, err
    assert pair.same_table("worker", "calm-pair")


def test_a_killed_parent_takes_its_workers_with_it_and_the_command_goes_on(pair):
    command = pair.start("parent", "--workers", "2")
    workers = until(lambda: len(children(command.process.pid)) == 2 and children(command.process.pid))
    until(lambda: pair.states("parent"))
    os.kill(command.process.pid, signal.SIGKILL)
    assert command.wait()[0] == -signal.SIGKILL
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), limit=5)
    code, _, err = pair.start("parent", "--workers", "2").wait()
    assert code == 0, err
    assert pair.same_table("parent", "calm-pair")
