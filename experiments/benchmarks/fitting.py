"""Training on inputs, with the optimizer, schedule and checkpoints of a run of ktl."""

import tempfile

import keras

from benchmarks.work import Work
from ktl.runs.session import Extras, Training
from ktl.training.checkpoint import Checkpoint, EpochRow
from ktl.training.feeds import make_feed
from ktl.training.inputs import Inputs


def training_of(work: Work, inputs: Inputs) -> Training:
    return Training(work.config, work.machine, work.classifier, inputs, Extras())


def compile_part(work: Work, inputs: Inputs) -> keras.Model:
    """Compiles what the inputs train, the classifier or its suffix, as a run does; gives it."""
    return training_of(work, inputs).compile()


def fit_as_run(work: Work, inputs: Inputs) -> list[EpochRow]:
    """Trains as a run does; the history."""
    with tempfile.TemporaryDirectory() as folder:
        return training_of(work, inputs).fit(folder)


def fit_as_keras(work: Work, inputs: Inputs) -> list[EpochRow]:
    """Compiles as a run does, and trains with Keras' own convolutions and graphs; the history."""
    return fit_compiled(compile_part(work, inputs), inputs, epochs=work.config.epochs)


def fit_compiled(model: keras.Model, inputs: Inputs, *, epochs: int, keep: str = "best") -> list[EpochRow]:
    """Trains what the inputs fit, however it was compiled, and gives it its best epoch's weights, or leaves it with
    those of the last; the history."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(folder)
        feed = make_feed(model)
        keras.Model.fit(
            model,
            feed.once(inputs.training_batches(epochs=epochs)),
            validation_data=feed.dataset(inputs.evaluation_batches(inputs.dataset.validation)),
            epochs=epochs,
            steps_per_epoch=inputs.steps_per_epoch,
            callbacks=[checkpoint],
            shuffle=False,
            verbose=0,
        )
        if keep == "best":
            checkpoint.restore_best(model)
        return checkpoint.history
