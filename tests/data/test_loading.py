"""load_dataset: digits, folders, CSV files, TFDS; splits, fingerprints and the line that each mistake gets."""

import io
import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ktl.data import dataset as splits
from ktl.data.images import decode
from ktl.data.input_pipeline import PhotoCache, check_photos
from ktl.data.loading import load_dataset
from ktl.data.tfds import FACTS, WAYS_ON
from ktl.errors import UserError


def photo_bytes(value, form="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (6, 5), (value % 256, value // 256, 7)).save(file, form)
    return file.getvalue()


def write_classes(root, counts):
    """<root>/<class>/<n>.png with distinct contents for {class: number of photos}."""
    for offset, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            (root / name / f"{index:03}.png").write_bytes(photo_bytes(1000 * offset + index))
    return root


def counts(split, classes):
    return np.bincount(split.labels, minlength=classes).tolist()


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    assert "Received: " in text
    return text


# Digits


def test_digits_are_scikit_learns_in_256_greys():
    from sklearn.datasets import load_digits

    dataset, reference = load_dataset("digits"), load_digits()
    assert dataset.class_names == tuple("0123456789")
    assert dataset.flip is False
    assert sum(map(len, dataset.splits)) == 1797
    split = dataset.test
    for index in (0, 100, len(split) - 1):
        number = int(split.photos[index].split("/")[1].removesuffix(".png"))
        assert split.labels[index] == reference.target[number]
        grey = decode(split.read(index))
        np.testing.assert_allclose(grey[..., 0], reference.images[number] * 255 / 16, atol=0.5)


# Splits


def test_carving_is_stratified_disjoint_and_always_the_same(tmp_path):
    root = write_classes(tmp_path / "leaves", {"ash": 50, "birch": 10, "cedar": 3})
    dataset, again = load_dataset(str(root)), load_dataset(str(root))
    assert counts(dataset.test, 3) == [10, 2, 1]
    assert counts(dataset.validation, 3) == [4, 1, 1]
    assert counts(dataset.train, 3) == [36, 7, 1]
    photos = [photo for split in dataset.splits for photo in split.photos]
    assert len(set(photos)) == len(photos) == 63
    for split, other in zip(dataset.splits, again.splits, strict=True):
        assert split.photos == other.photos
        for photo, label in zip(split.photos, split.labels, strict=True):
            assert photo.startswith(dataset.class_names[label] + "/")
    assert dataset.fingerprint == again.fingerprint
    assert dataset.name == "leaves"


def test_carving_depends_on_the_seed_constant(tmp_path, monkeypatch):
    root = write_classes(tmp_path, {"ash": 50, "birch": 50})
    first = load_dataset(str(root))
    monkeypatch.setattr(splits, "SPLIT_SEED", splits.SPLIT_SEED + 1)
    assert load_dataset(str(root)).test.photos != first.test.photos


def test_photos_that_join_one_class_leave_the_others_as_they_were(tmp_path):
    root = write_classes(tmp_path, {"ash": 20, "birch": 20})
    before = load_dataset(str(root))
    for index in range(20, 40):
        (root / "ash" / f"{index:03}.png").write_bytes(photo_bytes(index))
    after = load_dataset(str(root))
    assert [p for p in after.test.photos if p[0] == "b"] == [p for p in before.test.photos if p[0] == "b"]


@pytest.mark.parametrize("validation", ["validation", "val", "valid", "Val"])
def test_given_splits_are_kept(tmp_path, validation):
    for part, count in (("train", 4), (validation, 2), ("test", 3)):
        write_classes(tmp_path / part, {"ash": count, "birch": count})
    dataset = load_dataset(str(tmp_path))
    assert [len(split) for split in dataset.splits] == [8, 4, 6]
    assert dataset.validation.photos[0] == f"{validation}/ash/000.png"
    assert dataset.train.read(5) == (tmp_path / "train" / "birch" / "001.png").read_bytes()


def test_a_missing_validation_split_leaves_test_alone(tmp_path):
    for part, count in (("train", 10), ("test", 3)):
        write_classes(tmp_path / part, {"ash": count, "birch": count})
    dataset = load_dataset(str(tmp_path))
    assert [len(split) for split in dataset.splits] == [18, 2, 6]
    assert all(photo.startswith("test/") for photo in dataset.test.photos)
    assert all(photo.startswith("train/") for photo in dataset.validation.photos)


def test_a_class_may_be_called_train(tmp_path):
    root = write_classes(tmp_path, {"train": 5, "plane": 5, "test": 5})
    assert load_dataset(str(root)).class_names == ("plane", "test", "train")


def test_a_link_to_nowhere_is_a_photo_that_cannot_be_read(tmp_path):
    root = write_classes(tmp_path, {"ash": 5, "birch": 5})
    (root / "ash" / "gone.jpg").symlink_to(tmp_path / "moved.jpg")
    dataset = load_dataset(str(root))
    checked, bad = check_photos(dataset, image_size=32, on_bad_image="skip", cache=PhotoCache(memory_gib=0))
    assert [photo for photo, _ in bad] == ["ash/gone.jpg"]
    assert sum(map(len, checked.splits)) == 10


def test_a_class_may_begin_with_underscores(tmp_path):
    root = write_classes(tmp_path, {"__background__": 5, "birch": 5})
    assert load_dataset(str(root)).class_names == ("__background__", "birch")


def test_what_is_no_photo_is_passed_over(tmp_path):
    root = write_classes(tmp_path, {"ash": 5, "birch": 5, ".cache": 2, "__MACOSX": 2})
    (root / "ash" / "2019.jpg").mkdir()
    (root / "ash" / "notes.txt").write_text("tall")
    (root / "ash" / ".hidden.png").write_bytes(photo_bytes(3))
    (root / "ash" / "LOUD.JPEG").write_bytes(photo_bytes(4, "JPEG"))
    dataset = load_dataset(str(root))
    assert dataset.class_names == ("ash", "birch")
    assert sum(map(len, dataset.splits)) == 11


@pytest.mark.parametrize(("name", "shown"), [(b"caf\xe9.png", "caf"), (b"two\nlines.png", "two"), (b"cr\r.png", "cr")])
def test_names_that_no_file_of_results_could_hold_are_refused(tmp_path, name, shown):
    root = write_classes(tmp_path, {"ash": 5, "birch": 5})
    (root / "ash" / os.fsdecode(name)).write_bytes(photo_bytes(3))
    with pytest.raises(UserError, match=rf"Expected names in UTF-8, of one line each\. Received: .*{shown}.*Rename it"):
        load_dataset(str(root))


def test_the_fingerprint_changes_with_bytes_labels_and_splits(tmp_path):
    root = write_classes(tmp_path, {"ash": 5, "birch": 5})
    prints = {load_dataset(str(root)).fingerprint}
    os.utime(root / "ash" / "000.png", ns=(1, 1))
    prints.add(load_dataset(str(root)).fingerprint)
    (root / "ash" / "000.png").rename(root / "birch" / "100.png")
    prints.add(load_dataset(str(root)).fingerprint)
    (root / "birch").rename(root / "beech")
    prints.add(load_dataset(str(root)).fingerprint)
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("layout", "received"),
    [
        ({}, "with no folder in it"),
        ({"ash": 5, "birch": 0}, "none in"),
        ({"ash": 5}, "classes in .* Received: ash"),
        ({"ash": 5, "birch": 2}, "class 'birch'"),
        ({"test/ash": 5, "test/birch": 5}, "Received: test only"),
        ({"train/ash": 5, "train/birch": 5, "val/ash": 1, "valid/ash": 1}, "two, valid among them"),
        ({"train/ash": 5, "train/birch": 5, "test/cedar": 1}, "none of cedar"),
    ],
)
def test_a_folder_that_cannot_be_used_gets_one_line(tmp_path, layout, received):
    root = write_classes(tmp_path / "leaves", layout)
    root.mkdir(exist_ok=True)
    with pytest.raises(UserError, match=received) as error:
        load_dataset(str(root))
    one_line(error)


