"""What the kept layer knows, against formulas and networks that are put together anew."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from support import as_dataset, start

from ktl.config.settings import RunConfig
from ktl.data.imagenet_classes import synsets
from ktl.data.input_pipeline import PhotoCache, evaluation_batches
from ktl.data.loading import load_dataset
from ktl.machine import Machine
from ktl.models.classifier import TransferClassifier
from ktl.progress import Reporter
from ktl.runs import session as session_module
from ktl.runs.attribution import (
    contributions,
    mean_activations,
    reads_imagenet_classes,
    strongest_classes,
    with_activations,
)
from ktl.runs.results import write_results
from ktl.runs.run import run
from ktl.runs.run_folder import RunFolder
from ktl.runs.session import Session
from ktl.training.evaluate import predict_probabilities

HEADS = ("kept", "kept_raw", "kept_softmax", "kept_batchnorm", "kept_beside", "kept_softmax_beside")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A classifier's .keras file: 42 x 42 pixels in 0..255 to 1000 probabilities."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((42, 42, 3))
    x = layers.Rescaling(1 / 127.5, -1)(pixels)
    x = layers.Conv2D(12, 5, strides=3, activation="relu", name="stem")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.3, name="dropout")(x)
    path = tmp_path_factory.mktemp("thousand") / "thousand.keras"
    keras.Model(pixels, layers.Dense(1000, activation="softmax", name="predictions")(x)).save(path)
    return path


@pytest.fixture
def recorded(backbone, photo_folder, tmp_path, float32_policy):
    """Settings -> a training that has ended, and the folder that it was written to."""

    def recorded(**settings):
        defaults = {"dataset": str(photo_folder), "backbone": str(backbone), "freeze_depth": "all", "cache": "off"}
        defaults |= {
            "epochs": 1,
            "batch_size": 16,
            "learning_rate": 0.01,
            "augmentation": "none",
            "precision": "float32",
        }
        config = RunConfig(**defaults | {"cache_dir": str(tmp_path / "cache")} | settings)
        training = Session(config, load_dataset(config.dataset)).prepare()
        folder = RunFolder(tmp_path / "run", config)
        write_results(folder, training, training.fit(folder.checkpoint_dir), reporter=Reporter())
        return training, folder.path

    return recorded


def read_rows(path) -> list[dict]:
    with open(path / "kept_layer.csv", newline="") as file:
        return list(csv.DictReader(file))


def kept_inputs(path, head, photos) -> np.ndarray:
    """The kept half of what the Dense layer reads, computed from the saved model's kept logits."""
    model = keras.models.load_model(path / "model.keras")
    layer = {each.name: each for each in model.layers}
    kept = keras.Model(model.input, layer["predictions"].output).predict(photos, verbose=0).astype("float64")
    norm = np.linalg.norm(kept, axis=1, keepdims=True)
    if head == "kept":
        return layer["head_normalization"].gamma.numpy() * kept / norm
    if head == "kept_beside":  # two vectors of length 1, side by side, are one of length sqrt(2)
        return layer["head_normalization"].gamma.numpy()[-1000:] * kept / norm / np.sqrt(2)
    exponentials = np.exp(kept - kept.max(axis=1, keepdims=True))
    if head == "kept_softmax":
        return exponentials / exponentials.sum(axis=1, keepdims=True)
    if head == "kept_softmax_beside":
        norm = np.linalg.norm(exponentials, axis=1, keepdims=True)
        return layer["head_normalization"].gamma.numpy()[-1000:] * exponentials / norm / np.sqrt(2)
    if head == "kept_batchnorm":
        norm = layer["head_normalization"]
        deviation = np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
        return norm.gamma.numpy() * (kept - norm.moving_mean.numpy()) / deviation + norm.beta.numpy()
    return kept


# The numbers


def test_contributions_by_hand():
    kernel = np.array([[3.0, 1.0, 2.0], [0.0, 6.0, 0.0]])
    activations = np.array([[1.0, 10.0], [2.0, 20.0], [-3.0, 0.5]])
    np.testing.assert_allclose(contributions(kernel, activations), [[1, -20], [-2, 80], [0, -1]])


def test_what_is_taken_from_the_weights_changes_no_softmax():
    generator = np.random.default_rng(0)
    kernel, read = generator.normal(size=(30, 4)), generator.normal(size=30)
    logits, against_the_mean = read @ kernel, contributions(kernel, np.tile(read, (4, 1))).sum(axis=1)
    np.testing.assert_allclose(logits - against_the_mean, (logits - against_the_mean)[0])
    np.testing.assert_allclose(against_the_mean.sum(), 0, atol=1e-12)


def test_means_are_over_the_photos_of_a_class():
    activations = np.array([[1, 2], [3, 4], [5, 9]], np.float16)
    means = mean_activations(activations, np.array([2, 0, 2]), classes=4)
    np.testing.assert_array_equal(means, [[3, 4], [0, 0], [3, 5.5], [0, 0]])
    assert means.dtype == np.float64


