"""Rows of a file: read and written at any place, by what every system has."""

import errno
import io
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ktl.features.rows import MOST_OPEN, SharedFile, write_all

VALUES = np.random.default_rng(0).normal(size=(20, 3, 5)).astype("float32")


def written(path):
    with io.FileIO(path, "w") as file:
        write_all(file, VALUES.data.cast("B"))
    return path


def read(file, rows):
    out = np.empty((len(rows), 3, 5), "float32")
    file.read_rows(np.array(rows), out)
    return out


@pytest.mark.parametrize("without", [(), ("pread", "preadv", "pwrite", "pwritev")])
def test_rows_are_read_in_any_order(tmp_path, monkeypatch, without):
    """Also where the system has no reading at a place, as Windows has none."""
    for name in without:
        monkeypatch.delattr(os, name)
    file = SharedFile(written(tmp_path / "rows.bin"))
    rows = [7, 0, 19, 7]
    np.testing.assert_array_equal(read(file, rows), VALUES[rows])
    assert read(file, []).shape == (0, 3, 5)
    assert file.size == VALUES.nbytes
    assert file.read_end(VALUES.nbytes - 60) == VALUES[-1].tobytes()


def test_threads_share_a_file(tmp_path):
    file = SharedFile(written(tmp_path / "rows.bin"))
    chosen = [np.random.default_rng(seed).permutation(20) for seed in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for rows, values in zip(chosen, pool.map(lambda rows: read(file, rows), chosen), strict=True):
            np.testing.assert_array_equal(values, VALUES[rows])


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_more_files_than_may_be_open_are_read_by_several_threads(tmp_path):
    before = open_files()
    files = [SharedFile(written(tmp_path / f"{number}.bin")) for number in range(2 * MOST_OPEN)]
    generator = np.random.default_rng(0)
    chosen = [(files[generator.integers(len(files))], generator.permutation(20)) for _ in range(2000)]
    most = 0
    with ThreadPoolExecutor(8) as pool:
        for (_, rows), values in zip(chosen, pool.map(lambda place: read(*place), chosen), strict=True):
            np.testing.assert_array_equal(values, VALUES[rows])
            most = max(most, open_files() - before)
    assert MOST_OPEN - 9 < most <= MOST_OPEN + 9  # of eight threads each may have opened one at once
    del files, chosen, _
    assert open_files() <= before


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks for open files in /proc")
def test_a_file_that_is_read_while_others_are_opened_is_closed_later(tmp_path):
    """Its first row is there, and the second is not asked for yet, while as many are opened as may be."""

    def is_open(path) -> bool:
        links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
        return str(path) in [os.readlink(link) for link in links if os.path.islink(link)]

    path, reading, going_on = written(tmp_path / "read.bin"), threading.Event(), threading.Event()
    file, out = SharedFile(path), np.empty((2, 3, 5), "float32")

    def targets():
        yield out[0]
        reading.set()
        assert going_on.wait(60)
        yield out[1]

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(file.read_rows, [3, 4], targets())
        assert reading.wait(60)
        others = [SharedFile(written(tmp_path / f"{number}.bin")) for number in range(MOST_OPEN)]
        assert is_open(path)
        going_on.set()
        found.result()
    np.testing.assert_array_equal(out, VALUES[3:5])
    others += [SharedFile(written(tmp_path / f"more-{number}.bin")) for number in range(MOST_OPEN)]
    assert not is_open(path)


def test_a_file_that_was_closed_and_removed_is_an_error(tmp_path):
    file = SharedFile(written(tmp_path / "rows.bin"))
    os.remove(tmp_path / "rows.bin")
    np.testing.assert_array_equal(read(file, [3]), VALUES[[3]])
    assert file.close_unless_read()
    with pytest.raises(FileNotFoundError):
        read(file, [3])


def test_rows_that_the_file_does_not_have_are_an_error(tmp_path):
    path = written(tmp_path / "rows.bin")
    os.truncate(path, VALUES.nbytes - 1)
    file = SharedFile(path)
    np.testing.assert_array_equal(read(file, [18]), VALUES[[18]])
    for row in (19, 99):
        with pytest.raises(OSError, match=r"Expected 60 bytes of features. Received: the end of .*rows\.bin"):
            read(file, [18, row])


def test_a_full_disk_is_an_error():
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError, match="No space left") as caught:
        write_all(file, b"row")
    assert caught.value.errno == errno.ENOSPC


def test_a_disk_that_has_room_for_half_a_row_is_full(tmp_path):
    code = f"""
import io, resource
from ktl.features.rows import write_all
resource.setrlimit(resource.RLIMIT_FSIZE, (90, 90))
try:
    write_all(io.FileIO({str(tmp_path / "rows.bin")!r}, "w"), bytes(120))
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(errno.ENOSPC)
