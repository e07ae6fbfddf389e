"""A training step of the suffix as Keras has it, with convolutions of one pixel as products, and as a run has it."""

import contextlib
import time

ROUNDS = 3
STEPS = 20


def cases(settings) -> dict:
    return {depth: list(WAYS) for depth in settings.depths}


def convolution(settings) -> dict:
    return step(settings, lambda layers: contextlib.nullcontext())


def product(settings) -> dict:
    from ktl.machine import pointwise_as_matmul

    return step(settings, pointwise_as_matmul)


def product_as_traced(settings) -> dict:
    from ktl.machine import faster_on_cpu

    return step(settings, faster_on_cpu)


def step(settings, context) -> dict:
    """Some steps on one batch in memory; the first, which traces, is not counted but noted."""
    from benchmarks.feeds import feature_inputs, random_batch
    from benchmarks.fitting import compile_part
    from benchmarks.work import prepare

    work = prepare(settings, depth=settings.case)
    suffix = compile_part(work, feature_inputs(work, {}))
    batch = random_batch(work)
    with context(suffix.layers):
        started = time.perf_counter()
        suffix.train_on_batch(*batch)
        first, started = time.perf_counter() - started, time.perf_counter()
        for _ in range(STEPS):
            suffix.train_on_batch(*batch)
    return {
        "seconds": time.perf_counter() - started,
        "units": STEPS,
        "unit": "steps",
        "note": f"the first step took {first:.2f} s",
    }


WAYS = {"convolution": convolution, "product": product, "product, graph as traced": product_as_traced}
