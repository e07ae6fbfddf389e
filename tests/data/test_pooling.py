"""Training and validation photos as one, and in folds."""

import numpy as np
import pytest
from support import count_labels, one_line, write_classes

from ktl.data.dataset import Dataset
from ktl.data.pooling import crossed, folds_of, part_of_pooled, pooled
from ktl.errors import UserError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return Dataset.from_directory(write_classes(tmp_path_factory.mktemp("photos") / "all", {"a": 10, "b": 23, "c": 37}))


def test_the_pooled_photos_are_those_of_both_splits(dataset):
    whole = pooled(dataset)
    assert whole.train.photos == dataset.train.photos + dataset.validation.photos
    np.testing.assert_array_equal(whole.train.labels, [*dataset.train.labels, *dataset.validation.labels])
    assert whole.train.read(len(dataset.train)) == dataset.validation.read(0)
    assert (whole.validation.photos, whole.test.photos) == (dataset.validation.photos, dataset.test.photos)
    part = part_of_pooled(dataset)
    assert part.train.photos == dataset.train.photos
    assert part.whole is not None
    assert part.whole.fingerprint == whole.fingerprint != dataset.fingerprint


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_each_photo_is_validated_on_once_and_the_classes_are_spread(dataset, folds):
    whole = crossed(dataset)
    parts = folds_of(whole, folds)
    photos = [photo for part in parts for photo in part.validation.photos]
    assert sorted(photos) == sorted(dataset.train.photos + dataset.validation.photos)
    for part in parts:
        assert not set(part.train.photos) & set(part.validation.photos)
        assert len(part.train) + len(part.validation) == len(whole.train)
        assert part.test.photos == dataset.test.photos
        assert part.whole is whole
        for label, photo in zip(part.validation.labels, part.validation.photos, strict=True):
            assert dataset.class_names[label] == photo.split("/")[0]
    for label in range(3):
        counts = [count_labels(part.validation, 3)[label] for part in parts]
        assert max(counts) - min(counts) <= 1
    sizes = [len(part.validation) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_the_folds_are_the_same_ones_each_time(dataset):
    first, again = (folds_of(crossed(dataset), 4) for _ in range(2))
    assert [part.validation.photos for part in first] == [part.validation.photos for part in again]


def test_more_folds_than_photos_are_refused(dataset):
    with pytest.raises(UserError, match=r"^Expected `folds` to be at most \d+, .*: 100$") as caught:
        folds_of(crossed(dataset), 100)
    one_line(caught)