def table_of(entries, activations, labels, names):
    """Of a kernel that is zero but for these entries, (ImageNet class, new class) -> weight."""
    kernel = np.zeros((1000, len(names)), np.float32)
    for place, weight in entries.items():
        kernel[place] = weight
    return strongest_classes(kernel, activations, np.array(labels), names)


def test_a_table_by_hand():
    activations = np.zeros((3, 1000), np.float32)
    activations[:2, 985] = 1, 3  # daisy
    activations[:2, 153] = -4
    activations[:, 0] = 7
    rows = table_of(
        {(985, 1): 3.0, (153, 1): -0.5, (0, 0): 0.5, (0, 1): 0.5}, activations, [1, 1, 0], ["rose", "daisy"]
    )
    assert rows == [
        {  # (3 - 1.5) * 2 of 4
            "class": "daisy",
            "rank": 1,
            "synset": "n11939491",
            "imagenet_class": "daisy",
            "contribution": 3.0,
            "share": 0.75,
            "activation": 2.0,
        },
        {  # (-0.5 + 0.25) * -4
            "class": "daisy",
            "rank": 2,
            "synset": "n02085936",
            "imagenet_class": synsets()[153].name,
            "contribution": 1.0,
            "share": 0.25,
            "activation": -4.0,
        },
    ]


def test_a_table_has_the_ten_strongest_of_each_class_with_photos():
    generator = np.random.default_rng(0)
    kernel, activations = generator.normal(size=(1000, 3)), generator.normal(size=(8, 1000))
    labels = np.array([2, 0, 0, 2, 2, 0, 0, 2])
    rows = strongest_classes(kernel, activations, labels, ["a", "b", "c"])
    assert [(row["class"], row["rank"]) for row in rows] == [(name, rank) for name in "ac" for rank in range(1, 11)]
    for name, label in (("a", 0), ("c", 2)):
        expected = {}
        for number, synset in enumerate(synsets()):
            mean = sum(activations[photo, number] for photo in range(8) if labels[photo] == label) / 4
            expected[synset.id] = (kernel[number, label] - sum(kernel[number]) / 3) * mean
        best = sorted(expected, key=lambda synset: -expected[synset])[:10]
        found = [row for row in rows if row["class"] == name]
        assert [row["synset"] for row in found] == best
        np.testing.assert_allclose([row["contribution"] for row in found], [expected[synset] for synset in best])
        total = sum(value for value in expected.values() if value > 0)
        np.testing.assert_allclose([row["share"] for row in found], [expected[synset] / total for synset in best])


def test_features_beside_the_imagenet_classes_are_a_part_of_all_that_speaks():
    """A feature adds three times as much as the one ImageNet class."""
    kernel, activations = np.zeros((1002, 2)), np.zeros((1, 1002))
    kernel[0, 0], kernel[2 + 985, 0] = 6.0, 2.0
    activations[0, 0], activations[0, 2 + 985] = 1.0, 1.0
    (row,) = strongest_classes(kernel, activations, np.array([0]), ["daisy", "rose"])
    assert (row["imagenet_class"], row["contribution"], row["activation"], row["share"]) == ("daisy", 1.0, 1.0, 0.25)


# Real runs


@pytest.mark.parametrize(
    ("head", "cache"),
    [
        ("kept", "on"),
        ("kept_batchnorm", "on"),
        ("kept_beside", "on"),
        ("kept_softmax", "off"),
        ("kept_softmax_beside", "on"),
        pytest.param("kept_raw", "on", marks=pytest.mark.long),
    ],
)
def test_a_run_tells_it_and_its_probabilities_stay(recorded, head, cache):
    training, path = recorded(head=head, cache=cache)
    classifier, inputs = training.classifier, training.inputs
    test, names = inputs.dataset.test, inputs.dataset.class_names
    part = inputs.trained_part(classifier)
    assert part is (classifier.suffix if cache == "on" else classifier)
    with np.load(path / "probabilities.npz") as file:
        for split in (inputs.dataset.validation, test):
            alone = predict_probabilities(part, inputs.evaluation_batches(split))
            np.testing.assert_array_equal(file[split.name], alone.astype("float32"))
    photos = as_dataset(evaluation_batches(test, batch_size=8, image_size=42, cache=PhotoCache(memory_gib=1)))
    kept = kept_inputs(path, head, photos)
    kernel = classifier.get_layer("head_classifier").kernel.numpy()[-1000:]
    rows = read_rows(path)
    assert list(rows[0]) == ["class", "rank", "synset", "imagenet_class", "contribution", "share", "activation"]
    assert [(row["class"], row["rank"]) for row in rows] == [
        (name, str(rank)) for name in names for rank in range(1, 11)
    ]
    numbers = {synset.id: number for number, synset in enumerate(synsets())}
    for label, name in enumerate(names):
        expected = (kernel[:, label] - kernel.mean(axis=1)) * kept[test.labels == label].mean(axis=0)
        found = [row for row in rows if row["class"] == name]
        places = [numbers[row["synset"]] for row in found]
        written = np.array([float(row["contribution"]) for row in found])
        tolerance = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(written, expected[places], atol=tolerance)
        np.testing.assert_allclose(written, np.sort(expected)[:-11:-1], atol=tolerance)
        assert [row["imagenet_class"] for row in found] == [synsets()[place].name for place in places]


