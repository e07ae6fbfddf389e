"""Test top-1 of a default run beside that of the Keras guide's recipe: a frozen base, pooling, Dense, Adam at 1e-3.

A round is a seed. Both see the same views of the same photos for as many epochs, and validation chooses the epoch.

Reference:
    Chollet, "Transfer learning & fine-tuning", keras.io/guides/transfer_learning, 2020, the feature-extraction half.
"""

import tempfile
import time

ROUNDS = 5


def cases(settings) -> dict:
    return {"accuracy": list(WAYS)}


def keras_guide(settings) -> dict:
    """Keras' own fit of a Dense layer on pooled features."""
    import keras

    from benchmarks.fitting import fit_compiled

    training, started = prepare(settings, head="replaced", freeze_depth="all", cache="on")
    part, inputs = training.classifier.suffix, training.inputs
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="top1")
    log_loss = keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="log_loss")
    part.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[accuracy, log_loss],
    )
    return scored(training, fit_compiled(part, inputs, epochs=training.config.epochs), started)


def default_run(settings) -> dict:
    """A run with the default settings."""
    return trained(*prepare(settings))


def chosen_head(settings) -> dict:
    """The same with the head that linear probes choose."""
    return trained(*prepare(settings, head="auto"))


def prepare(settings, **changes):
    """A training with the seed of this round, and when it was begun."""
    from benchmarks.work import load
    from ktl.config.settings import RunConfig
    from ktl.progress import Reporter
    from ktl.runs.run import with_chosen_head
    from ktl.runs.session import Session

    flags = {name: getattr(settings, name) for name in ("dataset", "data_dir", "backbone", "weights")}
    config = RunConfig(**flags, seed=settings.round, cache_dir=settings.folder, **changes)
    started, dataset = time.perf_counter(), load(settings)
    config = with_chosen_head(config, dataset, Reporter())
    return Session(config, dataset).prepare(), started


def trained(training, started: float) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        history = training.fit(folder)
    return {**scored(training, history, started), "note": training.config.head}


def scored(training, history, started: float) -> dict:
    from ktl.training.evaluate import predict_probabilities

    inputs, test = training.inputs, training.inputs.dataset.test
    probabilities = predict_probabilities(inputs.trained_part(training.classifier), inputs.evaluation_batches(test))
    return {
        "seconds": time.perf_counter() - started,
        "validation_top1": max(row["validation_top1"] for row in history),
        "test_top1": float((probabilities.argmax(axis=1) == test.labels).mean()),
    }


WAYS = {"keras_guide": keras_guide, "default_run": default_run, "chosen_head": chosen_head}
