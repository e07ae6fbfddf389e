"""A cache far larger than its memory budget: how fast it is written and read, and how much memory that takes."""

import dataclasses
import math
import shutil
import time

ROUNDS = 1
FREE_SHARE = 1.3
"""Free disk that is asked for, as a multiple of the cache's size."""


def cases(settings) -> dict:
    return {f"{settings.memory_gib:g} GiB of {settings.memory_depth}": list(WAYS)}


def build(settings) -> dict:
    """Decodes and writes copies of the photos until the cache is large enough."""
    from benchmarks.feeds import extraction, write_features
    from ktl.data.input_pipeline import PhotoCache

    work = large_work(settings)
    size = extraction(work, settings.memory_depth).nbytes
    free = shutil.disk_usage(settings.folder).free
    if free < FREE_SHARE * size:
        return {"note": f"skipped: {free / 2**30:.1f} GiB free, {FREE_SHARE * size / 2**30:.1f} needed"}
    started = time.perf_counter()
    photos = PhotoCache(memory_gib=0)
    write_features(work, settings.folder, depths=[settings.memory_depth], photos=photos)
    return rate(time.perf_counter() - started, size)


def read(settings) -> dict:
    """One epoch's batches of the training photos, shuffled, and nothing else."""
    from benchmarks.feeds import feature_inputs, write_features
    from ktl.data.input_pipeline import PhotoCache

    if "seconds" not in settings.earlier["build"]:
        return {"note": "skipped: nothing was built"}
    work = large_work(settings)
    # Nothing is written: the entry is there.
    features = write_features(work, settings.folder, depths=[settings.memory_depth], photos=PhotoCache(memory_gib=0))[
        settings.memory_depth
    ]
    inputs = feature_inputs(work, features)
    started = time.perf_counter()
    for _ in inputs.training_batches(epochs=1):
        pass
    return rate(time.perf_counter() - started, features["train"].nbytes)


def large_work(settings):
    """The work on as many copies of the photos as it takes."""
    from benchmarks.copies import copied
    from benchmarks.feeds import extraction
    from benchmarks.work import prepare

    work = prepare(settings, depth=settings.memory_depth, epochs=1)
    size = extraction(work, settings.memory_depth).nbytes
    times = math.ceil(settings.memory_gib * 2**30 / size)
    return dataclasses.replace(work, dataset=copied(work.dataset, times))


def rate(seconds: float, size: int) -> dict:
    return {"seconds": seconds, "units": size / 2**30, "unit": "GiB"}


WAYS = {"build": build, "read": read}
