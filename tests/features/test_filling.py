"""What is missing is computed, shard by shard, once, by as many processes as want it; and goes on after a kill."""

import errno
import os
import signal
import time

import numpy as np
import pytest
from made_up_rows import KEY, ROW_BYTES, compute, entry_of, filled, ids_of, rows_of
from support import start, until

from ktl.features import filling as filling_module
from ktl.features.folder import own_entries, used_bytes
from ktl.features.store import Features, FeatureStore

OTHER = KEY[::-1]
IDS = ids_of(range(300), codes=(0, 1))
SHARD_ROWS = 50
SLOWLY = 0.1  # seconds for ten rows: so that a kill hits a pass that is under way


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path)


def everything(entry, ids=IDS):
    labels = np.zeros(len(ids), np.int32)
    return Features(labels=labels, ids=ids, views=1, entry=entry, mend=lambda: False).read(np.arange(len(ids)))


class Counting:
    """Computes, and keeps the ids that it computed by the entries that they were for."""

    def __init__(self):
        self.asked = []

    def __call__(self, entries, ids):
        self.asked.append(({entry.key for entry in entries}, ids))
        return compute(entries, ids)

    def of(self, *keys):
        return [row for asked, ids in self.asked for row in ids.tolist() if asked == set(keys)]


def left_over(folder):
    """What should not be there when nobody computes."""
    return [path.name for path in folder.rglob("*") if path.suffix in (".partial", ".claim", ".lock")][1:]


def test_what_is_missing_is_computed_and_read(store):
    done = []
    entry = filled(store, IDS, shard_rows=SHARD_ROWS, progress=done.append)
    np.testing.assert_array_equal(everything(entry), rows_of(IDS))
    mixed = np.random.default_rng(0).permutation(len(IDS))
    features = Features(labels=np.zeros(300), ids=IDS, views=2, entry=entry, mend=lambda: False)
    np.testing.assert_array_equal(features.read(mixed), rows_of(IDS)[mixed])
    assert len(entry.shards) == len(IDS) / SHARD_ROWS
    assert done[0] == 0
    assert done[-1] == len(IDS)
    assert done == sorted(done)
    assert left_over(store.folder) == []


def test_only_what_is_missing_is_computed(store):
    filled(store, IDS[:100])
    counting, done = Counting(), []
    entry = filled(store, IDS[50:200], compute=counting, progress=done.append)
    assert counting.of(KEY) == IDS[100:200].tolist()
    assert done[-1] == 100
    np.testing.assert_array_equal(everything(entry, IDS[:200]), rows_of(IDS[:200]))
    filled(store, IDS[:200], compute=counting)
    assert len(counting.asked) == 1


def test_an_id_that_comes_twice_is_computed_once(store):
    counting = Counting()
    entry = filled(store, np.concatenate([IDS[:9], IDS[4:12]]), compute=counting)
    assert counting.of(KEY) == IDS[:12].tolist()
    np.testing.assert_array_equal(everything(entry, IDS[[4, 4]]), rows_of(IDS[[4, 4]]))


def test_several_entries_are_written_by_one_computation_as_far_as_both_lack_it(store):
    filled(store, IDS[:100], KEY)
    counting = Counting()
    entry = filled(store, IDS[:150], KEY, OTHER, compute=counting, shard_rows=SHARD_ROWS)
    assert counting.of(OTHER) == IDS[:100].tolist()
    assert counting.of(KEY, OTHER) == IDS[100:150].tolist()
    np.testing.assert_array_equal(everything(entry, IDS[:150]), rows_of(IDS[:150]))
    np.testing.assert_array_equal(everything(entry_of(store, OTHER), IDS[:150]), rows_of(IDS[:150], OTHER))


def test_the_limit_holds_for_many_data_sets_of_one_entry(tmp_path):
    limit, index = 15_000, 2_000  # bytes; what a shard's index takes is not counted before it is written
    store = FeatureStore(tmp_path, limit_gib=limit / 2**30)
    for first in range(0, 500, 50):  # each has half of its rows in common with the one before
        counting = Counting()
        entry = filled(store, IDS[first : first + 100], compute=counting, shard_rows=SHARD_ROWS)
        assert counting.of(KEY) == IDS[first + 50 * (first > 0) : first + 100].tolist()
        np.testing.assert_array_equal(everything(entry, IDS[first : first + 100]), rows_of(IDS[first : first + 100]))
        assert used_bytes(tmp_path) <= limit + index


def test_shards_of_large_rows_have_fewer(store, monkeypatch):
    monkeypatch.setattr(filling_module, "SHARD_BYTES", 20 * ROW_BYTES)
    entry = filled(store, IDS[:100])
    assert [len(shard.ids) for shard in entry.shards] == [20] * 5


def test_a_damaged_index_is_told_and_its_rows_are_computed_again(tmp_path):
    told = []
    store = FeatureStore(tmp_path, tell=told.append)
    entry = filled(store, IDS, shard_rows=SHARD_ROWS)
    shard, known = entry.shards[2], entry.shards[2].ids
    shard.path.write_bytes(shard.path.read_bytes()[:-1])
    del entry, shard
    counting, store = Counting(), FeatureStore(tmp_path, tell=told.append)
    entry = filled(store, IDS, compute=counting)
    assert counting.of(KEY) == known.tolist()
    assert len(told) == 1
    assert "was damaged and is removed" in told[0]
    np.testing.assert_array_equal(everything(entry), rows_of(IDS))


