"""Dataset.from_arrays: pixels come back bit by bit, and the line that each mistake gets."""

import io

import keras
import numpy as np
import pytest
from PIL import Image
from support import count_labels, encode, one_line

from ktl.data.dataset import Dataset
from ktl.data.images import decode
from ktl.errors import UserError


def random_photos(count, *, side=9, seed=0):
    return np.random.default_rng(seed).integers(0, 256, [count, side, side + 3, 3], np.uint8)


LABELS = [0, 1] * 10


def test_pixels_and_labels_come_back_as_they_were_given():
    images, (more, most) = random_photos(20), (random_photos(4, seed=1), random_photos(6, side=14, seed=2))
    dataset = Dataset.from_arrays(images, LABELS, validation=(more, [0, 1, 1, 0]), test=(most, [1] * 5 + [0]))
    assert dataset.class_names == ("0", "1")
    for split, expected in zip(dataset.splits, (images, more, most), strict=True):
        np.testing.assert_array_equal([decode(split.read(index)) for index in range(len(split))], expected)
    assert dataset.train.labels.tolist() == LABELS
    assert dataset.test.labels.tolist() == [1] * 5 + [0]
    ids = [photo for split in dataset.splits for photo in split.photos]
    assert len(set(ids)) == 30


def test_missing_splits_are_carved_and_carry_their_pixels():
    images = random_photos(20)
    dataset = Dataset.from_arrays(images, np.array(LABELS)[:, np.newaxis], class_names=["ash", "birch"])
    assert dataset.class_names == ("ash", "birch")
    assert [count_labels(split, 2) for split in dataset.splits] == [[7, 7], [1, 1], [2, 2]]
    for split in dataset.splits:
        for index, photo in enumerate(split.photos):
            number = int(photo.removeprefix("train/"))
            np.testing.assert_array_equal(decode(split.read(index)), images[number])
            assert split.labels[index] == LABELS[number]


