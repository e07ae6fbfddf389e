"""The recipe: rates, schedule, decay and loss, against formulas and gradients of the backend's own."""

import math

import numpy as np
import pytest
from tiny import BATCH, STEPS, losses_and_gradients, make_photos, tiny_classifier, values

from ktl.models.recipe import Recipe, decay_coefficient


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


def apply_nothing(classifier, steps):
    """Optimizer steps with gradients of zero."""
    variables = classifier.trainable_variables
    for _ in range(steps):
        classifier.optimizer.apply([np.zeros(variable.shape, "float32") for variable in variables], variables)


@pytest.mark.parametrize(
    ("optimizer", "share", "epochs", "rate"),
    [("sgd", 0.1, 8, 1e-3), ("adamw", 0.5, 4, 0.1), ("sgd", 0.9, 1, 1e-5), ("adamw", 0.9, 1, 1e-5)],
)
def test_weight_decay_alone_takes_its_share_of_each_kernel_in_a_whole_training(
    classifier, optimizer, share, epochs, rate
):
    compiled(classifier, epochs=epochs, optimizer=optimizer, learning_rate=rate, weight_decay=share, warmup_epochs=0.5)
    before = {variable.path: value for variable, value in named(classifier)}
    apply_nothing(classifier, epochs * STEPS)
    kernels = 0
    for variable, value in named(classifier):
        left = 1 - share if variable.path.endswith("kernel") else 1
        kernels += left < 1
        np.testing.assert_allclose(value, left * before[variable.path], rtol=1e-4, err_msg=variable.path)
        if left == 1:
            np.testing.assert_array_equal(value, before[variable.path], err_msg=variable.path)
    assert 0 < kernels == 6 < len(before)


def named(classifier):
    return zip(classifier.trainable_variables, values(classifier.trainable_variables), strict=True)


def test_a_coefficient_is_the_logarithm_over_the_sum_of_the_rates_where_steps_are_small():
    rates = 1e-3 * np.random.default_rng(0).random(100_000)
    assert decay_coefficient(0.3, rates) == pytest.approx(-math.log(0.7) / rates.sum(), rel=1e-4)
    assert decay_coefficient(0.0, rates) == decay_coefficient(0.3, rates * 0) == 0
    # Of a single step it is not: 1 - c * rate would be below zero.
    assert decay_coefficient(0.9, np.array([0.01])) * 0.01 == pytest.approx(0.9)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_nothing_decays_while_the_length_of_the_training_is_not_known(classifier, optimizer):
    classifier.compile(recipe=Recipe(optimizer=optimizer, learning_rate=0.1, weight_decay=0.5))
    before = values(classifier.trainable_variables)
    apply_nothing(classifier, 3)
    for value, expected in zip(values(classifier.trainable_variables), before, strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_weight_decay_that_is_no_share_is_refused(share):
    with pytest.raises(ValueError, match=r"^Expected `weight_decay` to be from 0 to below 1\. Received: "):
        Recipe(weight_decay=share)


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
