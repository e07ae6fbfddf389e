"""Batches: order, randomness, cache accounting, and what happens to bad photos."""

import dataclasses
import threading

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support import encode

from ktl.data.augmentation import random_crop
from ktl.data.digest import photo_digest
from ktl.data.images import BadPhoto, decode
from ktl.data.input_pipeline import PhotoCache, check_photos, evaluation_batches, training_batches, view_maker
from ktl.data.loading import load_dataset
from ktl.data.order import TrainingOrder
from ktl.data.split import MemorySource, Split
from ktl.data.views import evaluation_view, shrink
from ktl.errors import UserError

SIZE, SHRUNK = 28, 32


class CountingSource(MemorySource):
    """Photos in memory that counts how often each is read."""

    def read(self, photo):
        reads = self.__dict__.setdefault("reads", {})
        reads[photo] = reads.get(photo, 0) + 1
        return super().read(photo)


def make_split(count, *, side=40, extra=None):
    """`count` random photos, side x 2 side pixels, labelled 0, 1, 0, 1, ..."""
    generator = np.random.default_rng(0)
    encoded = {f"{i:03}": encode(generator.integers(0, 256, [side, 2 * side, 3], np.uint8)) for i in range(count)}
    encoded |= extra or {}
    labels = np.arange(len(encoded), dtype=np.int32) % 2
    return Split("train", tuple(encoded), labels, CountingSource(encoded))


def cache(memory_gib=1.0):
    return PhotoCache(memory_gib=memory_gib)


def collect(batches):
    return list(batches)


def which(split, images):
    """The index of the photo that each evaluation view shows."""
    views = [evaluation_view(decode(split.read(index)), size=SIZE) for index in range(len(split))]
    found = [[index for index, view in enumerate(views) if (view == image).all()] for image in images]
    assert all(len(indices) == 1 for indices in found)
    return [indices[0] for indices in found]


def train(split, **changes):
    settings = {
        "image_size": SIZE,
        "batch_size": 4,
        "epochs": 2,
        "seed": 7,
        "augmentation": "none",
        "views": 50,
        "flip": True,
        "cache": cache(),
        **changes,
    }
    settings.setdefault("steps", -(-len(split) // settings["batch_size"]))
    return training_batches(split, **settings)


def generator_of(split, index, view):
    """What the view of this number of a photo is drawn from."""
    digest = photo_digest(split.source.encoded[split.photos[index]])
    return np.random.default_rng([0, view, int.from_bytes(digest[:8], "big")])


def shown(split, *, views=50, **settings):
    """Photo and view of everything that is shown, in order."""
    order = TrainingOrder(len(split), **{"batch_size": 4, "epochs": 2, "seed": 7, "views": views, **settings})
    return [pair for photos, views in order for pair in zip(photos, views, strict=True)]


def test_evaluation_batches_are_the_evaluation_views_in_order():
    split = make_split(10)
    batches = evaluation_batches(split, image_size=SIZE, batch_size=4, cache=cache())
    assert len(batches) == 3
    assert batches.specs == (((None, SIZE, SIZE, 3), "uint8"), ((None,), "int32"))
    collected = collect(batches)
    assert [len(labels) for _, labels in collected] == [4, 4, 2]
    assert which(split, np.concatenate([images for images, _ in collected])) == list(range(10))
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in collected]), split.labels)


def test_batches_show_the_photos_in_their_order_and_all_are_full():
    split = make_split(10)
    batches = train(split)
    assert len(batches) == 6
    collected = collect(batches)
    assert [len(labels) for _, labels in collected] == [4] * 6
    photos = which(split, np.concatenate([images for images, _ in collected]))
    assert photos == [photo for photo, _ in shown(split, steps=3)]
    assert sorted(photos[:10]) == sorted(photos[10:20]) == list(range(10))
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in collected]), split.labels[photos])


@pytest.mark.parametrize("augmentation", ["none", "standard"])
def test_continuing_at_an_epoch_gives_the_batches_of_an_uninterrupted_run(augmentation):
    split = make_split(7)
    whole = collect(train(split, epochs=5, augmentation=augmentation))
    rest = collect(train(split, epochs=5, first_epoch=3, augmentation=augmentation))
    assert len(rest) == 4
    for (images, labels), (expected_images, expected_labels) in zip(rest, whole[6:], strict=True):
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(labels, expected_labels)


