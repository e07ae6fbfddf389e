"""A search on two machines whose chief is killed: it is started again, and workers by the line that the docs have."""

import csv
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from jobs import ONE_THREAD
from support import REPOSITORY, free_port

LINE = "until {command} --role worker; do sleep 1; done"


@pytest.mark.slow
def test_workers_started_again_by_the_documented_line_end_the_search(photo_folder, tiny_backbone, tmp_path):
    assert "do sleep 5; done" in (REPOSITORY / "docs" / "beyond-one-machine.md").read_text()
    training = ("--epochs", 6, "--seeds", 1, "--batch-size", 4, "--cache-dir", tmp_path / "cache", "--patience", 0)
    place = ("--output", tmp_path / "out", "--chief", f"127.0.0.1:{free_port()}", "--space", "scale=1,3,10,30")
    network = ("--backbone", tiny_backbone, "--freeze-depth", "block_relu")
    search = (sys.executable, "-m", "ktl", "search", "--dataset", photo_folder, *network, *training, *place)
    command = [str(word) for word in search]
    start = {"cwd": REPOSITORY, "env": {**os.environ, **ONE_THREAD}, "stderr": subprocess.PIPE, "text": True}
    chief = subprocess.Popen([*command, "--role", "chief"], **start)
    line = LINE.format(command=shlex.join(command))
    worker = subprocess.Popen(["bash", "-c", line], start_new_session=True, **start)
    try:
        while not list(tmp_path.glob("out/trials/**/state.json")):  # the first epoch of the first trial
            assert chief.poll() is None, chief.stderr.read()
            time.sleep(0.1)
        chief.kill()
        chief.communicate()
        chief = subprocess.Popen([*command, "--role", "chief"], **start)
        _, err = chief.communicate(timeout=600)
        assert chief.returncode == 0, err
        _, err = worker.communicate(timeout=60)
        assert worker.returncode == 0, err
        assert "Traceback" not in err
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
        chief.kill()
    with open(tmp_path / "out" / "trials.csv", newline="") as file:
        assert sorted(float(row["scale"]) for row in csv.DictReader(file)) == [1, 3, 10, 30]
