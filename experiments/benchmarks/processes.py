"""Measurements, each in a fresh process, one at a time."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import SECTIONS

ENVIRONMENT = {"TF_CPU_ALLOCATOR_USE_BFC": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}  # as `ktl` sets it, for every way


def measurements(section: str, options: argparse.Namespace) -> Iterator[dict]:
    """Each measurement of a section, and the environment of its process, as soon as it is there."""
    for number in range(options.rounds or SECTIONS[section].ROUNDS):
        for case, ways in SECTIONS[section].cases(options).items():
            with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.cache_dir) as folder:
                earlier = {}
                for way in ways:
                    place = {"section": section, "case": case, "way": way, "round": number}
                    found = measure({**vars(options), **place, "folder": folder, "earlier": earlier})
                    earlier[way] = found["measurement"]
                    yield {**place, **found["measurement"], "environment": found["environment"]}


def measure(settings: dict) -> dict:
    """Runs one way in a fresh process; its measurement and environment."""
    command = [sys.executable, "-P", "-m", "benchmarks", json.dumps(settings)]
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path}
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        last = (done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"measurement": {"failed": True, "note": f"failed: {last}"}, "environment": {}}
    return json.loads(done.stdout)
