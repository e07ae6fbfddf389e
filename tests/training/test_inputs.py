"""What a classifier is trained on: photos, or features for its suffix, in the same order."""

import dataclasses
import shutil

import numpy as np
import pytest
from support import Listener
from tiny import BATCH, CLASSES, PHOTOS, SIZE, STEPS, inputs_of, make_dataset, tiny_classifier

from ktl.data.dataset import Dataset
from ktl.data.input_pipeline import PhotoCache, evaluation_batches, training_batches
from ktl.data.loading import load_dataset
from ktl.errors import UserError
from ktl.studies.design import part_of
from ktl.studies.records import Part
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
        dataset.train,
        steps=STEPS,
        epochs=3,
        first_epoch=1,
        seed=3,
        augmentation=augmentation,
        views=4,
        flip=True,
        **common,
    )
    for found, wanted in zip(joined(inputs.training_batches(epochs=3, first_epoch=1)), joined(expected), strict=True):
        np.testing.assert_array_equal(found, wanted)
    expected = evaluation_batches(dataset.test, **common)
    for found, wanted in zip(joined(inputs.evaluation_batches(inputs.dataset.test)), joined(expected), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("augmentation", ["standard", "none"])
@pytest.mark.parametrize("part", [False, True])
def test_features_are_the_prefix_of_the_photos_in_their_order(classifier, tmp_path, augmentation, part):
    """The same views too: nothing that is trained depends on what is cached."""
    dataset = part_of(make_dataset(), Part(0.6), draw=0) if part else make_dataset()
    settings = {"seed": 3, "augmentation": augmentation, "views": 3, "least_steps": 9}
    photos, features = (inputs_of(classifier, dataset, cache_dir=cache, **settings) for cache in (None, tmp_path))
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
def test_an_epoch_has_full_batches_and_no_fewer_steps_than_the_floor(classifier, tmp_path, cached):
    cache = tmp_path if cached else None
    for least, steps in ((1, 4), (4, 4), (9, 9)):
        inputs = inputs_of(classifier, cache_dir=cache, batch_size=6, least_steps=least)
        assert (inputs.steps_per_epoch, inputs.photos_per_epoch) == (steps, 6 * steps)
        assert [len(labels) for _, labels in inputs.training_batches(epochs=2)] == [6] * 2 * steps
    assert inputs_of(classifier).steps_per_epoch == STEPS
    assert InputOptions().steps_per_epoch(68) == 32


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
        photos = len(inputs.dataset.train)
        assert sorted(labels[:photos]) == sorted(inputs.dataset.train.labels)


@pytest.mark.parametrize(("trainings", "told"), [(4, "off: it would not pay: "), (5, "on: ")])
def test_a_pass_is_paid_for_by_all_trainings_that_share_it(tiny_backbone, tmp_path, trainings, told):
    """All is frozen: four views of each photo cost as much as four epochs without them."""
    classifier, listener = tiny_classifier(tiny_backbone, freeze_depth="all"), Listener()
    options = InputOptions(least_steps=1, batch_size=PHOTOS, views=4, caching=Caching(folder=tmp_path))
    inputs = make_inputs(classifier, make_dataset(), options, epochs=1, trainings=trainings, reporter=listener)
    (message,) = [text for text in listener.messages if text.startswith("cache ")]
    assert message.startswith(f"cache {told}")
    assert inputs.cached is told.startswith("on")


@pytest.mark.parametrize(("least_steps", "told"), [(1, "off"), (5, "on")])
def test_what_pays_is_counted_in_passes_and_not_in_epochs(tiny_backbone, tmp_path, least_steps, told):
    classifier, listener = tiny_classifier(tiny_backbone, freeze_depth="all"), Listener()
    options = InputOptions(batch_size=PHOTOS, least_steps=least_steps, caching=Caching(folder=tmp_path))
    make_inputs(classifier, make_dataset(), options, epochs=1, reporter=listener)
    (message,) = [text for text in listener.messages if text.startswith("cache ")]
    assert message.startswith(f"cache {told}")


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(("of_dataset", "flip", "mirrored"), [(True, "auto", 1), (False, "auto", 0), (True, False, 0)])
def test_flips_can_be_turned_off_alone(tiny_backbone, tmp_path, cached, of_dataset, flip, mirrored):
    """Photos that get brighter from left to right, where crops do so too."""
    ramp = np.broadcast_to(np.linspace(0, 255, SIZE).astype(np.uint8)[None, :, None], (SIZE, SIZE, 3))
    ramps = np.stack([ramp] * 12)
    ramps[:, 0, 0, 0] = np.arange(12)  # photos of the same bytes have the same views
    others = {name: (ramps[:6], np.arange(6)) for name in ("validation", "test")}
    dataset = Dataset.from_arrays(ramps, np.arange(12) % 6, class_names=CLASSES, **others)
    dataset = dataclasses.replace(dataset, flip=of_dataset)
    classifier = tiny_classifier(tiny_backbone, freeze_depth=1)
    settings = {"augmentation": "standard", "flip": flip, "views": 8}
    inputs = inputs_of(classifier, dataset, cache_dir=tmp_path if cached else None, **settings)
    seen = np.concatenate([x for x, _ in inputs.training_batches(epochs=8)])
    pixels = np.concatenate([x for x, _ in inputs_of(classifier, dataset, **settings).training_batches(epochs=8)])
    share = np.mean(pixels[:, 20, 0, 0] > pixels[:, 20, -1, 0])
    assert (0.3 < share < 0.7) if mirrored else share == 0
    expected = classifier.prefix.predict(pixels, verbose=0) if cached else pixels
    np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-5)


def test_flips_have_three_values():
    with pytest.raises(UserError, match="Expected `flip` to be True or False or auto"):
        InputOptions(flip="off")


def test_views_have_a_bound():
    assert InputOptions(views=2**31 - 1).training_views == 2**31 - 1
    with pytest.raises(UserError, match=r"^Expected `views` to be at most 2147483647\. Received: 1000000000000$"):
        InputOptions(views=10**12)
