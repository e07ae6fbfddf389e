"""Callbacks whose model is the classifier, also where its suffix is what Keras trains."""

import contextlib
from collections.abc import Iterator, Sequence

import keras


def callbacks_of(
    callbacks: Sequence[keras.callbacks.Callback],
    part: keras.Model,
    classifier: keras.Model,
    epochs: int,
    steps: int,
):
    """What `fit` of the part takes: the callbacks, whose `model` is the classifier.

    Args:
        callbacks: of the training.
        part: what Keras trains, the classifier or its suffix.
        classifier: has the part's layers.
        epochs: where training ends.
        steps: an epoch.
    """
    if part is classifier:
        return list(callbacks)
    part.history = None  # Keras returns that of what it trains
    stop = _StopWith(part, classifier)
    return keras.callbacks.CallbackList(
        [*callbacks, stop], add_history=True, model=classifier, epochs=epochs, steps=steps, verbose=0
    )


@contextlib.contextmanager
def weights_at_hand(classifier: keras.Model, part: keras.Model) -> Iterator[None]:
    """Inside, a callback that asks for its model, the classifier, finds there what the part has learned so far.

    On JAX a model that is trained has its weights elsewhere, and a callback's `model` fetches them first; only the part
    knows where they are.
    """
    if part is classifier or not hasattr(classifier, "jax_state_sync"):
        yield
        return
    own, of_part = classifier.jax_state_sync, part.jax_state_sync

    def fetch() -> None:
        own()  # what it has scored or predicted itself, in a callback
        of_part()

    classifier.__dict__["jax_state_sync"] = fetch  # shadows the method
    try:
        yield
    finally:
        del classifier.__dict__["jax_state_sync"]


class _StopWith(keras.callbacks.Callback):
    """Stops the part that is trained when a callback has asked the classifier to stop."""

    def __init__(self, part: keras.Model, classifier: keras.Model):
        super().__init__()
        # Not by `self.model`, which on JAX fetches all weights, and that after each step.
        self.part, self.classifier = part, classifier

    def on_train_batch_end(self, batch, logs=None):
        self.part.stop_training = self.classifier.stop_training

    def on_epoch_end(self, epoch, logs=None):
        self.part.stop_training = self.classifier.stop_training
