"""Photos that are in an earlier split too, against copies made here and Python's own numbers."""

import io
import itertools

import imagehash
import numpy as np
import pytest
from PIL import Image
from support import encode

from ktl.data import duplicates
from ktl.data.dataset import make_dataset
from ktl.data.duplicates import NEAR, Duplicate, count, find_duplicates, read_duplicates, unlike_others
from ktl.data.images import decode
from ktl.data.listing import Listing
from ktl.data.loading import load_dataset
from ktl.data.split import MemorySource, Split
from ktl.files import write_csv

ORIENTATION = 0x0112


def scene(seed: int, size=(300, 220)) -> Image.Image:
    """Made up, with large and small things in it as photos have them."""
    generator = np.random.default_rng(seed)
    layers = [
        Image.fromarray(generator.integers(0, 256, (side, side, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        for side in (3, 6, 12, 40)
    ]
    weights = (0.4, 0.3, 0.2, 0.1)
    return Image.fromarray(
        sum(w * np.asarray(layer, float) for w, layer in zip(weights, layers, strict=True)).astype(np.uint8)
    )


def dataset(train: dict[str, bytes], test: dict[str, bytes], validation: dict[str, bytes] | None = None):
    """Of these photos, two classes in turn; a validation split of its own."""
    validation = validation or {"v0": b"", "v1": b""}
    source = MemorySource({**train, **test, **validation})

    def split(name, photos):
        return Split(name, tuple(photos), np.arange(len(photos), dtype=np.int32) % 2, source)

    splits = {
        "train": split("train", train),
        "validation": split("validation", validation),
        "test": split("test", test),
    }
    return make_dataset(Listing("made up", splits, ("a", "b")))


def bits(image: Image.Image) -> int:
    return int(str(imagehash.phash(image)), 16)


def apart(first: Image.Image, second: Image.Image) -> int:
    return (bits(first) ^ bits(second)).bit_count()


COPIES = {
    "quality": lambda image: encode(image, "JPEG", quality=30),
    "format": lambda image: encode(image, "PNG"),
    "half the size": lambda image: encode(image.resize((150, 110)), "JPEG", quality=85),
    "twice the size": lambda image: encode(image.resize((600, 440)), "JPEG", quality=85),
    "grey": lambda image: encode(image.convert("L"), "PNG"),
    "one edge cut": lambda image: encode(image.crop((3, 0, 300, 220)), "JPEG", quality=90),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_found(copy):
    train = {f"train{seed}": encode(scene(seed), "JPEG", quality=95) for seed in range(5)}
    (found,) = find_duplicates(dataset(train, {"other": encode(scene(99), "JPEG"), "copy": COPIES[copy](scene(3))}))
    assert (found.photo, found.other, found.exact) == ("copy", "train3", False)
    assert found.distance == pytest.approx(apart(scene(3), Image.open(io.BytesIO(COPIES[copy](scene(3))))), abs=2)
    assert found.distance <= NEAR


def test_what_is_mirrored_or_another_is_not_found():
    train = {f"train{seed}": encode(scene(seed), "JPEG") for seed in range(20)}
    mirrored = scene(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    test = {f"test{seed}": encode(scene(seed), "JPEG") for seed in range(20, 40)} | {
        "mirrored": encode(mirrored, "JPEG")
    }
    assert find_duplicates(dataset(train, test)) == ()


def test_the_same_bytes_are_exact_and_the_first_of_several_is_named():
    same = encode(scene(1), "JPEG", quality=80)
    train = {
        "other": encode(scene(0), "JPEG"),
        "near": encode(scene(1), "JPEG", quality=85),
        "first": same,
        "second": same,
    }
    found = find_duplicates(dataset(train, {"near too": encode(scene(1), "JPEG", quality=70), "exact": same}))
    assert [(one.photo, one.other, one.exact) for one in found] == [
        ("near too", "near", False),
        ("exact", "first", True),
    ]
    assert found[1].distance == 0
    assert count(found) == {"exact": 1, "near": 1}


def test_validation_photos_are_compared_too():
    """With training photos, and test photos with them: of equally near ones the training photo is named."""

    def shown(seed, quality):
        return encode(scene(seed), "JPEG", quality=quality)

    found = find_duplicates(
        dataset(
            train={"t1": shown(1, 90), "t2": shown(2, 90), "t3": shown(3, 90)},
            validation={"v1": shown(1, 90), "v4": shown(4, 90), "v5": shown(5, 90)},
            test={"like v4": shown(4, 60), "is v5": shown(5, 90), "is t1 and v1": shown(1, 90), "new": shown(6, 90)},
        )
    )
    assert [(one.photo, one.split, one.other, one.other_split, one.exact) for one in found] == [
        ("like v4", "test", "v4", "validation", False),
        ("is v5", "test", "v5", "validation", True),
        ("is t1 and v1", "test", "t1", "train", True),
        ("v1", "validation", "t1", "train", True),
    ]
    assert count(found) == {"exact": 2, "near": 1}
    assert count(found, split="validation") == {"exact": 1, "near": 0}
    unlike = unlike_others(found, ["new", "is v5", "v1", "newer"])
    assert unlike.tolist() == [True, False, True, True]
    assert unlike_others(found, ["v1", "v4"], split="validation").tolist() == [False, True]


def test_the_file_of_version_0_1_is_read(tmp_path):
    (tmp_path / "old.csv").write_text("test,train,distance,exact\na.jpg,b.jpg,0,1\nc.jpg,d.jpg,5,0\n")
    assert read_duplicates(tmp_path / "old.csv") == (
        Duplicate("a.jpg", "test", "b.jpg", "train", 0, True),
        Duplicate("c.jpg", "test", "d.jpg", "train", 5, False),
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_is_seen_as_it_is_shown(orientation):
    """Stored turned with a note of how to turn it back, as cameras do."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that undoes what the note asks for
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = scene(7).transpose(Image.Transpose(back[orientation])) if orientation > 1 else scene(7)
    turned = encode(stored, "JPEG", quality=90, exif=exif)
    np.testing.assert_allclose(decode(turned), np.asarray(scene(7)), atol=25)
    (found,) = find_duplicates(
        dataset({"a": encode(scene(7), "JPEG"), "b": encode(scene(8), "JPEG")}, {"turned": turned})
    )
    assert (found.other, found.exact) == ("a", False)


@pytest.mark.parametrize("size", [(160, 120), (500, 375), (1600, 1200)])
def test_the_small_decoding_hardly_changes_the_hash(size, monkeypatch):
    """Of JPEGs alone: the training photos are the same pixels, which no JPEG is made of."""
    monkeypatch.setattr(duplicates, "NEAR", 64)
    jpegs = [encode(scene(seed, size), "JPEG", quality=90) for seed in range(4)]
    whole = [encode(decode(jpeg)) for jpeg in jpegs]
    found = find_duplicates(dataset(dict(zip("abcd", whole, strict=True)), dict(zip("efgh", jpegs, strict=True))))
    assert [one.other for one in found] == list("abcd")
    assert max(one.distance for one in found) <= 4


def test_photos_that_cannot_be_read_are_left_out():
    good = encode(scene(1), "JPEG")
    broken = {"empty": b"", "text": b"no photo", "cut": good[: len(good) // 2]}
    test = {f"test {name}": encoded for name, encoded in broken.items()}
    (found,) = find_duplicates(dataset({**broken, "good": good}, {**test, "good too": good}))
    assert (found.photo, found.other) == ("good too", "good")
    assert find_duplicates(dataset({"empty": b"", "text": b"no"}, {"good": good})) == ()


def test_tiny_pictures_are_found_by_their_bytes_alone():
    tiny = scene(1).resize((40, 31))
    other = encode(tiny, "BMP")
    found = find_duplicates(
        dataset(
            {"a": encode(tiny, "PNG"), "b": encode(scene(2), "JPEG")}, {"same": encode(tiny, "PNG"), "other": other}
        )
    )
    assert [(one.photo, one.exact) for one in found] == [("same", True)]


@pytest.mark.parametrize("block", [1, 7, 64, 10**6])
def test_the_nearest_is_that_of_plain_counting(block, monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK", block)
    monkeypatch.setattr(duplicates, "NEAR", 64)
    train = {f"train{seed}": scene(seed, (40, 40)) for seed in (*range(13), 5)}
    test = {f"test{seed}": scene(seed, (40, 40)) for seed in range(20, 31)}
    train |= {"again": train["train3"]}
    test |= {"copy": train["train3"].resize((80, 80)), "blank": Image.new("RGB", (40, 40))}
    encoded = ({name: encode(photo) for name, photo in photos.items()} for photos in (train, test))
    found = find_duplicates(dataset(*encoded))
    assert [one.photo for one in found] == list(test)
    for one in found:
        distances = {name: apart(test[one.photo], photo) for name, photo in train.items()}
        assert one.distance == min(distances.values())
        assert one.other == min(distances, key=distances.__getitem__)  # the first of several


@pytest.mark.parametrize("split", ["train", "test"])
def test_without_photos_that_can_be_hashed_there_is_nothing_to_compare(split):
    good, bad = {"a": encode(scene(0), "JPEG"), "b": encode(scene(1), "JPEG")}, {"c": b"", "d": b"no photo"}
    assert find_duplicates(dataset(*((bad, good) if split == "train" else (good, bad)))) == ()


def test_names_survive_the_file(tmp_path):
    found = (
        Duplicate('a,"b"\n.jpg', "test", "ö\n😀.png", "train", 0, True),
        Duplicate("1", "validation", " 2 ", "train", 6, False),
    )
    write_csv(tmp_path / "duplicates.csv", duplicates.COLUMNS, duplicates.rows(found))
    assert read_duplicates(tmp_path / "duplicates.csv") == found


def test_progress_counts_up_to_all_photos():
    done = []
    find_duplicates(
        dataset({"a": encode(scene(0), "JPEG"), "b": b""}, {"c": encode(scene(1), "JPEG")}), progress=done.append
    )
    assert done == [1, 2, 3, 4, 5]


def test_digits_are_not_taken_for_one_another():
    assert find_duplicates(load_dataset("digits")) == ()


@pytest.mark.slow
def test_of_real_photos_each_pair_shows_one_photo_twice(assets):
    """In colours, which the hash does not look at."""
    flowers = load_dataset(str(assets / "data/flowers17"))
    found = [one for one in find_duplicates(flowers) if (one.split, one.other_split) == ("test", "train")]
    assert count(found) == {"exact": 0, "near": 14}

    def colours(photo):
        image = Image.open(assets / "data/flowers17" / photo).convert("RGB").resize((32, 32))
        return np.asarray(image, float).ravel()

    alike = [np.corrcoef(colours(one.photo), colours(one.other))[0, 1] for one in found]
    assert min(alike) > 0.85
    others = [
        np.corrcoef(colours(one.photo), colours(two.other))[0, 1] for one, two in itertools.permutations(found, 2)
    ]
    assert np.quantile(others, 0.99) < 0.85
