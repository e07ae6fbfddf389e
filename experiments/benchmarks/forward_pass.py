"""The pass over the frozen layers: Keras' predict, the cache's build, and other ways to compute a sample."""

import tempfile
import time

from benchmarks import sample

ROUNDS = 3


def cases(settings) -> dict:
    return {
        "all photos": ["predict", "build", "build_several"],
        f"{settings.sample} photos, the second time": list(sample.WAYS),
    }


def predict(settings) -> dict:
    """Keras' predict of the frozen layers."""
    from benchmarks.work import decode, prepare
    from ktl.backends.engines import BATCH
    from ktl.data.input_pipeline import evaluation_batches
    from ktl.data.tf_data import TensorFlowFeed

    work = prepare(settings, depth=sample.DEPTH)
    photos = decode(work)
    started = time.perf_counter()
    for split in work.dataset.splits:
        batches = evaluation_batches(split, image_size=work.image_size, batch_size=BATCH, cache=photos)
        work.classifier.prefix.predict(TensorFlowFeed().dataset(batches), verbose=0)
    return rate(work, started)


def build(settings) -> dict:
    """The cache's build of one boundary."""
    return build_at(settings, [sample.DEPTH])


def build_several(settings) -> dict:
    """The cache's build of several boundaries at once."""
    return {**build_at(settings, settings.grid_depths), "note": ", ".join(settings.grid_depths)}


def build_at(settings, depths: list[str]) -> dict:
    from benchmarks.feeds import write_features
    from benchmarks.work import decode, prepare

    work = prepare(settings, depth=sample.DEPTH)
    photos = decode(work)
    # A folder of its own: what another way has written would not be computed again.
    with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
        started = time.perf_counter()
        write_features(work, folder, depths=depths, photos=photos)
        return rate(work, started)


def rate(work, started: float) -> dict:
    photos = sum(map(len, work.dataset.splits))
    return {"seconds": time.perf_counter() - started, "units": photos, "unit": "photos"}


WAYS = {"predict": predict, "build": build, "build_several": build_several, **sample.WAYS}