# CSV


def write_csv(folder, text, encoding="utf-8"):
    write_classes(folder / "photos", {"a": 12})
    path = folder / "leaves.csv"
    path.write_bytes(text.encode(encoding))
    return path


def rows(*lines):
    return "path,label,split\n" + "\n".join(lines) + "\n"


def test_csv_with_splits(tmp_path):
    text = rows(
        "photos/a/000.png,oak,train",
        'photos/a/001.png,"ash, white",Train',
        "photos/a/002.png,oak,val",
        "photos/a/003.png,oak,test",
    )
    path = write_csv(tmp_path, text, "utf-8-sig")
    dataset = load_dataset(str(path))
    assert dataset.class_names == ("ash, white", "oak")
    assert dataset.train.photos == ("photos/a/000.png", "photos/a/001.png")
    assert dataset.train.labels.tolist() == [1, 0]
    assert dataset.validation.photos == ("photos/a/002.png",)
    assert dataset.test.read(0) == (tmp_path / "photos/a/003.png").read_bytes()


def test_csv_without_splits_is_carved(tmp_path):
    lines = [f"photos/a/{index:03}.png,{'oak' if index < 6 else 'ash'}" for index in range(12)]
    dataset = load_dataset(str(write_csv(tmp_path, "path,label\n" + "\n".join(lines))))
    assert [counts(split, 2) for split in dataset.splits] == [[4, 4], [1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("text", "received"),
    [
        ("", "path,label or path,label,split"),
        ("file;label\n", "Received: file;label"),
        ("path,label,weight\n", "path,label,weight"),
        (rows("photos/a/000.png,oak,training"), "'training' in line 2"),
        (rows("photos/a/000.png,oak"), "'' in line 2"),
        (rows("photos/a/000.png,,train"), "line 2 of .* without them"),
        (rows("photos/a/000.png,oak,train,7"), "more in line 2"),
        (rows("photos/a/000.png,oak,train", "photos/a/000.png,oak,test"), "again in line 3"),
        (rows("photos/a/900.png,oak,train", "x.png,ash,test"), "2 that do not exist there: photos/a/900.png, x.png"),
        (rows("photos/a/000.png,oak,test"), "test only"),
        (rows(), "nothing only"),
        (rows('photos/a/000.png,"oak'), "line 1 or later of .* unexpected end"),
    ],
)
def test_a_csv_that_cannot_be_used_gets_one_line(tmp_path, text, received):
    with pytest.raises(UserError, match=received) as error:
        load_dataset(str(write_csv(tmp_path, text)))
    one_line(error)


def test_a_csv_in_another_encoding_gets_one_line(tmp_path):
    with pytest.raises(UserError, match="UTF-8") as error:
        load_dataset(str(write_csv(tmp_path, rows("photos/a/000.png,ch\xeane,train"), "latin-1")))
    one_line(error)


# Names


@pytest.mark.parametrize(
    ("name", "received"),
    [
        ("stanford_dog", "Did you mean: stanford_dogs"),
        ("no such thing", "which is none of them"),
        ("huggingface:mnist", "none of them"),
        ("./leaves", "does not exist"),
        ("leaves.csv", "leaves.csv: it does not exist"),
        ("mnist:9.9.9", "version 9.9.9"),
        ("imdb_reviews", "with label, text|with text, label|imdb_reviews, with"),
    ],
)
def test_an_unknown_name_gets_one_line(tmp_path, monkeypatch, name, received):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=received) as error:
        load_dataset(name, data_dir=str(tmp_path))
    one_line(error)


