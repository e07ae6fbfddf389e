"""Metrics of training, against scikit-learn."""

import keras
import numpy as np
import pytest
import scipy.special
from sklearn import metrics

from ktl.models.recipe_metrics import CLASS_METRICS, make_metrics

CLASSES = 7


def answers(seed, *, photos=60, classes=CLASSES, right=2.0):
    """Logits and labels; the classes are not of one size, and the last has no photo."""
    generator = np.random.default_rng(seed)
    labels = np.minimum(generator.geometric(0.4, photos) - 1, classes - 2)
    logits = generator.normal(size=(photos, classes)) + right * np.eye(classes)[labels]
    return logits.astype("float32"), labels


def of_scikit_learn(name, logits, labels, weights=None):
    given, there = logits.argmax(1), np.unique(labels)
    if name == "top1":
        return metrics.accuracy_score(labels, given)
    if name == "log_loss":
        return metrics.log_loss(labels, scipy.special.softmax(logits.astype("float64"), 1), labels=range(CLASSES))
    function = {"mean_class_accuracy": metrics.recall_score, "macro_f1": metrics.f1_score}[name]
    return function(labels, given, average="macro", labels=there, sample_weight=weights)


@pytest.mark.parametrize("name", ["top1", "log_loss", "mean_class_accuracy", "macro_f1"])
@pytest.mark.parametrize("right", [0.0, 2.0])
def test_the_metrics_of_several_batches_are_those_of_scikit_learn(name, right):
    logits, labels = answers(0, right=right)
    (metric,) = [each for each in make_metrics(*CLASS_METRICS, classes=CLASSES) if each.name == name]
    for _ in range(2):  # and again after a reset
        metric.reset_state()
        for part in (slice(0, 25), slice(25, 26), slice(26, 60)):
            metric.update_state(labels[part], logits[part])
        assert float(metric.result()) == pytest.approx(of_scikit_learn(name, logits, labels), rel=1e-5)


@pytest.mark.parametrize("name", CLASS_METRICS)
def test_photos_may_have_weights(name):
    logits, labels = answers(1)
    weights = np.random.default_rng(2).random(len(labels)).astype("float32")
    metric = CLASS_METRICS[name](CLASSES)
    metric.update_state(labels[:, None], logits, sample_weight=weights)
    assert float(metric.result()) == pytest.approx(of_scikit_learn(name, logits, labels, weights), rel=1e-5)


@pytest.mark.parametrize("name", CLASS_METRICS)
def test_keras_saves_them_and_before_any_photo_they_are_0(name):
    metric = keras.metrics.deserialize(keras.metrics.serialize(CLASS_METRICS[name](CLASSES)))
    assert type(metric) is CLASS_METRICS[name]
    assert (metric.name, metric.classes) == (name, CLASSES)
    assert float(metric.result()) == 0


def test_only_what_is_asked_for_is_measured():
    for names, expected in (((), []), (("top1",), []), (("log_loss",), []), (("macro_f1",), ["macro_f1"])):
        found = [metric.name for metric in make_metrics(*names, classes=3)]
        assert found == ["top1", "log_loss", *expected]
