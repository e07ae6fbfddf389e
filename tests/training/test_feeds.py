"""What Keras' trainer takes batches from: the feed of every backend, which is plain NumPy, under TensorFlow's here."""

import itertools

import keras
import numpy as np
import pytest
from support import one_line

from ktl.data.batches import ArraySpec, Batches
from ktl.errors import UserError
from ktl.training.feeds import PlainFeed, make_feed

COUNT, SIZE = 6, 4


def batch_of(number) -> tuple[np.ndarray, np.ndarray]:
    """No two are equal."""
    generator = np.random.default_rng(number)
    return generator.normal(size=(SIZE, 3)).astype("float32"), generator.integers(2, size=SIZE, dtype="int32")


@pytest.fixture
def batches() -> Batches:
    return Batches(COUNT, batch_of, (ArraySpec((None, 3), "float32"), ArraySpec((None,), "int32")))


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    return model


def assert_are(found, numbers) -> None:
    """Whether these are the batches of these numbers."""
    for pair, number in zip(found, numbers, strict=True):
        for array, expected in zip(pair, batch_of(number), strict=True):
            np.testing.assert_array_equal(array, expected)


def test_an_epoch_goes_on_where_the_one_before_has_ended(batches):
    with PlainFeed() as feed:
        once = feed.once(batches)
        for first, last in ((0, 2), (2, 5), (5, 6)):
            assert_are(itertools.islice(once, last - first), range(first, last))
        assert list(once) == []


def test_a_dataset_begins_at_its_first_batch_each_time(batches):
    with PlainFeed() as feed:
        dataset = feed.dataset(batches)
        assert len(dataset) == COUNT
        for _ in range(2):
            assert_are((dataset[number] for number in range(COUNT)), range(COUNT))


def test_a_training_has_each_batch_once_and_validation_all_of_its_own_each_time(batches, network):
    """By hand: the gradient of each batch, in their order."""
    kernel, bias = (np.array(weight, "float64") for weight in network.get_weights())
    with PlainFeed() as feed:
        history = network.fit(
            feed.once(batches),
            validation_data=feed.dataset(batches),
            epochs=2,
            steps_per_epoch=COUNT // 2,
            shuffle=False,
            verbose=0,
        ).history
    losses = []
    for number in range(COUNT):
        x, y = batch_of(number)
        loss, error = loss_of(x, y, kernel, bias)
        kernel, bias = kernel - 0.01 * x.T @ error, bias - 0.01 * error.sum(axis=0)
        losses.append(loss)
    for found, expected in zip(network.get_weights(), (kernel, bias), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(history["loss"], np.reshape(losses, (2, -1)).mean(axis=1), rtol=1e-5)
    validation = np.mean([loss_of(*batch_of(number), kernel, bias)[0] for number in range(COUNT)])
    assert history["val_loss"][-1] == pytest.approx(validation, rel=1e-5)


def loss_of(x, y, kernel, bias) -> tuple[float, np.ndarray]:
    """The cross-entropy of a batch, and its gradient by the logits."""
    logits = x @ kernel + bias
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return -np.log(shares[np.arange(len(y)), y]).mean(), (shares - np.eye(2)[y]) / len(y)


def test_what_fails_is_raised_as_it_is_in_its_turn():
    def make(number):
        if number == 3:
            raise UserError("Expected photos that stay. Received: one that is gone")
        return batch_of(number)

    damaged = Batches(COUNT, make, (ArraySpec((None, 3), "float32"), ArraySpec((None,), "int32")))
    with PlainFeed() as feed:
        once, dataset = feed.once(damaged), feed.dataset(damaged)
        assert_are(itertools.islice(once, 3), range(3))
        for ask in (lambda: next(once), lambda: dataset[3]):
            with pytest.raises(UserError) as caught:
                ask()
            assert one_line(caught).startswith("Expected photos that stay")


def test_tensorflow_has_one_of_its_own(network):
    pytest.importorskip("tensorflow")
    from ktl.data.tf_data import TensorFlowFeed

    assert isinstance(make_feed(network), TensorFlowFeed)
