"""Batches as TensorFlow takes them: the same ones, and what fails as itself."""

import dataclasses
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from ktl.data.batches import ArraySpec, Batches
from ktl.data.tf_data import TensorFlowFeed
from ktl.errors import UserError


def batches_of(count=5, *, size=4, features=3):
    """Seeded features and labels; the last batch is smaller."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(count * size - 1, features)).astype("float32"), np.arange(count * size - 1) % 2
    specs = ArraySpec((None, features), "float32"), ArraySpec((None,), "int32")

    def make(number):
        part = slice(number * size, (number + 1) * size)
        return x[part], y[part].astype("int32")

    return Batches(count, make, specs)


def network():
    pixels = keras.Input((3,))
    model = keras.Model(pixels, keras.layers.Dense(2)(pixels))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_they_are_the_same_batches_in_their_order_with_their_number():
    batches = batches_of()
    dataset = TensorFlowFeed().dataset(batches)
    assert dataset.cardinality() == 5
    assert dataset.element_spec == (tf.TensorSpec([None, 3], tf.float32), tf.TensorSpec([None], tf.int32))
    for _ in range(2):
        for found, expected in zip(dataset.as_numpy_iterator(), batches, strict=True):
            for array, wanted in zip(found, expected, strict=True):
                np.testing.assert_array_equal(array, wanted)
    assert list(TensorFlowFeed().dataset(dataclasses.replace(batches, length=0))) == []


def test_no_thread_tunes_them():
    """Letting go of an iterator would wait for it, up to a minute."""
    assert TensorFlowFeed().dataset(batches_of()).options().autotune.enabled is False


@pytest.mark.usefixtures("without_determinism_afterwards")
def test_several_are_made_at_a_time_with_deterministic_operations_too():
    """Two at a time wait for each other."""
    batches, together = batches_of(4), threading.Barrier(2, timeout=20)

    def make(number):
        together.wait()
        return batches[number]

    tf.config.experimental.enable_op_determinism()
    found = TensorFlowFeed().dataset(dataclasses.replace(batches, make=make, threads=2)).as_numpy_iterator()
    for (x, _), (expected, _) in zip(found, batches, strict=True):
        np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize(
    "error", [UserError("Expected photos. Received: none"), OSError(28, "No space left"), KeyError(3)]
)
def test_what_fails_in_a_later_batch_is_raised_as_itself(error):
    batches, model = batches_of(), network()

    def make(number):
        if number == 3:
            raise error
        return batches[number]

    broken = dataclasses.replace(batches, make=make)
    for call, settings in ((model.fit, {"shuffle": False}), (model.evaluate, {}), (model.predict, {})):
        with pytest.raises(type(error)) as found, TensorFlowFeed() as feed:
            call(feed.dataset(broken), verbose=0, **settings)
        assert found.value is error


def test_other_errors_of_tensorflow_stay():
    with pytest.raises(tf.errors.InvalidArgumentError), TensorFlowFeed():
        tf.ensure_shape(tf.zeros([3]), [4])


def test_a_batch_may_need_tensorflow_while_tensorflow_waits_for_it():
    """As one of features that are damaged and computed again; with more of them than threads."""
    batches, double = batches_of(40), tf.function(lambda x: tf.linalg.matmul(x, tf.linalg.diag([2.0, 2.0, 2.0])))

    def make(number):
        x, y = batches[number]
        return double(x).numpy(), y

    dataset = TensorFlowFeed().dataset(dataclasses.replace(batches, make=make, threads=4))
    assert dataset.options().threading.private_threadpool_size > 4
    for (x, _), (expected, _) in zip(dataset.as_numpy_iterator(), batches, strict=True):
        np.testing.assert_allclose(x, 2 * expected)
