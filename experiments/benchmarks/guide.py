"""Test top-1 of a default run beside that of the Keras guide's recipe: a frozen base, pooling, Dense, Adam at 1e-3; and
beside that of its second half, in which the whole network is trained on with Adam at 1e-5; and beside timm's
fine-tuning of the whole network.

A round is a seed. All see the same photos of the same splits as often, and validation chooses the epoch, but where it
is trained on too: of the guide's recipe in one way, of a run where photos are few. All but timm see the same views too.

Reference:
    Chollet, "Transfer learning & fine-tuning", keras.io/guides/transfer_learning, 2020.
"""

import tempfile
import time

ROUNDS = 5
COPIED = "mobilenet_"
"""Of the backbones whose weights timm's network takes; their width follows."""


def cases(settings) -> dict:
    return {"accuracy": [way for way in WAYS if way in (settings.ways or WAYS)]}


def keras_guide(settings) -> dict:
    """Keras' own fit of a Dense layer on pooled features."""
    session, started = begin(settings, head="replaced", freeze_depth="all", cache="on")
    training = session.prepare()
    return scored(training, started, fit_at(training, 1e-3))


def keras_guide_of_all(settings) -> dict:
    """The same on training and validation photos, for all epochs: as a run is refitted where photos are few."""
    from ktl.data.pooling import pooled

    session, started = begin(settings, head="replaced", freeze_depth="all", cache="on")
    training = session.on(pooled(session.dataset)).prepare()
    fit_at(training, 1e-3, keep="last")
    return scored(training, started)


def keras_fine_tuning(settings) -> dict:
    """After the guide's first half, Keras' own fit of all layers but BatchNormalization, on photos."""
    import keras

    session, started = begin(settings, head="replaced", freeze_depth="all", cache="on")
    first = session.prepare()
    fit_at(first, 1e-3)
    learned = first.classifier.new_layers[-1].get_weights()
    session, _ = begin(settings, head="replaced", freeze_depth="none", cache="off")
    training = session.prepare()
    training.classifier.new_layers[-1].set_weights(learned)
    for layer in training.classifier.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    return scored(training, started, fit_at(training, 1e-5))


def timm_fine_tuning(settings) -> dict:
    """timm's fine-tuning of all layers from the same weights, in PyTorch."""
    from benchmarks.fine_tuning import fine_tune
    from benchmarks.work import load

    if settings.timm_python is None:
        return {"note": "skipped: no --timm-python"}
    return fine_tune(settings, configured(settings), load(settings))


def fit_at(training, rate: float, *, keep: str = "best") -> list:
    """Keras' fit with Adam, all at one rate; the history. Kept are the weights of the best or of the last epoch."""
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
    return fit_compiled(part, inputs, epochs=training.config.epochs, keep=keep)


def default_run(settings) -> dict:
    """A run with the default settings."""
    return trained(settings)


def chosen_head(settings) -> dict:
    """A default run with the head that linear probes choose."""
    return trained(settings, head="auto")


def configured(settings, **changes):
    """The settings of a run with the seed of this round."""
    from ktl.config.settings import RunConfig

    flags = {name: getattr(settings, name) for name in ("dataset", "data_dir", "backbone", "weights")}
    return RunConfig(**flags, seed=settings.round, cache_dir=settings.folder, **changes)


def begin(settings, **changes):
    """The session of a run with the seed of this round, and the clocks of the wall and of the processor as it began."""
    from benchmarks.work import load
    from ktl.progress import Reporter
    from ktl.runs.run import told_dataset, with_chosen_head
    from ktl.runs.session import Session

    config, reporter = configured(settings, **changes), Reporter()
    started, dataset = (time.perf_counter(), time.process_time()), told_dataset(load(settings), config, reporter)
    return Session(with_chosen_head(config, dataset, reporter), dataset, reporter=reporter), started


def trained(settings, **changes) -> dict:
    """What a run does between its settings and its scores."""
    from ktl.runs.refit import is_refitted, refit, selected_by

    session, started = begin(settings, **changes)
    with tempfile.TemporaryDirectory() as folder:
        training = session.prepare()
        history = training.fit(f"{folder}/first")
        if is_refitted(session.config.refit, session.dataset):
            selected = selected_by(session, training, history)
            training, _ = refit(session, selected, checkpoint_dir=f"{folder}/second", reporter=session.reporter)
    return {**scored(training, started, history), "note": session.config.head}


def scored(training, started: tuple[float, float], history=None) -> dict:
    """What a training that has ended gives.

    Args:
        training: with the weights that are scored.
        started: the clocks as it began.
        history: of the training that validation photos chose the epoch of; None if there is none.
    """
    from ktl.training.evaluate import predict_probabilities

    inputs, test = training.inputs, training.inputs.dataset.test
    probabilities = predict_probabilities(inputs.trained_part(training.classifier), inputs.evaluation_batches(test))
    hits = probabilities.argmax(axis=1) == test.labels
    return {
        "seconds": time.perf_counter() - started[0],
        "cpu_seconds": time.process_time() - started[1],
        **({"validation_top1": max(row["validation_top1"] for row in history)} if history else {}),
        "test_top1": float(hits.mean()),
        "correct": "".join(map(str, hits.astype(int))),
    }


WAYS = {
    "keras_guide": keras_guide,
    "keras_guide_of_all": keras_guide_of_all,
    "default_run": default_run,
    "chosen_head": chosen_head,
    "keras_fine_tuning": keras_fine_tuning,
    "timm_fine_tuning": timm_fine_tuning,
}
