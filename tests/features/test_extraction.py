"""The pass: its numbers are the prefix's, and nothing stale, partial or foreign is ever read."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
from stored_features import (
    compute,
    digests,
    everything,
    expected_features,
    extraction_of,
    read_features,
    stored,
)
from support import one_line, start
from tiny import SIZE, tiny_classifier

from ktl.backends.engines import BATCH
from ktl.backends.tensorflow_engine import TensorFlowEngine
from ktl.data.input_pipeline import PhotoCache
from ktl.data.loading import load_dataset
from ktl.errors import UserError
from ktl.features.extraction import Views, extract
from ktl.features.store import FeatureStore
from ktl.models.backbones import build_backbone


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


def test_one_pass_writes_what_the_prefix_gives_at_every_boundary(classifier, dataset, store):
    depths = ["stem_relu", "block_relu", "all"]
    extractions = [extraction_of(classifier, dataset, depth) for depth in depths]
    compute(store, *extractions, shard_rows=30)
    for extraction, depth in zip(extractions, depths, strict=True):
        found = stored(store, extraction)
        for split in dataset.splits:
            values, labels = read_features(found[split.name])
            np.testing.assert_allclose(values, expected_features(classifier, depth, split), rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(labels, split.labels)


def test_what_is_there_is_not_computed_again(classifier, dataset, store):
    seen = []
    extraction = extraction_of(classifier, dataset)
    compute(store, extraction, progress=seen.append)
    total = sum(map(len, dataset.splits))
    assert seen[-1] == total
    seen.clear()
    compute(store, extraction, extraction_of(classifier, dataset, "all"), progress=seen.append)
    assert seen[-1] == total  # of the other alone
    seen.clear()
    compute(store, extraction, progress=seen.append)
    assert seen == []


@dataclasses.dataclass(frozen=True)
class Watched(TensorFlowEngine):
    """Counts the photos of each batch that it computes."""

    batches: list[int] = dataclasses.field(default_factory=list)

    def compile(self, pixels, outputs):
        forward = super().compile(pixels, outputs)

        def watched(batch):
            self.batches.append(len(batch))
            return forward(batch)

        return watched


def test_a_photos_features_do_not_depend_on_its_neighbours(classifier, dataset, tmp_path):
    """Bit by bit, in every place of a batch and in a batch of its own. A network so small would round alike in batches
    of any size; larger ones do not, so that the size of each batch is looked at too."""
    views = Views(SIZE, "standard", 2)
    whole = dataclasses.replace(extraction_of(classifier, dataset, "all", views=views), engine=Watched())
    together, shifted, alone = (FeatureStore(tmp_path / name) for name in ("together", "shifted", "alone"))
    compute(together, whole)
    compute(shifted, whole, shard_rows=37)
    compute(alone, whole, shard_rows=1)
    for split in dataset.splits:
        expected = everything(stored(together, whole)[split.name])
        for store in (shifted, alone):
            np.testing.assert_array_equal(everything(stored(store, whole)[split.name]), expected)
    assert len(whole.engine.batches) > 100
    assert set(whole.engine.batches) == {BATCH}


def test_batches_of_another_size_that_are_computed_two_at_a_time_keep_their_places(classifier, dataset, tmp_path):
    """As on a GPU; the rows of one engine are not taken for those of the other."""
    plain = extraction_of(classifier, dataset, "all")
    large = dataclasses.replace(plain, engine=TensorFlowEngine(batch=100, calls=2))
    assert large.key != plain.key
    stores = FeatureStore(tmp_path / "plain"), FeatureStore(tmp_path / "large")
    for store, extraction in zip(stores, (plain, large), strict=True):
        compute(store, extraction)
    for split in dataset.splits:
        pair = (everything(stored(s, e)[split.name]) for s, e in zip(stores, (plain, large), strict=True))
        np.testing.assert_allclose(*pair, rtol=1e-5, atol=1e-6)


def test_photos_of_the_same_bytes_share_a_row(classifier, photo_folder, store, tmp_path):
    shutil.copytree(photo_folder, tmp_path / "photos")
    photos = sorted((tmp_path / "photos" / "class0").iterdir())
    for number in range(5):
        shutil.copy(photos[0], photos[0].with_name(f"copy{number}{photos[0].suffix}"))
    dataset, done = load_dataset(str(tmp_path / "photos")), []
    assert sum(map(len, dataset.splits)) == 77
    compute(store, extraction_of(classifier, dataset), progress=done.append)
    assert done[-1] == 72
    assert sum(len(values) for values in stored(store, extraction_of(classifier, dataset)).values()) == 77


def test_a_photo_that_changes_before_it_is_seen_is_named(classifier, photo_folder, store, tmp_path):
    shutil.copytree(photo_folder, tmp_path / "photos")
    dataset = load_dataset(str(tmp_path / "photos"))
    extraction, known = extraction_of(classifier, dataset), digests(store, dataset)
    photo = dataset.train.photos[3]
    (tmp_path / "photos" / photo).write_bytes(dataset.train.read(0))
    with pytest.raises(UserError, match=f"stay as they are .* Received: {photo} ") as caught:
        extract(store, [extraction], dataset, known, photo_cache=PhotoCache(memory_gib=0))
    one_line(caught)
    compute(store, extraction)
    assert stored(store, extraction) is not None


def test_float16_halves_the_disk_and_costs_a_thousandth(classifier, dataset, store):
    sizes = {}
    for dtype in ("float32", "float16"):
        extraction = extraction_of(classifier, dataset, dtype=dtype)
        compute(store, extraction)
        values, _ = read_features(stored(store, extraction)["test"])
        assert values.dtype == dtype
        np.testing.assert_allclose(
            values, expected_features(classifier, "stem_relu", dataset.test), rtol=2e-3, atol=1e-3
        )
        sizes[dtype] = sum(file.stat().st_size for file in (store.folder / extraction.key).glob("*.shard"))
        assert extraction.nbytes < sizes[dtype] < 1.01 * extraction.nbytes
    assert sizes["float16"] / sizes["float32"] == pytest.approx(0.5, abs=0.01)


def test_the_size_counts_the_views_of_training_photos_alone(classifier, dataset):
    one, three = (extraction_of(classifier, dataset, views=Views(SIZE, "standard", count)) for count in (1, 3))
    row = np.prod(classifier.boundary.tensor.shape[1:]) * 4
    assert three.nbytes - one.nbytes == 2 * len(dataset.train) * row
    assert one.nbytes == sum(map(len, dataset.splits)) * row


def test_more_views_cost_those_that_are_new(classifier, dataset, store):
    done = []
    for count, new in ((2, 2), (4, 2), (3, 0)):
        done.clear()
        compute(store, extraction_of(classifier, dataset, views=Views(SIZE, "standard", count)), progress=done.append)
        others = len(dataset.validation) + len(dataset.test)
        assert (done or [0])[-1] == new * len(dataset.train) + (others if count == 2 else 0)


def test_views_have_a_code_each_that_says_how_the_photo_is_seen(dataset):
    views = Views(SIZE, "standard", 3, flip=True)
    assert (views.codes(dataset.train), views.codes(dataset.test)) == ([2, 4, 6], [0])
    assert Views(SIZE, "standard", 3).codes(dataset.train) == [1, 3, 5]
    assert Views(SIZE).codes(dataset.train) == [0]


# The key


def test_the_key_changes_with_everything_that_a_photos_features_depend_on(classifier, dataset, monkeypatch):
    def key(**changes):
        return extraction_of(classifier, dataset, **changes).key

    keys = [key(), key(dtype="float16"), key(depth="block_relu"), key(jit_compile=True)]
    kernel = classifier.get_layer("stem").kernel
    kernel.assign(np.nextafter(keras.ops.convert_to_numpy(kernel), np.float32(9)))
    keys.append(key())
    mean = classifier.get_layer("stem_norm").moving_mean
    mean.assign(mean + 1e-3)
    keys.append(key())
    monkeypatch.setattr("ktl.data.augmentation.CROP_AREA", (0.5, 1.0))
    keys.append(key())
    monkeypatch.setattr(keras, "__version__", "99")
    keys.append(key())
    assert len(set(keys)) == len(keys) == 8
    assert all(len(each) == 32 for each in keys)


def test_the_key_takes_no_notice_of_photos_and_views(classifier, dataset, photo_folder, tmp_path):
    shutil.copytree(photo_folder / "class0", tmp_path / "photos" / "a")
    shutil.copytree(photo_folder / "class1", tmp_path / "photos" / "b")
    other = load_dataset(str(tmp_path / "photos"))
    wanted = [(dataset, Views(SIZE)), (other, Views(SIZE)), (dataset, Views(SIZE, "standard", 4, flip=True))]
    assert len({extraction_of(classifier, photos, views=views).key for photos, views in wanted}) == 1


def test_the_key_takes_no_notice_of_weights_behind_the_boundary(classifier, dataset):
    before = extraction_of(classifier, dataset).key
    kernel = classifier.get_layer("block").kernel
    kernel.assign(kernel + 1e-3)
    assert extraction_of(classifier, dataset).key == before


@pytest.mark.parametrize("depth", ["stem_relu", "block_relu"])
def test_the_key_takes_no_notice_of_what_is_frozen(classifier, dataset, depth):
    before = extraction_of(classifier, dataset, depth).key
    for other in ("none", "depthwise_relu", "all"):
        classifier.freeze(other)
        assert extraction_of(classifier, dataset, depth).key == before, other
    for layer in classifier.layers:
        layer.trainable = False
    assert extraction_of(classifier, dataset, depth).key == before


def test_the_key_does_not_change_with_the_seed_of_training(tiny_backbone, dataset):
    keys = set()
    for seed in (1, 2):
        classifier = tiny_classifier(tiny_backbone, freeze_depth="all", seed=seed)
        assert any(isinstance(layer, keras.layers.Dropout) for layer in classifier.prefix.layers)
        keys.add(extraction_of(classifier, dataset).key)
    assert len(keys) == 1


def _write_key(backbone, photos, path):
    build_backbone("mobilenet_0.25", weights="random", image_size=32)  # counts up Keras' names
    path.write_text(extraction_of(tiny_classifier(backbone), load_dataset(photos)).key)


def test_the_key_is_the_same_in_another_process(tiny_backbone, photo_folder, classifier, dataset, tmp_path):
    start(_write_key, str(tiny_backbone), str(photo_folder), tmp_path / "key").join()
    assert (tmp_path / "key").read_text() == extraction_of(classifier, dataset).key


# Several processes, and a full disk


def _compute_once(folder, backbone, photos, log):
    dataset = load_dataset(photos)
    with open(log, "a") as file:
        extraction = extraction_of(tiny_classifier(backbone), dataset)
        done = []
        compute(FeatureStore(folder), extraction, progress=done.append, shard_rows=100)
        file.write("computed\n" if len(done) > 2 else "waited\n")


def test_processes_that_need_the_same_rows_compute_them_once(tiny_backbone, photo_folder, tmp_path):
    arguments = (str(tmp_path / "store"), str(tiny_backbone), str(photo_folder), str(tmp_path / "log"))
    for process in [start(_compute_once, *arguments) for _ in range(2)]:
        process.join(300)
        assert process.exitcode == 0
    assert len(list((tmp_path / "store").rglob("*.shard"))) == 1


def test_a_full_disk_leaves_no_half_shard(classifier, dataset, store):
    def full(done):
        if done:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        compute(store, extraction_of(classifier, dataset), progress=full)
    assert not [path for path in store.folder.rglob("*") if path.suffix in (".partial", ".claim", ".shard")]
