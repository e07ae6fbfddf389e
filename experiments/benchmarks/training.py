"""Training at a freeze depth: plain Keras, the suffix from the cache, and the arithmetic that no cache can save."""

import time

ROUNDS = 3


def cases(settings) -> dict:
    return {depth: list(WAYS) for depth in settings.depths}


def plain(settings) -> dict:
    """Keras' fit of the whole network with its frozen layers, from decoded photos in memory."""
    from benchmarks.fitting import fit_feed
    from benchmarks.work import decode, prepare
    from ktl.training.inputs import photo_feed

    work = prepare(settings, depth=settings.case)
    feed = photo_feed(work.network, work.dataset, decode(work), work.config)
    started = time.perf_counter()
    history = fit_feed(work, feed)
    return {"seconds": time.perf_counter() - started, **scores(feed, history)}


def floor(settings) -> dict:
    """As many steps of the suffix, and of its validation, on one random batch that stays in memory."""
    import tensorflow as tf

    from benchmarks.feeds import random_batch
    from benchmarks.fitting import compile_feed
    from benchmarks.work import prepare
    from ktl.data.tf_data import untuned
    from ktl.machine import faster_on_cpu
    from ktl.training.inputs import feature_feed

    work = prepare(settings, depth=settings.case)
    config = work.config
    batch = untuned(tf.data.Dataset.from_tensors(random_batch(work)))
    feed = feature_feed(work.network, work.dataset, {}, config)
    validation_steps = -(-len(work.dataset.validation) // config.batch_size)
    started = time.perf_counter()
    compile_feed(work, feed)
    with faster_on_cpu(work.network.suffix.layers):
        feed.model.fit(
            batch.repeat(config.epochs * work.steps_per_epoch),
            validation_data=batch.repeat(validation_steps),
            epochs=config.epochs,
            steps_per_epoch=work.steps_per_epoch,
            verbose=0,
        )
    return {"seconds": time.perf_counter() - started}


def cached(settings) -> dict:
    """The pass over the frozen layers, and the same training of the suffix."""
    from benchmarks.feeds import write_features
    from benchmarks.fitting import fit_suffix
    from benchmarks.work import decode, prepare
    from ktl.training.inputs import feature_feed

    floor_seconds = settings.earlier["floor"]["seconds"]
    work = prepare(settings, depth=settings.case)
    photos = decode(work)
    started = time.perf_counter()
    features = write_features(work, settings.folder, depths=[settings.case], photos=photos)[settings.case]
    pass_seconds = time.perf_counter() - started
    feed = feature_feed(work.network, work.dataset, features, work.config)
    history = fit_suffix(work, feed)
    seconds = time.perf_counter() - started
    times = seconds / (pass_seconds + floor_seconds)
    note = f"{times:.2f} times its pass ({pass_seconds:.1f} s) and the floor"
    return {"seconds": seconds, "pass_seconds": pass_seconds, "note": note, **scores(feed, history)}


def scores(feed, history: list[dict]) -> dict:
    """Of the best epoch, after the clock has stopped."""
    from ktl.evaluation.metrics import score
    from ktl.training.evaluate import predict_probabilities

    test = feed.dataset.test
    return {
        "validation_top1": max(row["validation_top1"] for row in history),
        "test_top1": score(predict_probabilities(feed.model, feed.evaluate(test)), test.labels)["top1"],
        "epoch_seconds": [row["seconds"] for row in history],
    }


WAYS = {"plain": plain, "floor": floor, "cached": cached}
