"""A training step of the suffix, its convolutions of one pixel as Keras has them, and as a run of ktl has them."""

import contextlib
import time

ROUNDS = 3
STEPS = 20


def cases(settings) -> dict:
    return {depth: list(WAYS) for depth in settings.depths}


def convolution(settings) -> dict:
    return step(settings, lambda layers: contextlib.nullcontext())


def product(settings) -> dict:
    from ktl.cpu import pointwise_as_matmul

    return step(settings, pointwise_as_matmul)


def step(settings, context) -> dict:
    """Some steps on one batch in memory; the first, which traces, is not counted."""
    from benchmarks.feeds import random_batch
    from benchmarks.fitting import compile_feed
    from benchmarks.work import prepare
    from ktl.feeding import feature_feed

    work = prepare(settings, depth=settings.case)
    feed = feature_feed(work.network, work.dataset, {}, work.config)
    compile_feed(work, feed)
    batch = random_batch(work)
    with context(work.network.suffix.layers):
        feed.model.train_on_batch(*batch)
        started = time.perf_counter()
        for _ in range(STEPS):
            feed.model.train_on_batch(*batch)
    return {"seconds": time.perf_counter() - started, "units": STEPS, "unit": "steps"}


WAYS = {"convolution": convolution, "product": product}
