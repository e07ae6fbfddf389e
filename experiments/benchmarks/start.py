"""How long a run takes from its imports' end to the end of its first training step, without and with a full cache."""

import time

ROUNDS = 3


def cases(settings) -> dict:
    return {f"frozen up to {settings.depths[0]}": list(WAYS)}


def first_step(settings) -> dict:
    """Does what a run does before its second step: the data set's index and the cache are included, if not the imports.

    The ways differ in nothing but their order: the first one fills the cache that the second finds.
    """
    from benchmarks.work import configure, load
    from ktl.machine import faster_on_cpu
    from ktl.runs.session import Session

    started = time.perf_counter()
    config = configure(settings, freeze_depth=settings.depths[0], cache="on", cache_dir=settings.folder)
    training = Session(config, load(settings)).prepare()
    part, inputs = training.compile(), training.inputs
    with faster_on_cpu(part.layers):
        part.train_on_batch(*next(iter(inputs.training_batches(epochs=config.epochs))))
    return {"seconds": time.perf_counter() - started, "note": f"{inputs.seconds:.2f} s of it for the features"}


WAYS = {"cold": first_step, "warm": first_step}
