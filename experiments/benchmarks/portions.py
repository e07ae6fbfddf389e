"""The pass from files, divided among processes of one thread each as `ktl features --shard` divides it."""

import multiprocessing
import os
import time

ROUNDS = 3
PROCESSES = {"1 process": 1, "2 processes": 2}
ONE_THREAD = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1")
LONGEST = 3600
"""Seconds that a process waits for the others to be ready."""


def cases(settings) -> dict:
    return {f"the pass up to {settings.scaling_depth}, decoding included": list(WAYS)}


def divided(settings) -> dict:
    """From when all processes have built the network until the last one is done."""
    os.environ.update(ONE_THREAD)  # before the processes load TensorFlow
    context = multiprocessing.get_context("spawn")
    count = PROCESSES[settings.way]
    barrier, results = context.Barrier(count), context.Queue()
    work = [context.Process(target=portion, args=(settings, n, count, barrier, results)) for n in range(1, count + 1)]
    for process in work:
        process.start()
    found = [results.get(timeout=LONGEST) for _ in work]
    for process in work:
        process.join()
    photos = sum(one["photos"] for one in found)
    cpu = sum(one["cpu_seconds"] for one in found)
    return {
        "seconds": max(one["seconds"] for one in found),
        "units": photos,
        "unit": "photos",
        "cpu_seconds": cpu,
        "note": f"{1000 * cpu / photos:.1f} ms of a core a photo",
    }


def portion(settings, number: int, count: int, barrier, results) -> None:
    """One process: its portion into a cache of its own."""
    from benchmarks.work import prepare
    from ktl.distributed.portions import Portion
    from ktl.runs.session import Session
    from ktl.training.caching import extractions_of, fill_store

    depth, folder = settings.scaling_depth, os.path.join(settings.folder, f"{number}-{count}-{settings.round}")
    work = prepare(settings, depth=depth, cache="on", cache_dir=folder)
    options = Session(work.config, work.dataset).input_options(work.config)
    extractions = extractions_of([(work.classifier, depth)], work.dataset, options, jit_compile=work.machine.xla)
    barrier.wait(LONGEST)
    started, cpu = time.perf_counter(), time.process_time()
    filled = fill_store(extractions, work.dataset, options, of_portion=Portion(number, count).has)
    used = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    results.put({"photos": filled.photos, **used})


WAYS = dict.fromkeys(PROCESSES, divided)
