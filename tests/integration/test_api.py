"""What `import ktl` offers: names and arguments that people rely on, and the README's lines on real photos."""

import ast
import inspect
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import ktl

ARGUMENTS = {
    "Caching": "mode dtype folder limit_gib",
    "Dataset": "name class_names train validation test flip notice fingerprint found whole",
    "Recipe": "optimizer learning_rate head_multiplier warmup_epochs weight_decay label_smoothing",
    "ScaledUnitNormalization": "scale per_channel trainable epsilon kwargs",
    "Split": "name photos labels source",
    "TransferClassifier": "backbone class_names head scale hidden_units freeze_depth weights image_size seed name",
    "TransferHyperModel": "config dataset values trainings reporter",
    "build_backbone": "name weights image_size",
    "build_network": "backbone classes freeze_depth settings",
    "export": "classifier output run photos format quantization calibrate verbose",
    "find_boundaries": "output",
    "fit": "classifier dataset epochs batch_size least_steps recipe patience objective augmentation flip views "
    "class_weight callbacks caching on_bad_image jit_compile seed verbose",
    "freeze": "network freeze_depth",
    "load": "path",
    "load_classifier": "path",
    "load_dataset": "name data_dir",
    "predict": "classifier photos verbose",
    "prepare_process": "",
    "run": "config output callbacks class_weight augmentation verbose settings",
    "search": "config output overwrite role chief verbose settings",
    "serve": "path host port allow_origins verbose",
    "study": "config output overwrite verbose settings",
    "write_report": "folders output",
}
"""Public callable -> names of its arguments, in order."""

DEPRECATED = {"build_network", "freeze", "load_classifier"}
OTHERS = {"BACKBONES", "HEADS", "RunConfig", "SearchConfig", "StudyConfig", "UserError"}
VERSION_0_1 = {
    "BACKBONES",
    "HEADS",
    "RunConfig",
    "ScaledUnitNormalization",
    "SearchConfig",
    "StudyConfig",
    "TransferHyperModel",
    "UserError",
    "build_backbone",
    "build_network",
    "export",
    "find_boundaries",
    "freeze",
    "load_classifier",
    "load_dataset",
    "run",
    "search",
    "study",
    "write_report",
}


def test_the_public_names():
    assert set(ktl.__all__) == set(dir(ktl)) == set(ARGUMENTS) | OTHERS
    assert set(ktl.__all__) >= VERSION_0_1, "what version 0.1 had is still there"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ktl.nothing  # noqa: B018


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_arguments(name):
    assert list(inspect.signature(getattr(ktl, name)).parameters) == ARGUMENTS[name].split()


@pytest.mark.parametrize("name", sorted({*ARGUMENTS, *OTHERS} - {"BACKBONES", "HEADS", *DEPRECATED}))
def test_each_has_an_example(name):
    assert re.search(r">>> |ktl\.\w+\(", inspect.getdoc(getattr(ktl, name)))


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(ktl.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.asname or alias.name: (node.module, alias.name) for node in block.body for alias in node.names}
    assert set(imported) == set(ktl.__all__)
    for name, (module, inner) in imported.items():
        assert getattr(ktl, name) is getattr(__import__(module, fromlist=[inner]), inner)


@pytest.fixture(scope="module")
def flowers(assets, tmp_path_factory) -> Path:
    """Class folders of three flowers, 20 photos each."""
    root = tmp_path_factory.mktemp("flowers") / "photos"
    for name in ("daffodil", "sunflower", "tulip"):
        (root / name).mkdir(parents=True)
        for photo in sorted((assets / "data" / "flowers17" / "train" / name).iterdir())[:20]:
            shutil.copy(photo, root / name)
    return root


@pytest.fixture(scope="module")
def weights(assets) -> str:
    return str(assets / "weights" / "mobilenet_0_75_224.weights.h5")


def test_six_lines(flowers, weights, tmp_path):
    dataset = ktl.Dataset.from_directory(flowers)
    classifier = ktl.TransferClassifier(
        "mobilenet_0.75",
        class_names=dataset.class_names,
        head="kept",
        scale=3.0,
        freeze_depth="auto",
        seed=0,
        weights=weights,
        image_size=96,
    )
    history = ktl.fit(classifier, dataset, epochs=3, caching=ktl.Caching(folder=tmp_path / "cache"), verbose=0)
    photo = next((flowers / "daffodil").iterdir())
    *predictions, alone = ktl.predict(classifier, [flowers / "tulip", flowers / "sunflower", photo], verbose=0)
    result = ktl.export(classifier, tmp_path / "model", photos=dataset.test, verbose=0)

    assert classifier.boundary.cost_share <= 0.9 < classifier.boundaries[-1].cost_share
    assert history[-1]["validation_top1"] >= 5 / 6
    expected = [Path(prediction.photo).parent.name for prediction in predictions]
    assert np.mean([p.top[0][0] == label for p, label in zip(predictions, expected, strict=True)]) >= 0.9
    assert result["test"]["largest_difference"] < 1e-4
    served = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    answer = served(photos=tf.constant([photo.read_bytes()]))
    assert answer["label"].numpy()[0].decode() == alone.top[0][0]
    np.testing.assert_allclose(answer["top_k_probabilities"][0], [p for _, p in alone.top], atol=1e-4)


# Keras says so of its own default.
@pytest.mark.filterwarnings("ignore:.shuffle=True. was passed")
def test_keras_fit_of_real_photos(flowers, weights):
    """As Keras reads them from the folder."""
    batches = keras.utils.image_dataset_from_directory(
        flowers, image_size=(64, 64), batch_size=20, shuffle=False, verbose=False
    )
    classifier = ktl.TransferClassifier(
        "mobilenet_0.75",
        class_names=batches.class_names,
        freeze_depth="all",
        seed=0,
        weights=weights,
        image_size=64,
    )
    classifier.compile()
    history = classifier.fit(batches, epochs=8, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0] / 2
    assert history.history["top1"][-1] > 0.8