def test_batches_depend_on_the_seed_and_neither_on_the_cache_nor_on_the_threads():
    split = make_split(9)
    first = collect(dataclasses.replace(train(split, augmentation="standard"), threads=5))
    same = collect(dataclasses.replace(train(split, augmentation="standard", cache=cache(0)), threads=1))
    other = collect(train(split, augmentation="standard", seed=8))
    assert all((a[0] == b[0]).all() for a, b in zip(first, same, strict=True))
    assert any((a[0] != b[0]).any() for a, b in zip(first, other, strict=True))


def test_augmentation_of_a_photo_does_not_depend_on_the_batch_size():
    split = make_split(6)
    small, large = (collect(train(split, batch_size=size, augmentation="standard")) for size in (2, 5))
    np.testing.assert_array_equal(*(np.concatenate([images for images, _ in views])[:12] for views in (small, large)))


def test_standard_augmentation_is_a_random_crop_of_the_shrunk_photo():
    split = make_split(1)
    ((images, _),) = collect(train(split, epochs=1, augmentation="standard"))
    shrunk = shrink(decode(split.read(0)), short_side=SHRUNK)
    views = [view for _, view in shown(split, steps=1, epochs=1)]
    assert len(set(views)) == 4
    for image, view in zip(images, views, strict=True):
        expected = random_crop(shrunk, generator_of(split, 0, view), size=SIZE, flip=True)
        np.testing.assert_array_equal(image, expected)


def stained(pixels, generator):
    """A photo with a square of chance somewhere, turned over."""
    top, left = generator.integers(0, 20, 2)
    pixels[top : top + 8, left : left + 8] = generator.integers(0, 256, 3)
    return pixels[::-1]


