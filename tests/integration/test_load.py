"""Much work: photos by the hundred thousand, clients by the dozen, training again and again. Memory stays, nothing is
lost. `pytest -m long -n 0 -s tests/integration/test_load.py` prints what it measures."""

import csv
import http.client
import itertools
import json
import os
import threading
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny
from server_process import NAME, ready, serve, write_served_model
from support import Command, start, write_photos

import ktl
from ktl.inference.predict import predict
from ktl.training.options import Caching

pytestmark = pytest.mark.long

PHOTOS = 100_000
CLIENTS, SECONDS = 64, 60
FITS, WARM = 50, 10
"""Trainings, and those of them after which memory may no longer grow."""
MOST_GROWTH = 32
"""MiB."""


def resident(pid: int | str = "self") -> float:
    """Memory of a process, MiB."""
    facts = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(facts["VmRSS"].split()[0]) / 1024


class Sampled:
    """The memory of a process over time, while this is entered."""

    def __init__(self, pid: int):
        self.pid, self.samples, self._ended = pid, [], threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def _sample(self) -> None:
        while not self._ended.wait(0.25):
            try:
                self.samples.append(resident(self.pid))
            except (OSError, KeyError):  # it has ended
                return

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        self._thread.join()

    def growth(self) -> float:
        """MiB from the second to the last fifth of the time: the median of each."""
        fifth = max(1, len(self.samples) // 5)
        return float(np.median(self.samples[-fifth:]) - np.median(self.samples[fifth : 2 * fifth]))


def told(line: str) -> None:
    print(f"\n{line}")


def test_photos_by_the_hundred_thousand_are_labelled_in_flat_memory(tmp_path, tiny_backbone):
    model = write_served_model(tmp_path, tiny_backbone)
    originals = sorted(write_photos(tmp_path / "originals").rglob("*.*"))
    names = {}
    for number, original in zip(range(PHOTOS), itertools.cycle(originals), strict=False):
        folder = tmp_path / "photos" / f"{number // 1000:03}"
        folder.mkdir(parents=True, exist_ok=True)
        names[f"photos/{folder.name}/{number:06}{original.suffix}"] = original
        os.link(original, tmp_path / "photos" / folder.name / f"{number:06}{original.suffix}")
    expected = {found.photo: found.top[0] for found in predict(model, originals, verbose=0)}

    started = time.perf_counter()
    command = Command("predict", "--model", NAME, "photos", "--csv", folder=tmp_path)
    with Sampled(command.process.pid) as memory:
        code, _, errors = command.wait(timeout=3600)
    seconds = time.perf_counter() - started
    assert code == 0, errors
    with open(command.streams[0], newline="") as file:
        rows = list(csv.DictReader(file))
    told(
        f"predict: {len(rows):,} photos in {seconds:.0f} s, {len(rows) / seconds:.0f} photos/s; "
        f"{max(memory.samples):.0f} MiB at most, growth {memory.growth():.0f} MiB"
    )
    assert [row["photo"] for row in rows] == sorted(names)
    for row in rows:
        label, probability = expected[str(names[row["photo"]])]
        assert row["label"] == label
        assert abs(float(row["probability"]) - probability) < 1e-4
    assert memory.growth() < MOST_GROWTH


def test_many_clients_for_a_minute_lose_nothing(tmp_path, tiny_backbone):
    model = write_served_model(tmp_path, tiny_backbone)
    photos = sorted(write_photos(tmp_path / "photos").rglob("*.*"))
    expected = [found.top[0] for found in predict(model, photos, verbose=0)]
    bodies = [json.dumps({"instances": [{"b64": b64encode(photo.read_bytes()).decode()}]}) for photo in photos]

    with ready(serve, model, folder=tmp_path) as running, Sampled(running.process.pid) as memory:
        end = time.monotonic() + SECONDS

        def ask(client: int) -> list[float]:
            latencies = []
            connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
            while (began := time.monotonic()) < end:
                index = (client + len(latencies)) % len(photos)
                connection.request("POST", f"/v1/models/{NAME.replace(' ', '%20')}:predict", bodies[index])
                response = connection.getresponse()
                answer = json.loads(response.read())
                latencies.append(time.monotonic() - began)
                assert response.status == 200, answer
                label, probability = expected[index]
                assert answer["predictions"][0]["label"] == label
                assert abs(answer["predictions"][0]["top_k_probabilities"][0] - probability) < 1e-4
            connection.close()
            return latencies

        with ThreadPoolExecutor(CLIENTS) as clients:
            latencies = np.concatenate(list(clients.map(ask, range(CLIENTS))))
        counted = running.request("/metrics")[2].decode()
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
    told(
        f"serve: {len(latencies):,} requests of {CLIENTS} clients in {SECONDS} s, {len(latencies) / SECONDS:.0f} a "
        f"second; latency p50 {1000 * p50:.0f} ms, p95 {1000 * p95:.0f} ms, p99 {1000 * p99:.0f} ms; "
        f"{max(memory.samples):.0f} MiB at most, growth {memory.growth():.0f} MiB"
    )
    (answered,) = (line for line in counted.splitlines() if line.startswith("ktl_photos_total "))
    assert float(answered.split()[1]) == len(latencies)
    assert memory.growth() < MOST_GROWTH


def fit_again_and_again(backbone: Path, folder: Path, cached: bool) -> None:
    """Writes what the process has after each training: MiB, threads, open files."""
    dataset = tiny.make_dataset(60)
    caching = Caching(mode="on", folder=folder / "cache") if cached else Caching(mode="off")
    has = []
    for seed in range(FITS):
        classifier = tiny.tiny_classifier(backbone, seed=seed)
        ktl.fit(classifier, dataset, epochs=2, batch_size=10, least_steps=1, caching=caching, verbose=0)
        has.append((resident(), len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))))
    (folder / "has.json").write_text(json.dumps(has))


@pytest.mark.parametrize("cached", [False, True])
def test_trainings_one_after_another_leave_nothing_behind(tmp_path, tiny_backbone, cached):
    process = start(fit_again_and_again, tiny_backbone, tmp_path, cached)
    process.join(1800)
    assert process.exitcode == 0
    memory, threads, files = zip(*json.loads((tmp_path / "has.json").read_text()), strict=True)
    told(
        f"fit {'on features' if cached else 'on photos'}: {FITS} times; after {WARM} and after all "
        f"{memory[WARM - 1]:.0f} and {memory[-1]:.0f} MiB, {threads[WARM - 1]} and {threads[-1]} threads, "
        f"{files[WARM - 1]} and {files[-1]} open files"
    )
    assert memory[-1] - memory[WARM - 1] < MOST_GROWTH
    assert threads[-1] <= threads[WARM - 1] + 2
    assert files[-1] <= files[WARM - 1] + 2