def test_an_existing_folder_wins_over_tfds_but_not_over_the_named_data_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "cifar10", {"ash": 5, "birch": 5})
    (tmp_path / "digits").mkdir()
    assert load_dataset("cifar10").class_names == ("ash", "birch")
    assert load_dataset("digits").class_names == tuple("0123456789")


# TensorFlow Datasets

BUILDER = """
import io
import sys
import numpy as np
import tensorflow_datasets as tfds

def encoded(number):
    # A PNG whose bytes the reader of the prepared files must give back exactly.
    from PIL import Image
    file = io.BytesIO()
    Image.fromarray(np.full([4, 4, 3], number, np.uint8)).save(file, "PNG", compress_level=number % 9)
    return file.getvalue()

class TinyLeaves(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "image/filename": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["ash", "birch"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        ranges = {"train": (0, 40), "test": (40, 50), "extra": (50, 51)}
        return {split: self._generate_examples(*numbers) for split, numbers in ranges.items()}

    def _generate_examples(self, start, stop):
        for number in range(start, stop):
            yield number, {
                "image": io.BytesIO(encoded(number)), "image/filename": f"leaf_{number}.png", "label": number % 2
            }

TinyLeaves(data_dir=sys.argv[1]).download_and_prepare()
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder in which another process, whose builder this one does not know, prepared the data set tiny_leaves."""
    folder = tmp_path_factory.mktemp("prepared")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", BUILDER, str(folder)], check=True, env=environment)
    return folder


@pytest.mark.parametrize("name", ["tiny_leaves", "tiny_leaves:1.2.0"])
def test_a_prepared_data_set_is_read_without_its_builder(prepared, name):
    dataset = load_dataset(name, data_dir=str(prepared))
    assert dataset.class_names == ("ash", "birch")
    assert [counts(split, 2) for split in dataset.splits] == [[18, 18], [2, 2], [5, 5]]
    for split in dataset.splits:
        for index, photo in enumerate(split.photos):
            number = int(photo.split("leaf_")[1].removesuffix(".png"))
            assert split.labels[index] == number % 2
            pixels = decode(split.read(index))
            assert pixels.shape == (4, 4, 3)
            assert (pixels == number).all()
            assert (number >= 40) == (split.name == "test")


def test_the_photos_of_a_prepared_data_set_are_those_of_tfds_in_its_order(prepared):
    import tensorflow_datasets as tfds

    builder = tfds.builder("tiny_leaves", data_dir=str(prepared))
    examples = tfds.as_numpy(builder.as_dataset(split="test", decoders={"image": tfds.decode.SkipDecoding()}))
    expected = [("test/" + e["image/filename"].decode(), e["image"], e["label"]) for e in examples]
    test = load_dataset("tiny_leaves", data_dir=str(prepared)).test
    assert [(p, test.read(i), test.labels[i]) for i, p in enumerate(test.photos)] == expected


