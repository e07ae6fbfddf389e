"""`ktl features` on Beam's processes of this machine, against one process of one thread: whole commands, from files.

The data set's photos are repeated under other names, each with its number behind its last byte: readers of photos take
no notice of it, and to the cache, which knows photos by their bytes, they are different ones. The features of both ways
have to be equal, bit for bit.
"""

import hashlib
import importlib.util
import itertools
import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.portions import ONE_THREAD

ROUNDS = 1
WORKERS, PORTIONS = 2, 16


def cases(settings) -> dict:
    installed = importlib.util.find_spec("apache_beam") is not None
    return {f"{settings.photos:,} photos up to {settings.scaling_depth}": list(WAYS)[: 1 + installed]}


def alone(settings) -> dict:
    """One process of one thread; what of its time is no start."""
    found = features(settings, "alone", variables=ONE_THREAD)
    return {**found, "note": f"{found['units'] / found['pass_seconds']:.1f} photos/s without its start"}


def on_beam(settings) -> dict:
    """Two processes of one thread each, which Beam starts and gives portions."""
    done = Path(settings.folder, "done")
    beam = ["--runner", "direct", "--shards", PORTIONS, "--output", done]
    found = features(settings, "beam", *beam, f"--runner-options=--direct_num_workers={WORKERS}")
    rows = [digests_of_rows(Path(settings.folder, name)) for name in ("alone", "beam")]
    if rows[0] != rows[1] or len(rows[0]) < settings.photos:
        raise ValueError(f"features differ: {[len(each) for each in rows]} rows")
    portions = [json.loads(line)["seconds"] for line in (done / "portions.jsonl").read_text().splitlines()]
    rate = found["units"] / (sum(portions) / WORKERS)
    different = len(set(rows[0].values()))
    note = f"{rate:.1f} photos/s in portions; {len(rows[0]):,} rows as those of 1 process, {different:,} different ones"
    return {**found, "note": note}


WAYS = {"1 process": alone, "Beam, 2 processes": on_beam}


def features(settings, cache: str, *more, variables=None) -> dict:
    """Runs `ktl features` in a process of its own, into a new cache."""
    from benchmarks.work import configure

    depth, folder = settings.scaling_depth, Path(settings.folder)
    dataset = repeated(settings, folder / "photos")
    config = configure(settings, dataset=str(dataset), freeze_depth=depth, cache="on", cache_dir=str(folder / cache))
    program = [sys.executable, "-m", "ktl", "features", *config.flags(), "--json", *map(str, more)]
    started, cpu = time.perf_counter(), cpu_of_children()
    done = subprocess.run(program, env={**os.environ, **(variables or {})}, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    found = json.loads(done.stdout)
    return {
        "seconds": seconds,
        "pass_seconds": found["seconds"],
        "units": found["computed"],
        "unit": "photos",
        "cpu_seconds": cpu_of_children() - cpu,
    }


def cpu_of_children() -> float:
    """Seconds of a core, of processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def repeated(settings, folder: Path) -> Path:
    """A folder of class folders with as many photos as `--photos` says, made once."""
    from benchmarks.work import load

    if folder.is_dir():
        return folder
    dataset = load(settings)
    photos = [
        (split, photo, dataset.class_names[label])
        for split in dataset.splits
        for photo, label in zip(split.photos, split.labels, strict=True)
    ]
    times = math.ceil(settings.photos / len(photos))
    wanted = itertools.islice(itertools.product(range(times), photos), settings.photos)
    for count, (number, (split, photo, name)) in enumerate(wanted):
        path = folder / name / f"{count}{Path(photo).suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(split.source.read(photo) + f"{number}".encode())
    return folder


def digests_of_rows(cache: Path) -> dict[bytes, bytes]:
    """Row id -> digest of the row, of all that is in a cache folder."""
    from ktl.features.folder import own_entries
    from ktl.features.shards import Shard

    found = {}
    for entry in own_entries(cache):
        row_bytes = math.prod(entry.about["shape"]) * np.dtype(entry.about["dtype"]).itemsize
        for file in entry.shards:
            shard = Shard(file.path, key=entry.path.name, row_bytes=row_bytes)
            row = np.empty(row_bytes, np.uint8)
            for place, name in enumerate(shard.ids.tolist()):
                shard.read(np.array([place]), [row])
                found[name] = hashlib.sha256(row).digest()
    return found
