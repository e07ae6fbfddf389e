"""Dataset.from_tfds: prepared data sets, and what each way of not getting one is told."""

import contextlib
import io
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
from support import count_labels, encode, environment_of, one_line, start

from ktl.data.dataset import Dataset
from ktl.data.images import decode
from ktl.data.tfds import WAYS_ON
from ktl.data.tfds_facts import FACTS
from ktl.errors import UserError


def _prepare(folder, file_format):
    """Prepares the data set tiny_leaves, whose builder this process alone knows."""
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "image/filename": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=["ash", "birch"]),
    }

    def examples(start, stop):
        for number in range(start, stop):
            # A PNG whose bytes the reader of the prepared files must give back exactly.
            encoded = encode(np.full([4, 4, 3], number, np.uint8), compress_level=number % 9)
            named = {"image/filename": f"leaf_{number}.png", "label": number % 2}
            yield number, {"image": io.BytesIO(encoded), **named}

    class TinyLeaves(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            ranges = {"train": (0, 40), "test": (40, 50), "extra": (50, 51)}
            return {split: examples(*numbers) for split, numbers in ranges.items()}

        def _generate_examples(self):
            raise NotImplementedError

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        TinyLeaves(data_dir=str(folder)).download_and_prepare(file_format=file_format)


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def prepared(request, tmp_path_factory):
    """A folder in which another process prepared the data set tiny_leaves, in each format that is read."""
    if request.param == "tfrecord":
        pytest.importorskip("tensorflow", reason="TFDS writes these with TensorFlow")
    else:
        pytest.importorskip("array_record", reason="TFDS has it on Linux alone")
    folder = tmp_path_factory.mktemp("prepared")
    process = start(_prepare, folder, request.param)
    process.join()
    assert process.exitcode == 0
    return folder


@pytest.mark.parametrize("name", ["tiny_leaves", "tiny_leaves:1.2.0"])
def test_a_prepared_data_set_is_read_without_its_builder(prepared, name):
    dataset = Dataset.from_tfds(name, prepared)
    assert dataset.class_names == ("ash", "birch")
    assert [count_labels(split, 2) for split in dataset.splits] == [[18, 18], [2, 2], [5, 5]]
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
    reading = {"split": "test", "decoders": {"image": tfds.decode.SkipDecoding()}}
    if builder.info.file_format.value == "array_record":
        examples = builder.as_data_source(**reading)
    else:
        examples = tfds.as_numpy(builder.as_dataset(**reading))
    expected = [("test/" + e["image/filename"].decode(), e["image"], e["label"]) for e in examples]
    test = Dataset.from_tfds("tiny_leaves", prepared).test
    assert [(p, test.read(i), test.labels[i]) for i, p in enumerate(test.photos)] == expected


def _write_fingerprint(folder, path):
    path.write_text(Dataset.from_tfds("tiny_leaves", folder).fingerprint)


def test_the_fingerprint_of_a_tfds_data_set_is_stable_across_processes(prepared, tmp_path):
    """The other one has other hashes of texts."""
    start(_write_fingerprint, prepared, tmp_path / "fingerprint").join()
    assert (tmp_path / "fingerprint").read_text() == Dataset.from_tfds("tiny_leaves", prepared).fingerprint


def test_a_damaged_prepared_file_gets_one_line(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    path = next(tmp_path.rglob("*-train.*"))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match="damaged or missing") as error:
        Dataset.from_tfds("tiny_leaves", tmp_path)
    one_line(error)


def test_a_prepared_file_that_lost_whole_records_gets_one_line(prepared, tmp_path):
    """Its end looks like that of a file with fewer photos."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    for few, many in zip(tmp_path.rglob("*-test.*"), tmp_path.rglob("*-train.*"), strict=True):
        shutil.copy(few, many)
    with pytest.raises(UserError, match="Received: 10 of the 40 photos of train") as error:
        Dataset.from_tfds("tiny_leaves", tmp_path)
    one_line(error)


READ = """
import hashlib, json, sys
from ktl.data.loading import load_dataset

dataset = load_dataset("tiny_leaves", data_dir=sys.argv[1])
found = [dataset.fingerprint, dataset.class_names]
for split in dataset.splits:
    photos = [hashlib.sha256(split.read(index)).hexdigest() for index in range(len(split))]
    found.append([split.photos, split.labels.tolist(), photos])
assert sys.argv[2] == "tensorflow" or "tensorflow" not in sys.modules
print(json.dumps(found))
"""


@pytest.mark.slow
def test_without_tensorflow_it_is_the_same_data_set(prepared):
    """Ids, labels, classes, and photos to the bit."""
    found = {}
    for backend in ("tensorflow", "jax"):
        command = [sys.executable, "-c", READ, str(prepared), backend]
        found[backend] = subprocess.run(
            command, env=environment_of(backend), capture_output=True, text=True, timeout=300
        )
        assert found[backend].returncode == 0, found[backend].stderr
    assert found["jax"].stdout == found["tensorflow"].stdout


def test_without_tensorflow_nothing_is_prepared(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    define_builder("LateLeaves", split_generators=lambda dl_manager: {})
    with pytest.raises(UserError, match="needs TensorFlow") as error:
        Dataset.from_tfds("late_leaves", tmp_path)
    assert str(tmp_path) in one_line(error)


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
    with pytest.raises(UserError, match="Connection refused") as error:
        Dataset.from_tfds("far_leaves", tmp_path)
    text = one_line(error)
    assert unreachable in text
    assert WAYS_ON in text
    for way in ("data_dir", "folder of photos", "data set digits"):
        assert way in WAYS_ON


def test_a_connection_lost_while_downloading_is_no_bug_either(tmp_path):
    def lose(dl_manager):
        raise ConnectionResetError("Connection reset by peer")

    define_builder("LostLeaves", split_generators=lose)
    with pytest.raises(UserError, match="Received: Connection reset by peer") as error:
        Dataset.from_tfds("lost_leaves", tmp_path)
    one_line(error)


def test_a_bug_in_a_builder_keeps_its_traceback(tmp_path):
    define_builder("WrongLeaves", split_generators=lambda dl_manager: {}["leaves"])
    with pytest.raises(KeyError):
        Dataset.from_tfds("wrong_leaves", tmp_path)


def test_a_manual_download_gives_its_instructions(tmp_path):
    define_builder("HandLeaves", split_generators=lambda dl: {}, instructions="Ask the\n  botanist.")
    with pytest.raises(UserError, match="Ask the botanist") as error:
        Dataset.from_tfds("hand_leaves", tmp_path)
    assert str(tmp_path / "downloads" / "manual") in one_line(error)


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setitem(sys.modules, "cv2", None)
    define_builder("DrawnLeaves", split_generators=lambda dl_manager: tfds.core.lazy_imports.cv2)
    with pytest.raises(UserError, match=r"no cv2. pip install 'ktl\[cub\]'") as error:
        Dataset.from_tfds("drawn_leaves", tmp_path)
    one_line(error)


def test_the_facts_are_about_builders_that_exist():
    import tensorflow_datasets as tfds

    import ktl.data.caltech256  # noqa: F401  (registers its builder)

    assert set(FACTS) <= set(tfds.list_builders(with_community_datasets=False))
    for name, facts in FACTS.items():
        features = tfds.builder(name, data_dir="/nonexistent").info.features
        assert {"image", "label", facts.class_name or "label"} <= set(features)
    assert "ImageNet" in FACTS["stanford_dogs"].notice
