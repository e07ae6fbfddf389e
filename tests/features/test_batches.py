"""Batches of stored features: the order of uncached training, and one view of each photo an epoch."""

import numpy as np
import pytest
from stored_features import compute, extraction_of
from tiny import SIZE

from ktl.data.input_pipeline import PhotoCache, epoch_order, training_batches
from ktl.features.batches import cached_evaluation_batches, cached_training_batches
from ktl.features.extraction import VIEW_SEED, Views
from ktl.features.store import FeatureStore


@pytest.fixture
def train_features(classifier, dataset, tmp_path):
    """How photos are seen -> the features of the training photos."""

    def train_features(views):
        store = FeatureStore(tmp_path)
        (key,) = compute(store, extraction_of(classifier, dataset, views=views))
        return store.load(key, dataset).features["train"]

    return train_features


@pytest.mark.parametrize("views", [Views(SIZE), Views(SIZE, "standard", 3)])
def test_training_batches_are_the_prefix_of_some_view_of_the_uncached_ones(classifier, dataset, train_features, views):
    batches = list(cached_training_batches(train_features(views), batch_size=16, epochs=4, seed=5))
    common = {"image_size": SIZE, "batch_size": 16, "cache": PhotoCache(memory_gib=0.1)}
    uncached = training_batches(
        dataset.train, epochs=4, seed=VIEW_SEED, augmentation=views.augmentation, flip=True, **common
    )
    steps = len(batches) // 4
    drawn = []
    views_of_photo = {}  # every view of every photo, by an independent pass over the uncached epochs
    order, seen = ([epoch_order(len(dataset.train), seed, epoch) for epoch in range(4)] for seed in (5, VIEW_SEED))
    for epoch in range(views.of(dataset.train)):
        start = epoch * steps
        pixels = np.concatenate([x for x, _ in list(uncached)[start : start + steps]])
        values = classifier.prefix.predict(pixels, verbose=0)
        for photo, value in zip(seen[epoch], values, strict=True):
            views_of_photo.setdefault(int(photo), []).append(value)
    for epoch in range(4):
        values = np.concatenate([x for x, _ in batches[epoch * steps : (epoch + 1) * steps]])
        labels = np.concatenate([y for _, y in batches[epoch * steps : (epoch + 1) * steps]])
        np.testing.assert_array_equal(labels, dataset.train.labels[order[epoch]])  # the order of uncached training
        shown = []
        for photo, value in zip(order[epoch], values, strict=True):
            distances = [np.abs(value - view).max() for view in views_of_photo[int(photo)]]
            assert min(distances) < 1e-5
            shown.append(int(np.argmin(distances)))
        drawn.append(np.array(shown)[np.argsort(order[epoch])])
    if views.count == 3:
        # Each view once in three epochs, then the first again; photos are not in step with each other.
        assert (np.sort(drawn[:3], axis=0) == np.arange(3)[:, None]).all()
        np.testing.assert_array_equal(drawn[3], drawn[0])
        assert len(set(drawn[0])) == 3


def test_no_thread_tunes_the_batches(train_features):
    """Letting go of an iterator would wait for it, up to a minute."""
    train = train_features(Views(SIZE))
    trained = cached_training_batches(train, batch_size=8, epochs=2, seed=0)
    for batches in (cached_evaluation_batches(train, batch_size=8), trained):
        assert batches.options().autotune.enabled is False


def test_continuing_gives_the_batches_of_an_uninterrupted_training(train_features):
    train = train_features(Views(SIZE, "standard", 2))
    whole, rest = (
        list(cached_training_batches(train, batch_size=20, epochs=4, first_epoch=first, seed=3)) for first in (0, 2)
    )
    for (x, y), (expected_x, expected_y) in zip(rest, whole[len(whole) // 2 :], strict=True):
        np.testing.assert_array_equal(x, expected_x)
        np.testing.assert_array_equal(y, expected_y)


def test_the_number_of_batches_is_known(train_features):
    train = train_features(Views(SIZE))
    trained = cached_training_batches(train, batch_size=20, epochs=4, first_epoch=1, seed=3)
    evaluated = cached_evaluation_batches(train, batch_size=20)
    for batches, epochs in ((trained, 3), (evaluated, 1)):
        assert len(batches) == len(list(batches)) == epochs * -(-len(train) // 20)