def test_the_fingerprint_of_a_tfds_data_set_is_stable_across_processes(prepared):
    code = "import sys, ktl.data.loading as d; print(d.load_dataset('tiny_leaves', data_dir=sys.argv[1]).fingerprint)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "5"}
    ran = subprocess.run(
        [sys.executable, "-c", code, str(prepared)], check=True, env=environment, capture_output=True, text=True
    )
    assert ran.stdout.split()[-1] == load_dataset("tiny_leaves", data_dir=str(prepared)).fingerprint


def test_a_damaged_prepared_file_gets_one_line(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    path = next(tmp_path.rglob("*train.tfrecord*"))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match="damaged or missing") as error:
        load_dataset("tiny_leaves", data_dir=str(tmp_path))
    one_line(error)


@pytest.fixture
def unreachable():
    """The address of a server that refuses every connection."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/leaves.tar"


def define_builder(class_name, *, split_generators, urls=(), instructions=None):
    """A builder class that TFDS then knows by name, as an installed one."""
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=2)}
    members = {
        "__module__": __name__,
        "VERSION": tfds.core.Version("1.0.0"),
        "MANUAL_DOWNLOAD_INSTRUCTIONS": instructions,
        "url_infos": dict.fromkeys(urls),
        "_info": lambda self: tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features)),
        "_split_generators": lambda self, dl_manager: split_generators(dl_manager),
        "_generate_examples": lambda self: (),
    }
    type(class_name, (tfds.core.GeneratorBasedBuilder,), members)


def test_no_connection_names_the_place_and_the_ways_on_at_once(tmp_path, unreachable):
    define_builder("FarLeaves", split_generators=lambda dl: dl.download(unreachable), urls=[unreachable])
    with pytest.raises(UserError, match="no connection") as error:
        load_dataset("far_leaves", data_dir=str(tmp_path))
    text = one_line(error)
    assert unreachable in text
    assert WAYS_ON in text
    for way in ("--data-dir", "folder of photos", "--dataset digits"):
        assert way in WAYS_ON


def test_a_connection_lost_while_downloading_is_no_bug_either(tmp_path):
    def lose(dl_manager):
        raise ConnectionResetError("Connection reset by peer")

    define_builder("LostLeaves", split_generators=lose)
    with pytest.raises(UserError, match="no connection") as error:
        load_dataset("lost_leaves", data_dir=str(tmp_path))
    one_line(error)


def test_a_bug_in_a_builder_keeps_its_traceback(tmp_path):
    define_builder("WrongLeaves", split_generators=lambda dl_manager: {}["leaves"])
    with pytest.raises(KeyError):
        load_dataset("wrong_leaves", data_dir=str(tmp_path))


def test_a_manual_download_gives_its_instructions(tmp_path):
    define_builder("HandLeaves", split_generators=lambda dl: {}, instructions="Ask the\n  botanist.")
    with pytest.raises(UserError, match="Ask the botanist") as error:
        load_dataset("hand_leaves", data_dir=str(tmp_path))
    assert str(tmp_path / "downloads" / "manual") in one_line(error)


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setitem(sys.modules, "cv2", None)
    define_builder("DrawnLeaves", split_generators=lambda dl_manager: tfds.core.lazy_imports.cv2)
    with pytest.raises(UserError, match=r"no cv2. pip install 'ktl\[cub\]'") as error:
        load_dataset("drawn_leaves", data_dir=str(tmp_path))
    one_line(error)


def test_the_facts_are_about_builders_that_exist():
    import tensorflow_datasets as tfds

    import ktl.data.caltech256  # noqa: F401  (registers its builder)

    assert set(FACTS) <= set(tfds.list_builders(with_community_datasets=False))
    for name, facts in FACTS.items():
        features = tfds.builder(name, data_dir="/nonexistent").info.features
        assert {"image", "label", facts.class_name or "label"} <= set(features)
    assert "ImageNet" in FACTS["stanford_dogs"].notice


# Real photos


def test_flowers17(assets):
    dataset = load_dataset(str(assets / "data" / "flowers17"))
    assert [len(split) for split in dataset.splits] == [680, 340, 340]
    assert counts(dataset.train, 17) == [40] * 17
    assert dataset.class_names[0] == "bluebell"


def test_oxford_pets37_carves_a_validation_photo_of_each_breed(assets):
    dataset = load_dataset(str(assets / "data" / "oxford_pets37"))
    assert [counts(split, 37) for split in dataset.splits] == [[4] * 37, [1] * 37, [5] * 37]
