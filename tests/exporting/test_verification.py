"""What is found when an export is compared with what is expected of it."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from ktl.data.views import view_of
from ktl.errors import UserError
from ktl.exporting.record import left_out
from ktl.exporting.subject import Evidence
from ktl.exporting.verification import compare, probabilities_for
from ktl.inference.predictor import load_predictor


@pytest.fixture(scope="module")
def photos(photo_folder):
    return sorted(photo_folder.rglob("*.*"))[::5]


@pytest.fixture(scope="module")
def expected(tiny_exports, photos):
    predictor = load_predictor(tiny_exports / "keras")
    return predictor.classify(np.stack([view_of(photo.read_bytes(), size=42) for photo in photos]))


def test_what_is_as_expected_differs_in_nothing(tiny_exports, photos, expected):
    labels = np.arange(len(photos)) % 20
    found = compare(tiny_exports / "keras", Evidence(photos, expected, labels))
    assert (found["photos"], found["undecoded"], found["labels_changed"]) == (len(photos), 0, 0)
    assert found["largest_difference"] < 1e-5
    assert found["top1"] == found["run_top1"] == np.mean(expected.argmax(axis=1) == labels)


def test_what_differs_is_counted(tiny_exports, photos, expected):
    other = expected.astype(float)
    other[[2, 7]] = np.roll(other[[2, 7]], 1, axis=1)
    other[7] = np.eye(20)[(expected[7].argmax() + 1) % 20]
    labels = expected.argmax(axis=1)
    found = compare(tiny_exports / "keras", Evidence(photos, other, labels))
    assert found["labels_changed"] == 2
    assert found["top1"] == 1
    assert found["run_top1"] == pytest.approx(1 - 2 / len(photos))
    assert found["most_different"] == str(photos[7])
    assert found["largest_difference"] == pytest.approx(np.abs(other - expected).max(), abs=1e-5)


def test_without_labels_the_expected_classes_count_as_true(tiny_exports, photos, expected):
    other = np.roll(expected, 1, axis=1)
    found = compare(tiny_exports / "keras", Evidence(photos, other, None))
    assert (found["top1"], found["run_top1"]) == (0, 1)


def test_an_answer_that_is_no_number_differs(tiny_exports, photos, expected):
    other = expected.copy()
    other[2] = np.nan
    found = compare(tiny_exports / "keras", Evidence(photos, other, None))
    assert found["photos"] == len(photos)
    assert not found["largest_difference"] < np.inf


@pytest.fixture
def undecodable(tmp_path):
    """Pillow reads BMP files that are compressed; TensorFlow does not."""
    file = io.BytesIO()
    Image.new("P", (9, 9)).save(file, "BMP")
    path = tmp_path / "photo.bmp"
    path.write_bytes(file.getvalue()[:30] + b"\1" + file.getvalue()[31:])
    return path


@pytest.fixture
def upright_by_xmp(photos, tmp_path):
    """Pillow turns a JPEG whose orientation XMP alone states; a SavedModel does not."""
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    jpeg = next(photo for photo in photos if photo.suffix == ".jpg").read_bytes()
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + jpeg[2:])
    return path


def test_photos_that_a_saved_model_sees_otherwise_are_counted_named_and_left_out(
    tiny_exports, photos, expected, undecodable, upright_by_xmp
):
    """The others keep their names, labels and answers."""
    other = expected.copy()
    other[1] = np.roll(other[1], 1)  # as other pixels have another answer
    other[6] = 0.9 * other[6] + 0.1 / 20
    mixed = [photos[0], upright_by_xmp, photos[2], undecodable, *photos[4:]]
    names = ["a", "turned\n.jpg", "c", "gone.bmp", *map(str, photos[4:])]
    labels = expected.argmax(axis=1)
    labels[[1, 3, 5]] += 1  # two of photos that are left out
    found = compare(tiny_exports / "savedmodel", Evidence(mixed, other, labels % 20, names))
    count = len(photos) - 2
    assert (found["photos"], found["undecoded"], found["decoded_otherwise"]) == (count, 1, 1)
    assert found["decoded_otherwise_photos"] == [r"turned\n.jpg"]
    assert found["undecoded_photos"] == ["gone.bmp"]
    assert found["most_different"] == str(photos[6])
    assert found["largest_difference"] == pytest.approx(np.abs(other[6] - expected[6]).max(), abs=1e-5)
    assert found["top1"] == found["run_top1"] == pytest.approx(1 - 1 / count)
    assert found["labels_changed"] == 0
    refused, otherwise = left_out(found)
    assert refused == f"not compared: 1 of {len(photos)} photos, which the SavedModel refuses: gone.bmp"
    assert otherwise.startswith(
        f"not compared: 1 of {len(photos)} photos, which the SavedModel decodes to other pixels"
    )
    assert otherwise.endswith(r": turned\n.jpg")


def test_photos_of_which_a_saved_model_decodes_none_are_refused(tiny_exports, undecodable, upright_by_xmp, expected):
    refusal = (
        r"photos that TensorFlow decodes as Pillow does\. Received: 1 that it refuses and 1 that it decodes otherwise"
    )
    with pytest.raises(UserError, match=refusal):
        compare(tiny_exports / "savedmodel", Evidence([undecodable, upright_by_xmp], expected[:2], None))


def test_the_first_photos_that_are_left_out_are_named():
    found = {"photos": 1, "undecoded": 5, "undecoded_photos": ["a", "b", "c"]}
    assert left_out(found) == ["not compared: 5 of 6 photos, which the SavedModel refuses: a, b, c and 2 more"]
    assert left_out({"photos": 6, "undecoded": 0}) == []


@pytest.mark.parametrize("count", [1, 32, 33])
def test_batches_come_back_in_their_order(tiny_exports, photos, expected, count):
    chosen = np.arange(count) % len(photos)
    received = probabilities_for(tiny_exports / "keras", [photos[index] for index in chosen])
    np.testing.assert_allclose(received, expected[chosen], atol=1e-6)
