"""What a classifier is trained on: photos, or features for its suffix, in the same order."""

import shutil

import numpy as np
import pytest
from support import Listener
from tiny import BATCH, SIZE, STEPS, inputs_of, make_dataset, tiny_classifier

from ktl.data.dataset import Dataset
from ktl.data.input_pipeline import PhotoCache, evaluation_batches, training_batches
from ktl.data.loading import load_dataset
from ktl.errors import UserError
from ktl.training.inputs import make_inputs
from ktl.training.options import Caching, InputOptions


@pytest.fixture
def classifier(tiny_backbone):
    return tiny_classifier(tiny_backbone)


def joined(batches):
    return [np.concatenate(column) for column in zip(*batches, strict=True)]


@pytest.mark.parametrize("augmentation", ["standard", "none"])
def test_photos_are_those_of_the_pipeline(classifier, augmentation):
    dataset = make_dataset()
    inputs = inputs_of(classifier, dataset, seed=3, augmentation=augmentation)
    assert not inputs.cached
    assert inputs.trained_part(classifier) is classifier
    common = {"image_size": SIZE, "batch_size": BATCH, "cache": PhotoCache(memory_gib=0.1)}
    expected = training_batches(
        dataset.train, epochs=3, first_epoch=1, seed=3, augmentation=augmentation, flip=True, **common
    )
    for found, wanted in zip(joined(inputs.training_batches(epochs=3, first_epoch=1)), joined(expected), strict=True):
        np.testing.assert_array_equal(found, wanted)
    expected = evaluation_batches(dataset.test, **common)
    for found, wanted in zip(joined(inputs.evaluation_batches(inputs.dataset.test)), joined(expected), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_features_are_the_prefix_of_the_photos_in_their_order(classifier, tmp_path):
    photos, features = (inputs_of(classifier, cache_dir=folder, seed=3) for folder in (None, tmp_path))
    assert features.cached
    assert features.trained_part(classifier) is classifier.suffix
    assert features.seconds > 0
    pairs = [
        (each.training_batches(epochs=2), each.evaluation_batches(each.dataset.test)) for each in (photos, features)
    ]
    for seen, cached in zip(*pairs, strict=True):
        (pixels, labels), (values, cached_labels) = joined(seen), joined(cached)
        np.testing.assert_array_equal(cached_labels, labels)
        np.testing.assert_allclose(values, classifier.prefix.predict(pixels, verbose=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cached", [False, True])
def test_an_epoch_has_every_photo_once(classifier, tmp_path, cached):
    inputs = inputs_of(classifier, cache_dir=tmp_path if cached else None, batch_size=6)
    assert inputs.steps_per_epoch == 4
    sizes = [len(labels) for _, labels in inputs.training_batches(epochs=2)]
    assert sizes == [6, 6, 6, 2] * 2
    assert inputs_of(classifier).steps_per_epoch == STEPS


def damaged(photo_folder, tmp_path) -> tuple[Dataset, str]:
    """A data set of files with a photo that is cut short, and its name."""
    shutil.copytree(photo_folder, tmp_path / "photos")
    dataset = load_dataset(str(tmp_path / "photos"))
    bad = dataset.train.photos[0]
    path = tmp_path / "photos" / bad
    path.write_bytes(path.read_bytes()[:100])
    return load_dataset(str(tmp_path / "photos")), bad


@pytest.mark.parametrize("cached", [False, True])
def test_bad_photos_are_named_and_left_out(classifier, photo_folder, tmp_path, cached):
    dataset, bad = damaged(photo_folder, tmp_path)
    settings = {"cache_dir": tmp_path / "cache" if cached else None}
    with pytest.raises(UserError, match=r"^Expected photos that can be decoded. Received: 1 of 72 that cannot"):
        inputs_of(classifier, dataset, **settings)
    for _ in range(2):  # computed, and found
        inputs = inputs_of(classifier, dataset, on_bad_image="skip", **settings)
        ((photo, reason),) = inputs.bad_photos
        assert photo == bad
        assert reason
        assert inputs.dataset.train.photos == tuple(photo for photo in dataset.train.photos if photo != bad)
        assert inputs.steps_per_epoch == -(-(len(dataset.train) - 1) // BATCH)
        labels = np.concatenate([labels for _, labels in inputs.training_batches(epochs=1)])
        assert sorted(labels) == sorted(inputs.dataset.train.labels)


@pytest.mark.parametrize(("trainings", "told"), [(4, "off: it would not pay: 0.00 GiB for about 1.0"), (5, "on: ")])
def test_a_pass_is_paid_for_by_all_trainings_that_share_it(tiny_backbone, tmp_path, trainings, told):
    """All is frozen: four views of each photo cost as much as four epochs without them."""
    classifier, listener = tiny_classifier(tiny_backbone, freeze_depth="all"), Listener()
    options = InputOptions(caching=Caching(views=4, folder=tmp_path))
    inputs = make_inputs(classifier, make_dataset(), options, epochs=1, trainings=trainings, reporter=listener)
    (message,) = [text for text in listener.messages if text.startswith("cache ")]
    assert message.startswith(f"cache {told}")
    assert inputs.cached is told.startswith("on")
