"""Commands that are killed, ended and interrupted at random moments of their lives, in chains, and end as if not.

`KTL_KILLS=200 pytest -m long -n 0 tests/faults/test_kills.py` does it as often as it says.
"""

import os
import random
from pathlib import Path

import pytest
from chains import Chain
from jobs import JOBS, Calms

STOPS = {
    "run": 6,
    "cache": 3,
    "features": 3,
    "search": 4,
    "workers": 2,
    "study": 1,
    "export": 1,
    "predict": 2,
    "report": 1,
}
"""How often: of 23, and of `KTL_KILLS` in the same proportions."""

CHAIN = 5
"""The most stops of one command, after which it is let to its end."""


def stop_in_chains(calms: Calms, name: str, stops: int, folder: Path) -> list[list[str]]:
    """What stopped the command in each of its chains, so many times in all."""
    chance, chains = random.Random(f"{name} {stops}"), []
    while (left := stops - sum(map(len, chains))) > 0:
        chain = Chain(calms[name], folder / str(len(chains)), chance)
        chains.append(chain.run(min(left, CHAIN)))
        assert len(chains) < 5 + 2 * stops, "it ends before it can be stopped"
    return chains


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_a_command_that_is_stopped_and_repeated_ends_as_an_undisturbed_one(calms, name, tmp_path):
    stop_in_chains(calms, name, STOPS[name], tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", JOBS)
def test_so_it_does_hundreds_of_times(calms, name, tmp_path):
    wanted = int(os.environ.get("KTL_KILLS", "200"))
    stops = -(-wanted * STOPS[name] // sum(STOPS.values()))
    chains = stop_in_chains(calms, name, stops, tmp_path)
    print(f"{name}: {sum(map(len, chains))} stops in {len(chains)} chains: {chains}")