def test_photos_may_differ_in_size_and_be_pil_images_of_any_mode(tmp_path):
    """Turned, half transparent or grey, they look as they do when they are read from a file."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(encode(random_photos(1)[0], "JPEG", exif=exif))
    shades = np.arange(40, dtype=np.uint8).reshape(5, 8)
    images = [
        random_photos(1)[0],
        random_photos(1, side=30)[0],
        Image.open(turned),
        Image.fromarray(shades),
        Image.new("RGBA", (4, 2), (255, 0, 0, 0)),
        keras.ops.convert_to_tensor(random_photos(1)[0]),
    ]
    dataset = Dataset.from_arrays(images, list("aababb"), validation=(images, list("aababb")), test=(images, ["a"] * 6))
    assert dataset.class_names == ("a", "b")
    pixels = [decode(dataset.train.read(index)) for index in range(6)]
    np.testing.assert_array_equal(pixels[0], images[0])
    np.testing.assert_array_equal(pixels[1], images[1])
    np.testing.assert_array_equal(pixels[2], decode(turned.read_bytes()))
    assert pixels[2].shape == (12, 9, 3)
    np.testing.assert_array_equal(pixels[3], np.repeat(shades[..., np.newaxis], 3, axis=2))
    assert pixels[4].min() == 255
    np.testing.assert_array_equal(pixels[5], images[5])


def test_a_class_is_its_name_in_either_form_of_unicode():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    labels = [composed, decomposed, "tea", "tea"] * 5
    for class_names in (None, [composed, "tea"], [decomposed, "tea"]):
        dataset = Dataset.from_arrays(random_photos(20), labels, class_names=class_names)
        assert dataset.class_names == (composed, "tea")
        assert sum(count_labels(split, 2)[0] for split in dataset.splits) == 10


def test_a_pil_image_is_not_changed():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(encode(random_photos(1)[0], "JPEG", exif=exif)))
    Dataset.from_arrays([image] * 8, [0, 1] * 4)
    assert image.size == (12, 9)


def test_the_fingerprint_changes_with_pixels_labels_and_names():
    images, other, flat = random_photos(20), random_photos(20), random_photos(20)
    other[3, 0, 0, 0] ^= 1
    prints = {
        Dataset.from_arrays(images, LABELS).fingerprint,
        Dataset.from_arrays(other, LABELS).fingerprint,
        Dataset.from_arrays(flat.reshape(20, 12, 9, 3), LABELS).fingerprint,
        Dataset.from_arrays(images, LABELS[::-1]).fingerprint,
        Dataset.from_arrays(images, LABELS, class_names=("a", "b")).fingerprint,
    }
    assert len(prints) == 5
    assert Dataset.from_arrays(images.copy(), LABELS).fingerprint in prints


@pytest.mark.parametrize(
    ("changes", "received"),
    [
        ({"images": random_photos(20) / 255}, r"images\[0\] is float64 \[9, 12, 3\]"),
        ({"images": random_photos(20)[..., 0]}, r"images\[0\] is uint8 \[9, 12\]"),
        ({"images": random_photos(20).transpose(0, 3, 1, 2)}, r"images\[0\] is uint8 \[3, 9, 12\]"),
        ({"images": [*random_photos(19), random_photos(1)[0, :0]]}, r"images\[19\] is uint8 \[0, 12, 3\]"),
        ({"images": [[None, []]]}, r"images\[0\] is object"),
        ({"images": 5, "labels": 5}, "images to be an array or a list of photos. Received: int"),
        ({"labels": 5}, r"Received: int64 \[\]"),
        ({"labels": [0, "0"] * 10}, "labels to be numbers, or to be class names. Received: both"),
        ({"images": random_photos(19)}, "as many labels as images. Received: 20 for 19"),
        ({"labels": np.eye(2)[LABELS]}, r"Received: float64 \[20, 2\]"),
        ({"labels": [0.0, 1.0] * 10}, r"Received: float64 \[20\]"),
        ({"labels": [0, 2] * 10}, "none of 1"),
        ({"labels": [0, -1] * 10}, "Received: -1 in the train split"),
        ({"labels": [0, 10**9] * 10}, "without gaps.* Received: 1000000000"),
        ({"labels": [0, 1] * 9 + [0, 2], "class_names": ("a", "b")}, "labels from 0 to 1, .* Received: 2 in the train"),
        ({"labels": ["a", "c"] * 10, "class_names": ("a", "b")}, "'c' in the train split"),
        ({"class_names": {"a", "b"}}, "in an order. Received: {'"),
        ({"class_names": {"a": 0, "b": 1}}, "in an order. Received: {'a': 0, 'b': 1}"),
        ({"test": ([], [])}, "`test` images to have photos. Received: none"),
        ({"labels": ["a", "b\nc"] * 10}, "of one line each"),
        ({"class_names": ("a", "a")}, "`class_names` to be different strings"),
        ({"class_names": "ab"}, "`class_names` to be different strings, in an order. Received: 'ab'"),
        ({"class_names": 5}, "`class_names` to be different strings, in an order. Received: 5"),
        ({"labels": [[0], [1, 2]] * 10}, "labels of one shape. Received: "),
        ({"class_names": (0, 1)}, "`class_names` to be different strings"),
        ({"images": random_photos(0), "labels": []}, "images to have photos. Received: none"),
        ({"test": random_photos(3)}, r"`test` to be a pair \(images, labels\). Received: ndarray"),
        ({"test": (random_photos(3), ["a"] * 3)}, "both numbers and class names"),
        ({"test": (random_photos(3), [0] * 2)}, "as many `test` labels as images"),
        ({"validation": (random_photos(3), [0, 1, 7])}, "none of 2, 3, 4, 5, 6"),
    ],
)
def test_arrays_that_cannot_be_used_get_one_line(changes, received):
    given = {"images": random_photos(20), "labels": LABELS} | changes
    with pytest.raises(UserError, match=received) as error:
        Dataset.from_arrays(**given)
    one_line(error)


def test_a_pil_image_of_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "cut.jpg"
    whole = encode(random_photos(1, side=64)[0], "JPEG")
    path.write_bytes(whole[: len(whole) // 2])
    with Image.open(path) as cut, pytest.raises(UserError, match=r"images\[1\] \(image file is truncated") as error:
        Dataset.from_arrays([random_photos(1)[0], cut], [0, 1])
    one_line(error)