@pytest.mark.parametrize(
    "settings", [{"freeze_depth": "none", "precision": "mixed_bfloat16"}, {"freeze_depth": "stem"}]
)
def test_probabilities_stay_where_more_is_trained_and_in_mixed_precision(recorded, settings):
    training, path = recorded(**settings)
    inputs = training.inputs
    batches = inputs.evaluation_batches(inputs.dataset.test)
    alone = predict_probabilities(inputs.trained_part(training.classifier), batches)
    with np.load(path / "probabilities.npz") as file:
        np.testing.assert_array_equal(file["test"], alone.astype("float32"))
    assert len(read_rows(path)) == 60


def test_the_model_computes_as_the_one_that_it_is_made_of(backbone):
    classifier = TransferClassifier(str(backbone), class_names=["a", "b", "c"], freeze_depth="stem")
    behind = (2, *classifier.boundary.tensor.shape[1:])
    for model, shape in ((classifier, (2, 42, 42, 3)), (classifier.suffix, behind)):
        for xla, steps in ((True, 1), (False, 4)):
            model.compile(jit_compile=xla, steps_per_execution=steps)
            found = with_activations(classifier, model)
            assert (found.jit_compile, found.steps_per_execution) == (xla, steps)
            assert [tuple(tensor.shape) for tensor in found(np.zeros(shape, "float32"))] == [
                (2, 1000),
                (2, 3),
            ]


def test_where_there_is_nothing_to_tell_nothing_is_written(recorded):
    _, path = recorded(head="replaced")
    assert (path / "result.json").exists()
    assert not (path / "kept_layer.csv").exists()


@pytest.mark.parametrize(
    ("told", "settings"),
    [
        (True, {}),
        (True, {"head": "kept_beside"}),
        (True, {"head": "kept_softmax_beside"}),
        (False, {"head": "kept_softened"}),
        (False, {"head": "replaced_normalized"}),
        (False, {"hidden_units": 1000}),
        (False, {"head": "kept_beside", "hidden_units": 1000}),
    ],
)
def test_which_heads_have_something_to_tell(backbone, told, settings):
    classifier = TransferClassifier(str(backbone), class_names=["a", "b", "c"], **settings)
    assert reads_imagenet_classes(classifier) == told


def test_random_weights_have_nothing_to_tell(photo_folder, tmp_path):
    settings = {"backbone": "mobilenet_0.25", "weights": "random", "image_size": 32, "freeze_depth": "all"}
    run(dataset=str(photo_folder), **settings, epochs=1, cache="off", output=tmp_path, verbose=0)
    assert (tmp_path / "result.json").exists()
    assert not (tmp_path / "kept_layer.csv").exists()


@pytest.mark.parametrize("head", HEADS)
def test_a_layer_of_other_than_1000_classes_has_no_names(tiny_backbone, head):
    classifier = TransferClassifier(str(tiny_backbone), class_names=["a", "b", "c"], head=head)
    assert not reads_imagenet_classes(classifier)


def test_features_and_kept_classes_that_are_1000_together_have_no_names(tmp_path):
    pixels = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(980, 3)(pixels))
    keras.Model(pixels, layers.Dense(20, activation="softmax")(x)).save(tmp_path / "wide.keras")
    classifier = TransferClassifier(str(tmp_path / "wide.keras"), class_names=["a", "b", "c"], head="kept_beside")
    assert classifier.new_layers[-1].input.shape[-1] == 1000
    assert not reads_imagenet_classes(classifier)


def _record_on_two_devices(backbone, photos, folder):
    """In a process of its own, whose CPU is made into two."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    two = Machine(("CPU",), "float32", False, "mirrored")
    session_module.set_up_machine = lambda **settings: two
    config = RunConfig(dataset=photos, backbone=backbone, freeze_depth="all", cache="off", epochs=1, batch_size=16)
    training = Session(config, load_dataset(photos)).prepare()
    run_folder = RunFolder(folder + "/run", config)
    write_results(run_folder, training, training.fit(run_folder.checkpoint_dir), reporter=Reporter())
    inputs, part = training.inputs, training.inputs.trained_part(training.classifier)
    with training.machine.scope():
        replicas = with_activations(training.classifier, part).distribute_strategy.num_replicas_in_sync
    alone = predict_probabilities(part, inputs.evaluation_batches(inputs.dataset.test))
    np.savez(folder + "/found.npz", replicas=replicas, alone=alone)


@pytest.mark.slow
def test_two_devices_tell_it_too(backbone, photo_folder, tmp_path):
    process = start(_record_on_two_devices, str(backbone), str(photo_folder), str(tmp_path))
    process.join(120)
    assert process.exitcode == 0
    found = np.load(tmp_path / "found.npz")
    assert found["replicas"] == 2
    test = np.load(tmp_path / "run" / "probabilities.npz")["test"]
    np.testing.assert_array_equal(test, found["alone"].astype("float32"))
    assert len(read_rows(tmp_path / "run")) == 60
