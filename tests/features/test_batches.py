"""Batches of stored features: the order of uncached training, and one view of each photo an epoch."""

import numpy as np
import pytest
from stored_features import compute, extraction_of, stored
from tiny import SIZE

from ktl.data.input_pipeline import PhotoCache, training_batches
from ktl.features.batches import cached_evaluation_batches, cached_training_batches, filled_batches
from ktl.features.extraction import Views
from ktl.features.store import FeatureStore


@pytest.fixture
def train_features(classifier, dataset, tmp_path):
    """How photos are seen -> the features of the training photos."""

    def train_features(views):
        store = FeatureStore(tmp_path)
        extraction = extraction_of(classifier, dataset, views=views)
        compute(store, extraction)
        return stored(store, extraction)["train"]

    return train_features


@pytest.mark.parametrize("views", [Views(SIZE), Views(SIZE, "standard", 3, flip=True)])
def test_training_batches_are_the_prefix_of_the_uncached_ones(classifier, dataset, train_features, views):
    common = {"batch_size": 16, "steps": 4, "epochs": 4, "seed": 5}
    batches = list(cached_training_batches(train_features(views), **common))
    uncached = training_batches(
        dataset.train,
        image_size=SIZE,
        augmentation=views.augmentation,
        views=views.count,
        flip=True,
        cache=PhotoCache(memory_gib=0.1),
        **common,
    )
    for (values, labels), (pixels, expected) in zip(batches, uncached, strict=True):
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_allclose(values, classifier.prefix.predict(pixels, verbose=0), rtol=1e-5, atol=1e-5)


def test_continuing_gives_the_batches_of_an_uninterrupted_training(train_features):
    train = train_features(Views(SIZE, "standard", 2))
    whole, rest = (
        list(cached_training_batches(train, batch_size=20, steps=3, epochs=4, first_epoch=first, seed=3))
        for first in (0, 2)
    )
    for (x, y), (expected_x, expected_y) in zip(rest, whole[len(whole) // 2 :], strict=True):
        np.testing.assert_array_equal(x, expected_x)
        np.testing.assert_array_equal(y, expected_y)


def test_the_number_of_batches_is_known(train_features):
    train = train_features(Views(SIZE))
    trained = cached_training_batches(train, batch_size=20, steps=3, epochs=4, first_epoch=1, seed=3)
    evaluated = cached_evaluation_batches(train, batch_size=20)
    for batches, count in ((trained, 9), (evaluated, -(-len(train) // 20))):
        assert len(batches) == len(list(batches)) == count
        values, labels = batches[0]
        features, classes = batches.specs
        assert (features.shape[1:], features.dtype) == (values.shape[1:], str(values.dtype))
        assert (classes.shape[1:], classes.dtype) == (labels.shape[1:], str(labels.dtype))


def test_filled_batches_have_one_size_and_count_each_photo_once(train_features):
    train = train_features(Views(SIZE, "standard", 2))
    assert len(train) % 20
    evaluated = cached_evaluation_batches(train, batch_size=20)
    filled = list(filled_batches(evaluated, size=20))
    assert {len(array) for batch in filled for array in batch} == {20}
    for (values, labels), (filled_values, filled_labels, counted) in zip(evaluated, filled, strict=True):
        assert set(counted) <= {0, 1}
        np.testing.assert_array_equal(filled_values[counted == 1], values)
        np.testing.assert_array_equal(filled_labels[counted == 1], labels)