def test_a_function_augments_every_shrunk_photo_by_photo_and_view():
    split = make_split(3)
    expected = []
    for index, view in shown(split, steps=1):
        shrunk = shrink(decode(split.read(index)), short_side=SHRUNK)
        square = stained(shrunk.copy(), generator_of(split, index, view))[:, 16:48]
        expected.append(np.asarray(Image.fromarray(square).resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
    for memory_gib in (0, 1):
        views = collect(train(split, augmentation=stained, cache=cache(memory_gib)))
        np.testing.assert_array_equal(np.concatenate([images for images, _ in views]), expected)


def test_a_function_that_gives_no_pixels_is_refused_before_training():
    with pytest.raises(ValueError, match=r"augmentation .* float64 \[32, 64, 3\] for 000$"):
        train(make_split(3), augmentation=lambda pixels, generator: pixels / 255)
    with pytest.raises(ValueError, match="one of: standard, none"):
        train(make_split(3), augmentation="heavy")


def test_a_function_that_fails_in_the_middle_of_training_names_the_photo():
    def of_dark_photos_nothing(pixels, generator):
        return pixels if pixels.mean() > 9 else pixels[0]

    split = make_split(3, extra={"night.jpg": encode(np.zeros([40, 40, 3], np.uint8))})
    with pytest.raises(ValueError, match=r"^Expected augmentation .* uint8 \[32, 3\] for night\.jpg$"):
        collect(train(split, augmentation=of_dark_photos_nothing))


def noise(pixels, generator):
    return generator.integers(0, 256, pixels.shape, np.uint8)


def pair():
    """Two photos of the same pixels in files of different bytes."""
    pixels = decode(make_split(1).read(0))
    source = MemorySource({"a": encode(pixels), "b": encode(pixels, "BMP")})
    return Split("train", ("a", "b"), np.zeros(2, np.int32), source)


@pytest.mark.parametrize("augmentation", ["standard", noise])
@pytest.mark.parametrize(("views", "different"), [(50, 16), (3, 6), (1, 2)])
def test_a_photo_is_augmented_otherwise_in_each_pass_until_its_views_come_again(augmentation, views, different):
    """Eight passes over two photos; another photo is augmented otherwise too."""
    batches = collect(train(pair(), augmentation=augmentation, views=views, steps=2))
    images = np.concatenate([images for images, _ in batches])
    assert len(images) == 16
    assert len({image.tobytes() for image in images}) == different


def views_of(split, *, count, **changes):
    """All views of all photos, [photos * count, SIZE, SIZE, 3]."""
    view = view_maker(
        split, **{"image_size": SIZE, "augmentation": "standard", "flip": True, "cache": cache(), **changes}
    )
    return np.stack([view(index, number) for index in range(len(split)) for number in range(count)])


def test_views_are_those_of_training():
    split, views = make_split(5), 3
    images = views_of(split, count=views)
    trained = np.concatenate(
        [images for images, _ in collect(train(split, epochs=3, augmentation="standard", views=views))]
    )
    for (photo, view), image in zip(shown(split, views=views, steps=2, epochs=3), trained, strict=True):
        np.testing.assert_array_equal(image, images[photo * views + view])


def test_views_stay_whatever_a_photo_is_called_and_wherever_it_is():
    split = make_split(6)
    names = {"a/cat.png": split.photos[4], "b/dog.png": split.photos[1]}
    source = MemorySource({name: split.source.encoded[photo] for name, photo in names.items()})
    other = Split("validation", tuple(names), np.zeros(2, np.int32), source)
    np.testing.assert_array_equal(views_of(other, count=2), views_of(split, count=2)[[8, 9, 2, 3]])


def test_a_photo_that_is_no_longer_what_it_was_is_refused():
    split = make_split(2)
    digests = {photo: photo_digest(split.source.encoded[photo]) for photo in split.photos}
    views_of(split, count=1, expected=digests)
    split.source.encoded["001"] = split.source.encoded["000"]
    with pytest.raises(BadPhoto, match="it has changed"):
        views_of(split, count=1, expected=digests)


def test_no_epochs_left_gives_no_batches():
    assert collect(train(make_split(3), epochs=2, first_epoch=2)) == []


PHOTO_BYTES = SHRUNK * 2 * SHRUNK * 3


@pytest.mark.parametrize(
    ("room", "cached"), [(0, 0), (PHOTO_BYTES - 1, 0), (3.5 * PHOTO_BYTES, 3), (99 * PHOTO_BYTES, 5)]
)
def test_the_cache_keeps_to_its_budget_and_the_rest_is_decoded_again(room, cached):
    split, photos = make_split(5), cache(room / 2**30)
    for _ in range(3):
        collect(evaluation_batches(split, image_size=SIZE, batch_size=2, cache=photos))
    assert len(photos) == cached
    assert photos.used_bytes == cached * PHOTO_BYTES <= photos.budget_bytes
    assert sorted(split.source.reads.values()) == [1] * cached + [3] * (5 - cached)


def test_the_cache_counts_right_under_many_threads():
    split, photos = make_split(12), cache(8 * PHOTO_BYTES / 2**30)
    barrier = threading.Barrier(8)

    def fill():
        barrier.wait()
        for index in range(len(split)):
            photos.shrunk(split, index, short_side=SHRUNK)

    threads = [threading.Thread(target=fill) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(photos) == 8
    assert photos.used_bytes == 8 * PHOTO_BYTES


def test_two_sizes_of_a_photo_and_two_sources_with_the_same_ids_are_kept_apart():
    photos, split, other = cache(), make_split(1), make_split(1, side=50)
    assert photos.shrunk(split, 0, short_side=32).pixels.shape == (32, 64, 3)
    assert photos.shrunk(split, 0, short_side=16).pixels.shape == (16, 32, 3)
    found, others = (photos.shrunk(each, 0, short_side=32) for each in (split, other))
    assert (found.pixels != others.pixels).any()
    assert found.digest == photo_digest(split.read(0)) != others.digest


def test_a_photo_that_breaks_during_training_is_named():
    split = make_split(3, extra={"broken.jpg": b"no photo"})
    with pytest.raises(UserError, match=r"^Expected photos that stay .* broken\.jpg: not an image .* the command$"):
        collect(evaluation_batches(split, image_size=SIZE, batch_size=2, cache=cache()))


# check_photos


@pytest.fixture
def folder(tmp_path):
    """20 photos of two classes, of which two are broken."""
    generator = np.random.default_rng(0)
    for name in ("ash", "birch"):
        (tmp_path / name).mkdir()
        for index in range(10):
            (tmp_path / name / f"{index}.png").write_bytes(encode(generator.integers(0, 256, [40, 40, 3], np.uint8)))
    (tmp_path / "ash" / "3.png").write_bytes(b"")
    cut = (tmp_path / "birch" / "8.png").read_bytes()[:1000]
    (tmp_path / "birch" / "8.png").write_bytes(cut)
    return tmp_path


def check(dataset, **changes):
    return check_photos(dataset, **({"image_size": SIZE, "on_bad_image": "skip", "cache": cache()} | changes))


def test_skip_leaves_the_bad_photos_out_and_lists_them(folder):
    dataset, calls = load_dataset(str(folder)), []
    checked, bad = check(dataset, progress=calls.append)
    assert sorted(photo for photo, _ in bad) == ["ash/3.png", "birch/8.png"]
    assert dict(bad)["ash/3.png"] == "the file is empty"
    kept = [photo for split in checked.splits for photo in split.photos]
    assert set(kept) == {photo for split in dataset.splits for photo in split.photos} - {"ash/3.png", "birch/8.png"}
    for split in checked.splits:
        assert [checked.class_names[label] for label in split.labels] == [photo.split("/")[0] for photo in split.photos]
    assert calls == list(range(1, 21))
    assert checked.fingerprint != dataset.fingerprint


def test_only_some_photos_are_checked(folder):
    dataset, calls = load_dataset(str(folder)), []
    checked, bad = check(dataset, only={"ash/3.png", "birch/1.png"}, progress=calls.append)
    assert [photo for photo, _ in bad] == ["ash/3.png"]
    assert sum(map(len, checked.splits)) == 19
    assert calls == [1, 2]


def test_fail_names_the_bad_photos_in_one_line(folder):
    with pytest.raises(UserError, match="2 of 20") as error:
        check(load_dataset(str(folder)), on_bad_image="fail")
    text = str(error.value)
    assert "\n" not in text
    for part in ("ash/3.png (the file is empty)", "birch/8.png", "`on_bad_image` skip"):
        assert part in text


def test_a_photo_that_has_gone_is_bad(folder):
    dataset = load_dataset(str(folder))
    (folder / "ash" / "5.png").unlink()
    _, bad = check(dataset)
    assert "ash/5.png" in dict(bad)
    assert "cannot be read" in dict(bad)["ash/5.png"]


def test_checked_photos_are_decoded_once_and_good_data_comes_back_as_it_is(folder):
    for path in ("ash/3.png", "birch/8.png"):
        (folder / path).write_bytes((folder / "ash" / "0.png").read_bytes())
    dataset, photos = load_dataset(str(folder)), cache()
    checked, bad = check(dataset, cache=photos, on_bad_image="fail")
    assert (checked, bad) == (dataset, [])
    assert len(photos) == 20
    for path in folder.rglob("*.png"):
        path.unlink()
    assert len(collect(evaluation_batches(dataset.train, image_size=SIZE, batch_size=99, cache=photos))[0][1]) == 14


def test_a_class_whose_photos_are_all_bad_gets_one_line(folder):
    for path in (folder / "birch").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of birch"):
        check(load_dataset(str(folder)))


def test_real_photos_at_full_size(assets):
    dataset = load_dataset(str(assets / "data" / "flowers17"))
    split = dataset.test.take(np.arange(0, 340, 20))
    ((images, labels),) = collect(evaluation_batches(split, image_size=224, batch_size=64, cache=cache()))
    for image, label, photo in zip(images, labels, split.photos, strict=True):
        assert photo.split("/")[1] == dataset.class_names[label]
        encoded = (assets / "data" / "flowers17" / photo).read_bytes()
        pixels = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
        np.testing.assert_array_equal(image, evaluation_view(pixels.numpy(), size=224))
