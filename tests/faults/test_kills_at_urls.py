"""A pass that writes to a URL, killed at random moments on one machine or another: it ends as an undisturbed one.

`KTL_KILLS=200 pytest -m slow -n 0 tests/faults/test_kills_at_urls.py` does it as often as it says.
"""

import json
import os
import random
import signal
import time

import pytest
from chains import kill
from stored_features import rows_in, shards_in
from support import Command, start, until

KILLS = 4
"""Of a pass."""

CHAINS = int(os.environ.get("KTL_KILLS", "8")) // KILLS

FLAGS = ("--freeze-depth", "block_relu", "--views", 250, "--json")
"""Of 15,000 rows: eight files."""


SERVERS = ("AWS_", "STORAGE_", "GOOGLE_")
"""Variables that tell where object stores are."""


@pytest.fixture
def commands(photo_folder, tiny_backbone, tmp_path):
    """Starts the pass with a cache folder or URL, as a machine of that name, with an own disk."""
    start(int).join()  # the process that others are forked from has loaded TensorFlow by then

    def started(cache, machine):
        folder = tmp_path / machine
        folder.mkdir(exist_ok=True)
        servers = {
            name: value for name, value in os.environ.items() if name.startswith(("AWS_", "STORAGE_", "GOOGLE_"))
        }
        arguments = ("--dataset", photo_folder, "--backbone", tiny_backbone, "--cache-dir", cache, *FLAGS)
        return Command("features", *arguments, folder=folder, environment={"XDG_CACHE_HOME": str(folder), **servers})

    return started


def ended(command) -> dict:
    code, out, err = command.wait()
    assert code == 0, err
    return json.loads(out)


def shards(place, cache):
    """Name -> content of what is whole there."""
    return {name: place.get(name) for name in place.names(f"{cache}/") if name.endswith(".shard")}


def copied(place, cache, folder):
    """A folder with what is there."""
    for name in place.names(f"{cache}/"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(place.get(name))
    return folder / cache


@pytest.mark.slow
def test_a_pass_that_is_killed_loses_nothing_that_is_there(commands, place, tmp_path):
    began = time.monotonic()
    undisturbed = ended(commands(tmp_path / "here", "undisturbed"))
    seconds, expected = time.monotonic() - began, rows_in(tmp_path / "here")
    chance, in_the_middle = random.Random(3), 0
    for chain in range(CHAINS):
        cache, machine, done = f"cache-{chain}", f"machine-{chain}", {}
        for number in range(KILLS):
            command = commands(f"{place.url}/{cache}", machine)
            if number == 0:
                until(lambda cache=cache, command=command: shards(place, cache) or not command.running, limit=300)
            else:
                command.process.join(chance.uniform(0, seconds))
            kill(command.process.pid, signal.SIGKILL)
            command.wait()
            there = shards(place, cache)
            assert done.items() <= there.items()
            in_the_middle += len(done) < len(there) < 8
            done = there
            if chance.random() < 0.3:
                machine += "+"  # a new one, whose disk has nothing
        found = ended(commands(f"{place.url}/{cache}", machine))
        assert found["photos"] == undisturbed["photos"]
        assert done.items() <= shards(place, cache).items()
        copy = copied(place, cache, tmp_path / "copies")
        assert rows_in(copy) == expected
        ids = [row for _, _, shard in shards_in(copy) for row in shard.ids.tolist()]
        assert len(ids) == len(set(ids)), "something was computed twice"
        assert ended(commands(f"{place.url}/{cache}", "another"))["there"] == undisturbed["photos"]
    assert in_the_middle
