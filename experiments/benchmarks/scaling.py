"""The same work on larger data sets: decoding and the pass, then an epoch; as fast a photo if the cost is linear."""

import dataclasses
import time

ROUNDS = 1
PHOTOS_GIB = 0.5
COPIES = {"1x": 1, "4x": 4, "16x": 16}


def cases(settings) -> dict:
    return {f"the pass up to {settings.scaling_depth}, decoding included": list(WAYS)}


def scaled(settings) -> dict:
    """Builds the cache of the data set several times over; decoded photos have half a GiB, which is too little."""
    from benchmarks.copies import copied
    from benchmarks.feeds import feature_inputs, write_features
    from benchmarks.fitting import fit_as_run
    from benchmarks.work import prepare
    from ktl.data.input_pipeline import PhotoCache

    work = prepare(settings, depth=settings.scaling_depth, epochs=1)
    work = dataclasses.replace(work, dataset=copied(work.dataset, COPIES[settings.way]))
    started = time.perf_counter()
    photos = PhotoCache(memory_gib=PHOTOS_GIB)
    features = write_features(work, settings.folder, depths=[settings.scaling_depth], photos=photos)
    seconds = time.perf_counter() - started
    history = fit_as_run(work, feature_inputs(work, features[settings.scaling_depth]))
    epoch_seconds, count = history[0]["seconds"], len(work.dataset.train)
    return {
        "seconds": seconds,
        "units": sum(map(len, work.dataset.splits)),
        "unit": "photos",
        "epoch_seconds": epoch_seconds,
        "note": f"then an epoch in {epoch_seconds:.1f} s, {count / epoch_seconds:.0f} photos/s",
    }


WAYS = dict.fromkeys(COPIES, scaled)