def test_a_damaged_row_is_computed_again_while_it_is_read(tmp_path):
    told = []
    store = FeatureStore(tmp_path, tell=told.append)
    entry = filled(store, IDS, shard_rows=SHARD_ROWS)
    counting = Counting()

    def mend():
        filled(store, IDS, compute=counting)
        return True

    train, test = (
        Features(labels=np.zeros(len(ids)), ids=ids, views=1, entry=entry, mend=mend) for ids in (IDS[:400], IDS[380:])
    )
    shard = entry.shards[int(entry.find(IDS[390:391])[0, 0])]
    lost = shard.ids.tolist()
    shard.path.write_bytes(bytes(shard.path.stat().st_size))
    for features, ids in ((train, IDS[:400]), (test, IDS[380:])):
        np.testing.assert_array_equal(features.read(np.arange(len(ids))), rows_of(ids))
    assert counting.of(KEY) == lost
    assert len(told) == 1


def test_a_disk_without_room_for_what_is_damaged_is_an_error(store):
    entry = filled(store, IDS)
    features = Features(labels=np.zeros(len(IDS)), ids=IDS, views=1, entry=entry, mend=lambda: False)
    (shard,) = entry.shards
    shard.path.write_bytes(bytes(shard.path.stat().st_size))
    with pytest.raises(OSError, match="No space left"):
        features.read(np.arange(3))


def test_an_error_leaves_whole_shards_alone_and_no_claim(store):
    def fails(entries, ids):
        for number, part in enumerate(compute(entries, ids)):
            if number == 3 and own_entries(store.folder)[0].shards:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield part

    with pytest.raises(OSError, match="No space left"):
        filled(store, IDS, compute=fails, shard_rows=SHARD_ROWS)
    assert left_over(store.folder) == []
    counting = Counting()
    entry = filled(store, IDS, compute=counting)
    assert len(counting.of(KEY)) == len(IDS) - SHARD_ROWS
    np.testing.assert_array_equal(everything(entry), rows_of(IDS))


# Several processes


def _fill(folder, log, seconds=0.002, part=10):
    store = FeatureStore(folder)

    def slowly(entries, ids):
        with open(log, "ab", buffering=0) as file:
            for chosen, rows in compute(entries, ids, part):
                file.write(b"%d %d\n" % (os.getpid(), len(chosen)))
                time.sleep(seconds)
                yield chosen, rows

    filled(store, IDS, KEY, OTHER, compute=slowly, shard_rows=SHARD_ROWS)


def computed(log):
    """Process -> rows that it computed."""
    found = {}
    for process, count in (line.split() for line in log.read_text().splitlines()):
        found[process] = found.get(process, 0) + int(count)
    return found


def check_whole(folder):
    store = FeatureStore(folder)
    for key in (KEY, OTHER):
        entry = entry_of(store, key)
        assert sorted(row for shard in entry.shards for row in shard.ids.tolist()) == sorted(IDS.tolist())
        np.testing.assert_array_equal(everything(entry), rows_of(IDS, key))
    assert left_over(folder) == []


def test_processes_share_the_work_and_compute_nothing_twice(tmp_path):
    log = tmp_path / "log"
    for process in [start(_fill, str(tmp_path / "cache"), str(log)) for _ in range(3)]:
        process.join(120)
        assert process.exitcode == 0
    rows = computed(log)
    assert sum(rows.values()) == len(IDS)
    assert len(rows) > 1
    check_whole(tmp_path / "cache")


def test_killed_processes_lose_their_open_shards_alone(tmp_path):
    """Each is killed at its work, at a random moment of it."""
    log, generator, kills = tmp_path / "log", np.random.default_rng(0), 0
    log.touch()
    running = [start(_fill, str(tmp_path / "cache"), str(log), SLOWLY) for _ in range(3)]
    for _ in range(5):
        victim = running.pop(0)
        until(lambda victim=victim: b"%d" % victim.pid in log.read_bytes() or not victim.is_alive(), limit=60)
        time.sleep(generator.uniform(0, 3 * SLOWLY))
        victim.kill()  # one that has ended already, on a quick machine, is left alone
        victim.join(60)
        kills += victim.exitcode == -signal.SIGKILL
        running.append(start(_fill, str(tmp_path / "cache"), str(log), SLOWLY))
    assert kills >= 3
    for process in running:
        process.join(120)
        assert process.exitcode == 0
    assert len(IDS) < sum(computed(log).values()) <= len(IDS) + kills * SHARD_ROWS
    check_whole(tmp_path / "cache")


def test_what_a_kill_left_goes_with_the_next_command_and_what_is_computed_now_stays(tmp_path):
    process = start(_fill, str(tmp_path), str(tmp_path / "log"), 60)
    until(lambda: len(list(tmp_path.rglob("*.partial"))) == 2, limit=60)
    FeatureStore(tmp_path)
    assert len(list(tmp_path.rglob("*.partial"))) == len(list(tmp_path.rglob("*.claim"))) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    (tmp_path / ".claims" / ".abc.claim-12345678").write_bytes(b"half")
    FeatureStore(tmp_path)
    assert left_over(tmp_path) == []
    assert os.listdir(tmp_path / ".claims") == ["plan.lock"]


def test_who_waits_for_others_is_told_once_and_finds_what_they_wrote(tmp_path):
    log = tmp_path / "log"
    process = start(_fill, str(tmp_path / "cache"), str(log), 0.3, SHARD_ROWS)
    store, told = FeatureStore(tmp_path / "cache"), []
    until(lambda: list(store.folder.rglob("*.partial")), limit=60)
    counting = Counting()
    mine = IDS[:SHARD_ROWS]
    entry = filled(store, mine, compute=counting, waiting=lambda: told.append(1))
    assert (told, counting.asked) == ([1], [])
    np.testing.assert_array_equal(everything(entry, mine), rows_of(mine))
    process.join(60)
    assert process.exitcode == 0
