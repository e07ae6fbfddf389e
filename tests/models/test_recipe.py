"""The recipe: rates, schedule, decay and loss, against formulas and gradients of TensorFlow's own."""

import math

import numpy as np
import pytest
from tiny import BATCH, STEPS, losses_and_gradients, make_photos, put_back, tiny_classifier, values

from ktl.models.recipe import Recipe


@pytest.fixture
def classifier(tiny_backbone):
    return tiny_classifier(tiny_backbone, freeze_depth="none")


def compiled(classifier, *, epochs=5, **settings):
    """With the rate of `learning_rate` from the first step on, and no decay, unless told otherwise."""
    classifier.compile(recipe=Recipe(**{"warmup_epochs": 0.0, "weight_decay": 0.0, **settings}))
    classifier.start_schedule(epochs=epochs, steps_per_epoch=STEPS)
    return classifier


# Optimizers


def test_one_step_moves_each_group_by_its_own_rate(classifier):
    compiled(classifier, optimizer="sgd", learning_rate=0.03, head_multiplier=7.0)
    pixels, labels = make_photos(BATCH)
    _, gradients = losses_and_gradients(classifier, pixels, labels)
    before = values(classifier.trainable_variables)
    classifier.train_on_batch(pixels, labels)
    names = []
    for variable, old, gradient in zip(classifier.trainable_variables, before, gradients, strict=True):
        new_layer = variable.path.startswith("head_")
        rate = 0.03 * 7 if new_layer else 0.03
        assert np.abs(gradient).max() > 0, variable.path
        np.testing.assert_allclose(
            variable.numpy() - old.astype(np.float64), -rate * gradient, rtol=2e-3, atol=3e-7, err_msg=variable.path
        )
        names.append(new_layer)
    assert 0 < sum(names) < len(names)


def expected_rate(step, peak, warmup, total):
    """Linear from 0 to the peak, then half a cosine to 0."""
    if step < warmup:
        return peak * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


@pytest.mark.parametrize(("warmup_epochs", "warmup_steps"), [(1.5, 6), (99.0, 11)])
def test_every_step_has_the_rate_of_the_schedule_and_momentum_nine_tenths(tiny_backbone, warmup_epochs, warmup_steps):
    model = tiny_classifier(tiny_backbone, freeze_depth="block_relu")
    compiled(model, epochs=3, optimizer="sgd", learning_rate=0.02, head_multiplier=3.0, warmup_epochs=warmup_epochs)
    pixels, labels = make_photos(BATCH)
    groups = {0.02: [], 0.06: []}
    for i, variable in enumerate(model.trainable_variables):
        groups[0.06 if variable.path.startswith("head_") else 0.02].append(i)
    velocity = [0.0] * len(model.trainable_variables)
    for step in range(3 * STEPS):
        _, gradients = losses_and_gradients(model, pixels, labels)
        before = values(model.trainable_variables)
        model.train_on_batch(pixels, labels)
        moved = [
            new.astype(np.float64) - old for new, old in zip(values(model.trainable_variables), before, strict=True)
        ]
        for peak, members in groups.items():
            # velocity' = 0.9 velocity - rate * gradient: the rate that fits all elements of the group best
            impulse = np.concatenate([np.ravel(moved[i] - 0.9 * velocity[i]) for i in members])
            gradient = np.concatenate([np.ravel(gradients[i]) for i in members])
            rate = -impulse @ gradient / (gradient @ gradient)
            assert rate == pytest.approx(expected_rate(step, peak, warmup_steps, 12), rel=5e-3, abs=5e-3 * peak), step
        velocity = moved


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_shrinks_kernels_and_leaves_norms_and_biases_alone(classifier, optimizer):
    pixels, labels = make_photos(BATCH)
    start_values = values(classifier.variables)
    after = {}
    for weight_decay in (0.0, 0.5):
        put_back(classifier.variables, start_values)
        compiled(
            classifier, optimizer=optimizer, learning_rate=0.01, head_multiplier=5.0, weight_decay=weight_decay
        ).train_on_batch(pixels, labels)
        after[weight_decay] = {v.path: v.numpy() for v in classifier.trainable_variables}
    before = {v.path: value for v, value in zip(classifier.variables, start_values, strict=True)}
    shrunk = set()
    for path, plain in after[0.0].items():
        rate = 0.05 if path.startswith("head_") else 0.01
        if path.endswith("kernel"):
            expected = plain - rate * 0.5 * before[path]
            shrunk.add(path)
        else:
            expected = plain
            np.testing.assert_array_equal(after[0.5][path], plain, err_msg=path)
        np.testing.assert_allclose(after[0.5][path], expected, rtol=1e-5, atol=1e-7, err_msg=path)
    assert len(shrunk) == 6
    assert {"head_normalization/gamma", "head_classifier/bias", "stem_norm/gamma", "stem_norm/beta"} <= {
        *after[0.0]
    } - shrunk


def test_a_frozen_backbone_trains_with_the_head_rate_alone(tiny_backbone):
    model = tiny_classifier(tiny_backbone, freeze_depth="all", head="kept_raw")
    compiled(model, optimizer="sgd", learning_rate=1e-5, head_multiplier=1000.0)
    pixels, labels = make_photos(BATCH)
    _, gradients = losses_and_gradients(model, pixels, labels)
    before = values(model.trainable_variables)
    model.train_on_batch(pixels, labels)
    for new, old, gradient in zip(values(model.trainable_variables), before, gradients, strict=True):
        np.testing.assert_allclose(new - old, -1e-2 * gradient, rtol=1e-3, atol=1e-7)


# The loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.99])
def test_loss_is_the_cross_entropy_with_smoothed_labels(classifier, smoothing):
    compiled(classifier, label_smoothing=smoothing)
    pixels, labels = make_photos(BATCH)
    logits = classifier.predict(pixels, verbose=0).astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    wanted = (1 - smoothing) * np.eye(6)[labels] + smoothing / 6
    expected = -(wanted * log_probabilities).sum(1).mean()
    loss, top1, log_loss = classifier.evaluate(pixels, labels, verbose=0)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert log_loss == pytest.approx(-log_probabilities[np.arange(len(labels)), labels].mean(), rel=1e-5)
    assert top1 == pytest.approx(np.mean(logits.argmax(1) == labels))
