"""What `experiments/recipes.py` does to a run between its preparation and its training, where no setting does it.

An intervention takes a prepared training and gives the one that takes its place, or the same one, which it has changed.
"""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np
from scipy import optimize, special
from sklearn import linear_model, metrics, model_selection

from ktl.evaluation.calibration import LIMITS
from ktl.evaluation.probe import fit_probe
from ktl.models.layers import ScaledUnitNormalization
from ktl.runs.attribution import with_activations
from ktl.runs.session import Training
from ktl.training import evaluate

RIDGE_PENALTIES = np.logspace(-2, 4, 7)

FOLDS = 5

L2_SP = 1e-2
"""Strength of the pull to the pre-trained weights, alpha of Li et al."""


@dataclasses.dataclass(frozen=True)
class WithOtherRates(Training):
    """A training in which these variables learn at the new layers' rate."""

    new_variables: Sequence[keras.Variable] = ()

    def fit(self, checkpoint_dir, **arguments):
        return super().fit(checkpoint_dir, new_variables=self.new_variables, **arguments)


def fix_scale(training: Training) -> Training:
    """The norm of what the new layers read stays what it is at the start."""
    for layer in training.classifier.new_layers:
        if isinstance(layer, ScaledUnitNormalization):
            layer.trainable = False
    return training


def new_rate_for_kept_layer(training: Training) -> WithOtherRates:
    """The kept classification layer is trained at the rate of the new layers."""
    kept = [layer for layer in pretrained_layers(training) if layer.trainable_variables][-1]
    chosen = [*training.classifier.new_variables, *kept.trainable_variables]
    return WithOtherRates(**vars(training), new_variables=chosen)


def start_from_class_means(training: Training) -> Training:
    """The new layer starts as the classifier of the nearest class mean: logits x . m_k - |m_k|^2 / 2, over T."""
    return _start_with(training, class_means)


def start_from_ridge(training: Training) -> Training:
    """The new layer starts as the ridge regression of one-hot labels, logits over T, the penalty by leave-one-out."""
    return _start_with(training, ridge)


def start_from_probe(training: Training) -> Training:
    """The new layer starts as the logistic regression that has converged, over T.

    Reference:
        Kumar, Raghunathan, Jones, Ma, Liang, "Fine-Tuning can Distort Pretrained Features and Underperform
        Out-of-Distribution", ICLR 2022.
    """
    return _start_with(training, probe)


def class_means(inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [inputs, classes] and bias [classes]."""
    means = np.stack([inputs[labels == label].mean(axis=0) for label in np.unique(labels)])
    return means.T, -np.square(means).sum(axis=1) / 2


def ridge(inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [inputs, classes] and bias [classes]."""
    found = linear_model.RidgeCV(RIDGE_PENALTIES).fit(inputs, np.eye(labels.max() + 1)[labels])
    return found.coef_.T, found.intercept_


def probe(inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [inputs, classes] and bias [classes]."""
    found = fit_probe(inputs, labels)
    kernel = found.model.coef_.T / found.spread
    return kernel, found.model.intercept_ - found.mean @ kernel


def hold_to_start(training: Training) -> Training:
    """Adds alpha / 2 * |w - w_0|^2 over the pre-trained kernels w to the loss.

    Reference:
        Li, Grandvalet, Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", ICML 2018.
    """
    for layer in pretrained_layers(training):
        for variable in layer.trainable_variables:
            if len(variable.shape) > 1:
                variable.regularizer = _pull_to(keras.ops.convert_to_numpy(variable))
    return training


def pretrained_layers(training: Training) -> list[keras.layers.Layer]:
    """The backbone's layers after the freeze boundary."""
    new = training.classifier.new_layers
    return [layer for layer in training.classifier.suffix.layers if not any(layer is other for other in new)]


def _pull_to(start: np.ndarray):
    return lambda kernel: L2_SP / 2 * keras.ops.sum(keras.ops.square(kernel - start))


def _start_with(training: Training, fit: Callable) -> Training:
    """Gives the last Dense layer the weights that are fitted to what it reads of the training photos, over T.

    T has the smallest log loss on photos that were held out of the fit: on its own, it would be too sure.
    """
    train = training.inputs.dataset.train
    model = with_activations(training.classifier, training.compile())
    _, inputs = evaluate.predict_with_activations(model, training.inputs.evaluation_batches(train))
    inputs, labels = inputs.astype(np.float64), train.labels
    logits = np.empty((len(labels), labels.max() + 1))
    folds = model_selection.StratifiedKFold(min(FOLDS, np.bincount(labels).min()), shuffle=True, random_state=0)
    for fitted, held_out in folds.split(inputs, labels):
        kernel, bias = fit(inputs[fitted], labels[fitted])
        logits[held_out] = inputs[held_out] @ kernel + bias
    temperature = _temperature_of(logits, labels)
    kernel, bias = fit(inputs, labels)
    training.classifier.new_layers[-1].set_weights([kernel / temperature, bias / temperature])
    return training


def _temperature_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the smallest log loss. Not `fit_temperature`, which expects it near 1, as of a network: the
    answers of a regression on 0 and 1 are of another size than logits."""

    def loss(log_temperature: float) -> float:
        scaled = special.softmax(logits / np.exp(log_temperature), axis=1)
        return metrics.log_loss(labels, scaled, labels=range(logits.shape[1]))

    return float(np.exp(optimize.minimize_scalar(loss, bounds=np.log(LIMITS), method="bounded").x))
