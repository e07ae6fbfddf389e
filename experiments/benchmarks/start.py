"""How long a run takes from its imports' end to the end of its first training step, without and with a full cache."""

import time

ROUNDS = 3


def cases(settings) -> dict:
    return {f"frozen up to {settings.depths[0]}": list(WAYS)}


def first_step(settings) -> dict:
    """Does what a run does before its second step: the data set's index and the cache are included, if not the imports.

    The ways differ in nothing but their order: the first one fills the cache that the second finds.
    """
    from benchmarks.fitting import compile_feed
    from benchmarks.work import prepare
    from ktl.machine import faster_on_cpu
    from ktl.progress import Reporter
    from ktl.training.inputs import choose_feed

    started = time.perf_counter()
    work = prepare(settings, depth=settings.depths[0], cache="on", cache_dir=settings.folder)
    feed = choose_feed(work.network, work.dataset, work.config, xla=work.machine.xla, reporter=Reporter())
    compile_feed(work, feed)
    with faster_on_cpu(work.network.suffix.layers):
        feed.model.train_on_batch(*next(iter(feed.train(0))))
    return {"seconds": time.perf_counter() - started, "note": f"{feed.seconds:.2f} s of it for the features"}


WAYS = {"cold": first_step, "warm": first_step}
