"""Memory stage by stage, each in a process of its own: the pass, training, evaluation, export, predict, serve."""

import contextlib
import json
import subprocess
import sys
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROUNDS = 1
CLIENTS = 8


def cases(settings) -> dict:
    return {settings.dataset: list(WAYS)}


def imports(settings) -> dict:
    """TensorFlow and ktl, before any work: what all the others have too."""
    from benchmarks.work import load

    started = time.perf_counter()
    return rate(sum(map(len, load(settings).splits)), started)


def fill(settings) -> dict:
    """The pass that fills the cache, from files."""
    from benchmarks.feeds import write_features
    from benchmarks.work import prepare
    from ktl.data.input_pipeline import PhotoCache

    work = prepare(settings, depth=depth(settings))
    started = time.perf_counter()
    write_features(work, settings.folder, depths=[depth(settings)], photos=PhotoCache(memory_gib=0))
    return rate(sum(map(len, work.dataset.splits)), started)


def train(settings) -> dict:
    """Two epochs on features that are there, or on photos from files; then the scores. The run's folder stays."""
    import ktl
    from benchmarks.work import configure

    started = time.perf_counter()
    cache = {"features": "on", "photos": "off"}[settings.way.split()[-1]]
    config = configure(settings, freeze_depth=depth(settings), cache=cache, cache_dir=settings.folder, epochs=2)
    result = ktl.run(config, output=place(settings, cache), verbose=0)
    return {**rate(2 * result["photos"]["train"], started), "test_top1": result["test"]["top1"]}


def evaluate(settings) -> dict:
    """The test photos' probabilities, from files."""
    from benchmarks.feeds import photo_inputs
    from benchmarks.work import prepare
    from ktl.data.input_pipeline import PhotoCache
    from ktl.training.evaluate import predict_probabilities

    work = prepare(settings, depth=depth(settings))
    test, inputs = work.dataset.test, photo_inputs(work, PhotoCache(memory_gib=0))
    started = time.perf_counter()
    predict_probabilities(work.classifier, inputs.evaluation_batches(test))
    return rate(len(test), started)


def export(settings) -> dict:
    """A SavedModel of the run; the process that verifies it is one of its own."""
    import ktl

    started = time.perf_counter()
    found = ktl.export(run=place(settings, "on"), output=place(settings, "export"), verbose=0)
    return rate(found["test"]["photos"], started)


def predict(settings) -> dict:
    """The test photos' labels, from files, of the run's folder."""
    import ktl

    photos = test_photos(settings)
    started = time.perf_counter()
    ktl.predict(place(settings, "on"), photos, verbose=0)
    return rate(len(photos), started)


def serve(settings) -> dict:
    """`ktl serve` of the run's folder, asked by several clients at a time."""
    import resource
    import urllib.request

    photos = test_photos(settings)
    command = [sys.executable, "-m", "ktl", "serve", str(place(settings, "on")), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, contextlib.ExitStack() as stack:
        stack.callback(server.terminate)
        assert server.stderr is not None
        line = next(line for line in server.stderr if "http://" in line)
        address = next(word for word in line.split() if word.endswith(":predict"))

        def ask(photo: Path) -> None:
            body = json.dumps({"instances": [{"b64": b64encode(photo.read_bytes()).decode()}]}).encode()
            with urllib.request.urlopen(address, body) as answer:
                answer.read()

        started = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(ask, photos))
        measured = rate(len(photos), started)
    return {**measured, "peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024}


def test_photos(settings) -> list[Path]:
    """The test photos as files."""
    from benchmarks.work import load

    test, folder = load(settings).test, place(settings, "photos")
    folder.mkdir(exist_ok=True)
    for index in range(len(test)):
        (folder / f"{index:06}.jpg").write_bytes(test.read(index))
    return sorted(folder.iterdir())


def depth(settings) -> str:
    return settings.depths[0]


def place(settings, name: str) -> Path:
    return Path(settings.folder) / name


def rate(photos: int, started: float) -> dict:
    return {"seconds": time.perf_counter() - started, "units": photos, "unit": "photos"}


WAYS = {
    "imports": imports,
    "pass": fill,
    "training on features": train,
    "training on photos": train,
    "evaluation": evaluate,
    "export": export,
    "predict": predict,
    "serve": serve,
}
