"""Locks that one process has at a time."""

import subprocess
import sys

import filelock
import pytest
from support import REPOSITORY

from ktl.errors import UserError
from ktl.runs.locks import lock, unlock

HOLDING = """
import sys
from ktl.runs.locks import lock

held = lock(sys.argv[1], work="it", instead="x")
print(1, flush=True)
input()
"""


def test_one_process_has_it_and_a_kill_lets_it_go(tmp_path):
    path = tmp_path / "lock"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDING, path], cwd=REPOSITORY, stdin=-1, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "1\n"
    with pytest.raises(UserError, match=r"at work on a run\. Received: one that is\. Wait for it, or name another$"):
        lock(path, work="a run", instead="another")
    other.kill()
    other.communicate()
    unlock(lock(path, work="a run", instead="another"))
    assert not list(tmp_path.iterdir())


def test_without_locks_of_the_file_system_nobody_is_kept_out(tmp_path, monkeypatch):
    def acquire(*arguments, **more):
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    unlock(lock(tmp_path / "lock", work="a run", instead="another"))
