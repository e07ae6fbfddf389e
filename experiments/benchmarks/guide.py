"""Test top-1 of a default run beside that of the Keras guide's recipe: a frozen base, pooling, Dense, Adam at 1e-3; and
beside that of its second half, in which the whole network is trained on with Adam at 1e-5; and beside timm's
fine-tuning of the whole network.

A round is a seed. All see the same photos of the same splits as often, and validation chooses the epoch; those of Keras
see the same views too.

Reference:
    Chollet, "Transfer learning & fine-tuning", keras.io/guides/transfer_learning, 2020.
"""

import tempfile
import time

ROUNDS = 5
COPIED = "mobilenet_"
"""Of the backbones whose weights timm's network takes; their width follows."""


def cases(settings) -> dict:
    return {"accuracy": list(WAYS)}


def keras_guide(settings) -> dict:
    """Keras' own fit of a Dense layer on pooled features."""
    training, started = prepare(settings, head="replaced", freeze_depth="all", cache="on")
    return scored(training, fit_at(training, 1e-3), started)


def keras_fine_tuning(settings) -> dict:
    """After that, Keras' own fit of all layers but BatchNormalization, on photos."""
    import keras

    first, started = prepare(settings, head="replaced", freeze_depth="all", cache="on")
    fit_at(first, 1e-3)
    learned = first.classifier.new_layers[-1].get_weights()
    training, _ = prepare(settings, head="replaced", freeze_depth="none", cache="off")
    training.classifier.new_layers[-1].set_weights(learned)
    for layer in training.classifier.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    return scored(training, fit_at(training, 1e-5), started)


def timm_fine_tuning(settings) -> dict:
    """timm's fine-tuning of all layers from the same weights, in PyTorch."""
    from benchmarks.fine_tuning import fine_tune
    from benchmarks.work import load

    if settings.timm_python is None:
        return {"note": "skipped: no --timm-python"}
    return fine_tune(settings, configured(settings), load(settings))


def fit_at(training, rate: float) -> list:
    """Keras' fit with Adam, all at one rate; the history."""
    import keras

    from benchmarks.fitting import fit_compiled

    part, inputs = training.inputs.trained_part(training.classifier), training.inputs
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="top1")
    log_loss = keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="log_loss")
    part.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[accuracy, log_loss],
    )
    return fit_compiled(part, inputs, epochs=training.config.epochs)


def default_run(settings) -> dict:
    """A run with the default settings."""
    return trained(*prepare(settings))


def chosen_head(settings) -> dict:
    """The same with the head that linear probes choose."""
    return trained(*prepare(settings, head="auto"))


def configured(settings, **changes):
    """The settings of a run with the seed of this round."""
    from ktl.config.settings import RunConfig

    flags = {name: getattr(settings, name) for name in ("dataset", "data_dir", "backbone", "weights")}
    return RunConfig(**flags, seed=settings.round, cache_dir=settings.folder, **changes)


def prepare(settings, **changes):
    """A training with the seed of this round, and the clocks of the wall and of the processor as it was begun."""
    from benchmarks.work import load
    from ktl.progress import Reporter
    from ktl.runs.run import with_chosen_head
    from ktl.runs.session import Session

    config = configured(settings, **changes)
    started, dataset = (time.perf_counter(), time.process_time()), load(settings)
    config = with_chosen_head(config, dataset, Reporter())
    return Session(config, dataset).prepare(), started


def trained(training, started: tuple[float, float]) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        history = training.fit(folder)
    return {**scored(training, history, started), "note": training.config.head}


def scored(training, history, started: tuple[float, float]) -> dict:
    from ktl.training.evaluate import predict_probabilities

    inputs, test = training.inputs, training.inputs.dataset.test
    probabilities = predict_probabilities(inputs.trained_part(training.classifier), inputs.evaluation_batches(test))
    return {
        "seconds": time.perf_counter() - started[0],
        "cpu_seconds": time.process_time() - started[1],
        "validation_top1": max(row["validation_top1"] for row in history),
        "test_top1": float((probabilities.argmax(axis=1) == test.labels).mean()),
    }


WAYS = {
    "keras_guide": keras_guide,
    "default_run": default_run,
    "chosen_head": chosen_head,
    "keras_fine_tuning": keras_fine_tuning,
    "timm_fine_tuning": timm_fine_tuning,
}
