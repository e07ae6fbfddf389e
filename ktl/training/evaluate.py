"""What a model gives for photos."""

from typing import Any, cast

import keras
import numpy as np
import scipy.special

from ktl.data.batches import Batches
from ktl.machine import backend
from ktl.training.feeds import make_feed


def predict_logits(model: keras.Model, batches: Batches) -> np.ndarray:
    """Logits of every photo.

    Args:
        model: whose output is logits [batch, classes].
        batches: of (inputs, labels), in the order wanted.

    Returns:
        float32 [photos, classes].
    """
    return _predict(model, batches).astype(np.float32)


def predict_probabilities(model: keras.Model, batches: Batches) -> np.ndarray:
    """Class probabilities of every photo.

    Args:
        model: whose output is logits [batch, classes].
        batches: of (inputs, labels), in the order wanted.

    Returns:
        float64 [photos, classes]; rows sum to 1.
    """
    return _softmax(_predict(model, batches))


def predict_with_activations(model: keras.Model, batches: Batches) -> tuple[np.ndarray, np.ndarray]:
    """In one pass, class probabilities of every photo, and what its logits were computed from.

    Args:
        model: whose outputs are what its last layer reads, [batch, inputs], and its logits, [batch, classes].
        batches: of (inputs, labels), in the order wanted.

    Returns:
        float64 [photos, classes], whose rows sum to 1; and [photos, inputs] in the network's precision.
    """
    activations, logits = _predict(model, batches)
    return _softmax(logits), activations


def _predict(model: keras.Model, batches: Batches):
    with make_feed(model) as feed:
        dataset = feed.dataset(batches)
        if keras.config.backend() == "tensorflow" and model.steps_per_execution == backend.devices_of(model) == 1:
            # One graph for batches of every size: Keras traces one for the first, and another for a smaller last one.
            model.make_predict_function()
            cast(Any, model).predict_function.get_concrete_function([dataset.element_spec])
        return model.predict(dataset, verbose=0)  # pyright: ignore[reportArgumentType] (Keras declares "auto", a str)


def _softmax(logits: np.ndarray) -> np.ndarray:
    return scipy.special.softmax(logits.astype("float64"), axis=1)
