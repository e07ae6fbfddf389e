"""Rows of a file: read and written at any place, by what every system has."""

import errno
import gc
import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ktl.features.rows import SharedFile, open_shared, write_rows

VALUES = np.random.default_rng(0).normal(size=(20, 3, 5)).astype("float32")


def written(path, order=range(20)):
    with io.FileIO(path, "w") as file:
        for rows in np.array_split(np.array(order), 3):
            write_rows(file, rows, VALUES[rows])
    return path


def read(file, rows):
    out = np.empty((len(rows), 3, 5), "float32")
    file.read_rows(np.array(rows), out)
    return out


@pytest.mark.parametrize("without", [(), ("pread", "preadv", "pwrite", "pwritev")])
def test_rows_written_in_any_order_are_read_in_any_order(tmp_path, monkeypatch, without):
    """Also where the system has no reading and writing at a place, as Windows has none."""
    for name in without:
        monkeypatch.delattr(os, name)
    order = np.random.default_rng(1).permutation(20)
    path = written(tmp_path / "rows.bin", order)
    np.testing.assert_array_equal(np.fromfile(path, "float32").reshape(VALUES.shape), VALUES)
    rows = [7, 0, 19, 7]
    np.testing.assert_array_equal(read(SharedFile(path), rows), VALUES[rows])
    assert read(SharedFile(path), []).shape == (0, 3, 5)


def test_threads_share_a_file(tmp_path):
    file = SharedFile(written(tmp_path / "rows.bin"))
    chosen = [np.random.default_rng(seed).permutation(20) for seed in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for rows, values in zip(chosen, pool.map(lambda rows: read(file, rows), chosen), strict=True):
            np.testing.assert_array_equal(values, VALUES[rows])


def test_rows_that_the_file_does_not_have_are_an_error(tmp_path):
    path = written(tmp_path / "rows.bin")
    os.truncate(path, VALUES.nbytes - 1)
    file = SharedFile(path)
    np.testing.assert_array_equal(read(file, [18]), VALUES[[18]])
    for row in (19, 99):
        with pytest.raises(OSError, match=r"Expected 60 bytes of features. Received: the end of .*rows\.bin"):
            read(file, [18, row])


def test_all_readers_have_one_file_until_the_last_lets_go(tmp_path):
    path = written(tmp_path / "rows.bin")
    first = open_shared(path)
    assert open_shared(path) is first
    number = os.stat(path).st_ino
    del first
    gc.collect()
    opened = [os.stat(f"/proc/self/fd/{name}").st_ino for name in os.listdir("/proc/self/fd") if exists(name)]
    assert number not in opened


def exists(descriptor):
    return os.path.exists(f"/proc/self/fd/{descriptor}")


def test_a_full_disk_is_an_error():
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError, match="No space left") as caught:
        write_rows(file, np.array([0]), VALUES[:1])
    assert caught.value.errno == errno.ENOSPC


def test_a_disk_that_has_room_for_half_a_row_is_full(tmp_path):
    code = f"""
import io, resource, numpy
from ktl.features.rows import write_rows
resource.setrlimit(resource.RLIMIT_FSIZE, (90, 90))
try:
    write_rows(io.FileIO({str(tmp_path / "rows.bin")!r}, "w"), numpy.arange(2), numpy.zeros((2, 15), "float32"))
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(errno.ENOSPC)
