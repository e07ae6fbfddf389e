"""What `experiments/recipes.py` does to a run between its preparation and its training, where no setting does it."""

import keras
import numpy as np
from sklearn import linear_model

from ktl import evaluation, knowledge, training
from ktl.calibration import fit_temperature
from ktl.layers import ScaledUnitNormalization
from ktl.network import HEAD_PREFIX
from ktl.runs import Prepared

RIDGE_PENALTIES = np.logspace(-2, 4, 7)

L2_SP = 1e-2
"""Strength of the pull to the pre-trained weights, alpha of Li et al."""


def fix_scale(prepared: Prepared) -> None:
    """The norm of what the new layers read stays what it is at the start."""
    for layer in prepared.network.suffix.layers:
        if isinstance(layer, ScaledUnitNormalization):
            layer.trainable = False
    _compile(prepared, prepared.network.head_variables)


def new_rate_for_kept_layer(prepared: Prepared) -> None:
    """The kept classification layer is trained at the rate of the new layers."""
    kept = [layer for layer in prepared.network.suffix.layers if not layer.name.startswith(HEAD_PREFIX)]
    kept = [layer for layer in kept if layer.trainable_variables][-1:]
    variables = [variable for layer in kept for variable in layer.trainable_variables]
    _compile(prepared, prepared.network.head_variables + variables)


def start_from_class_means(prepared: Prepared) -> None:
    """The new layer starts as the classifier of the nearest class mean: logits x . m_k - |m_k|^2 / 2, over T.

    T has the smallest log loss on the same photos.
    """
    inputs, labels = _training_inputs(prepared)
    means = np.stack([inputs[labels == label].mean(axis=0) for label in np.unique(labels)])
    _start_with(prepared, means.T, -np.square(means).sum(axis=1) / 2)


def start_from_ridge(prepared: Prepared) -> None:
    """The new layer starts as the ridge regression of one-hot labels, its penalty by leave-one-out, its logits over T.

    T has the smallest log loss on the same photos.
    """
    inputs, labels = _training_inputs(prepared)
    found = linear_model.RidgeCV(RIDGE_PENALTIES).fit(inputs, np.eye(labels.max() + 1)[labels])
    _start_with(prepared, found.coef_.T, found.intercept_)


def hold_to_start(prepared: Prepared) -> None:
    """Adds alpha / 2 * |w - w_0|^2 over the pre-trained kernels w to the loss.

    Reference:
        Li, Grandvalet, Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", ICML 2018.
    """
    for layer in prepared.network.suffix.layers:
        if not layer.name.startswith(HEAD_PREFIX):
            for variable in layer.trainable_variables:
                if len(variable.shape) > 1:
                    variable.regularizer = _pull_to(keras.ops.convert_to_numpy(variable))


def _pull_to(start: np.ndarray):
    return lambda kernel: L2_SP / 2 * keras.ops.sum(keras.ops.square(kernel - start))


def _training_inputs(prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """What the last Dense layer reads of the training photos, [photos, inputs], and their labels."""
    feed = prepared.feed
    model = knowledge.with_activations(prepared.network, feed.model)
    _, inputs = evaluation.predict_with_activations(model, feed.evaluate(feed.dataset.train))
    return inputs.astype(np.float64), feed.dataset.train.labels


def _start_with(prepared: Prepared, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Gives the last Dense layer these weights, divided by the best temperature."""
    layer, feed = knowledge.dense_layer(prepared.network), prepared.feed
    layer.set_weights([kernel, bias])
    probabilities = evaluation.predict_probabilities(feed.model, feed.evaluate(feed.dataset.train))
    temperature = fit_temperature(probabilities, feed.dataset.train.labels)
    layer.set_weights([kernel / temperature, bias / temperature])


def _compile(prepared: Prepared, head_variables: list) -> None:
    training.compile_model(
        prepared.feed.model,
        head_variables=head_variables,
        config=prepared.config,
        steps_per_epoch=prepared.steps_per_epoch,
        xla=prepared.machine.xla,
        steps_per_execution=prepared.feed.model.steps_per_execution,
    )
