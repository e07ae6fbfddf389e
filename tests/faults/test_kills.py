"""Commands that are killed, ended and interrupted at random moments of their lives, in chains, and end as if not.

`KTL_KILLS=200 pytest -m long -n 0 tests/faults/test_kills.py` does it as often as it says.
"""

import os
import random
import signal
from pathlib import Path

import pytest
from chains import Chain, epochs_done, kill
from jobs import EPOCHS, JOBS, Undisturbed
from support import until

STOPS = {
    "run": 4,
    "cache": 3,
    "features": 1,
    "search": 3,
    "workers": 2,
    "study": 1,
    "export": 2,
    "predict": 2,
    "report": 2,
}
"""How often: of 20, and of `KTL_KILLS` in the same proportions."""

CHAIN = 5
"""The most stops of one command, after which it is let to its end."""


def stop_in_chains(undisturbed: Undisturbed, name: str, stops: int, folder: Path) -> list[list[str]]:
    """What stopped the command in each of its chains, so many times in all; once at least in the middle of its work."""
    chance, chains = random.Random(f"{name} {stops}"), []
    while (left := stops - sum(len(chain.stops) for chain in chains)) > 0:
        chains.append(Chain(undisturbed[name], folder / str(len(chains)), chance))
        chains[-1].run(min(left, CHAIN))
        assert len(chains) < 5 + 2 * stops, "it ends before it can be stopped"
    assert not undisturbed[name].work_done or sum(chain.in_the_middle for chain in chains) > 0
    return [chain.stops for chain in chains]


def test_a_run_that_is_killed_after_an_epoch_goes_on_with_the_next(tmp_path, photo_folder, tiny_backbone):
    job = JOBS["run"](Undisturbed(tmp_path / "ended", photo_folder, tiny_backbone))
    command = job.start(tmp_path)
    until(lambda: epochs_done(tmp_path) or not command.running, limit=300)
    kill(command.process.pid, signal.SIGKILL)
    assert command.wait()[0] == -signal.SIGKILL
    before = epochs_done(tmp_path)
    assert 0 < len(before) < EPOCHS
    code, _, err = job.start(tmp_path).wait()
    assert code == 0, err
    after = epochs_done(tmp_path)
    assert before.items() < after.items()
    assert len(after) == EPOCHS


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_a_command_that_is_stopped_and_repeated_ends_as_an_undisturbed_one(undisturbed, name, tmp_path):
    stop_in_chains(undisturbed, name, STOPS[name], tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", JOBS)
def test_so_it_does_hundreds_of_times(undisturbed, name, tmp_path):
    wanted = int(os.environ.get("KTL_KILLS", "200"))
    stops = -(-wanted * STOPS[name] // sum(STOPS.values()))
    chains = stop_in_chains(undisturbed, name, stops, tmp_path)
    print(f"{name}: {sum(map(len, chains))} stops in {len(chains)} chains: {chains}")
