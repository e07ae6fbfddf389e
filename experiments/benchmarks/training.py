"""Training at a freeze depth: plain Keras, the suffix from the cache, and the arithmetic that no cache can save."""

import time

ROUNDS = 3


def cases(settings) -> dict:
    return {depth: list(WAYS) for depth in settings.depths}


def plain(settings) -> dict:
    """Keras' fit of the whole network with its frozen layers, from decoded photos in memory."""
    from benchmarks.feeds import photo_inputs
    from benchmarks.fitting import fit_as_keras
    from benchmarks.work import decode, prepare

    work = prepare(settings, depth=settings.case)
    inputs = photo_inputs(work, decode(work))
    started = time.perf_counter()
    history = fit_as_keras(work, inputs)
    return {"seconds": time.perf_counter() - started, **scores(work, inputs, history)}


def floor(settings) -> dict:
    """As many steps of the suffix, and of its validation, on one random batch that stays in memory."""
    from benchmarks.work import prepare

    return {"seconds": steps_in_memory(prepare(settings, depth=settings.case))}


def steps_in_memory(work) -> float:
    """Seconds of as many steps of the suffix, and of its validation, on one random batch that stays in memory."""
    import tensorflow as tf

    from benchmarks.feeds import feature_inputs, random_batch
    from benchmarks.fitting import compile_part
    from ktl.data.tf_data import untuned
    from ktl.machine import faster_on_cpu

    config = work.config
    batch = untuned(tf.data.Dataset.from_tensors(random_batch(work)))
    validation_steps = -(-len(work.dataset.validation) // config.batch_size)
    inputs = feature_inputs(work, {})
    started = time.perf_counter()
    suffix = compile_part(work, inputs)
    with faster_on_cpu(suffix.layers):
        suffix.fit(
            batch.repeat(config.epochs * inputs.steps_per_epoch),
            validation_data=batch.repeat(validation_steps),
            epochs=config.epochs,
            steps_per_epoch=inputs.steps_per_epoch,
            verbose=0,
        )
    return time.perf_counter() - started


def cached(settings) -> dict:
    """The pass over the frozen layers, and the same training of the suffix."""
    from benchmarks.feeds import feature_inputs, write_features
    from benchmarks.fitting import fit_as_run
    from benchmarks.work import decode, prepare

    floor_seconds = settings.earlier["floor"]["seconds"]
    work = prepare(settings, depth=settings.case)
    photos = decode(work)
    started = time.perf_counter()
    features = write_features(work, settings.folder, depths=[settings.case], photos=photos)[settings.case]
    pass_seconds = time.perf_counter() - started
    inputs = feature_inputs(work, features)
    history = fit_as_run(work, inputs)
    seconds = time.perf_counter() - started
    times = seconds / (pass_seconds + floor_seconds)
    note = f"{times:.2f} times its pass ({pass_seconds:.1f} s) and the floor"
    return {"seconds": seconds, "pass_seconds": pass_seconds, "note": note, **scores(work, inputs, history)}


def scores(work, inputs, history: list) -> dict:
    """Of the best epoch, after the clock has stopped."""
    from ktl.evaluation.metrics import score
    from ktl.training.evaluate import predict_probabilities

    test = work.dataset.test
    probabilities = predict_probabilities(inputs.trained_part(work.classifier), inputs.evaluation_batches(test))
    return {
        "validation_top1": max(row["validation_top1"] for row in history),
        "test_top1": score(probabilities, test.labels)["top1"],
        "epoch_seconds": [row["seconds"] for row in history],
    }


WAYS = {"plain": plain, "floor": floor, "cached": cached}
