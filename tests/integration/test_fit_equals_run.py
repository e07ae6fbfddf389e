"""`ktl.fit` gives the numbers of `ktl.run` with the same settings, to the last bit."""

import csv

import keras
import numpy as np
import pytest
from tiny import without_seconds

import ktl

SETTINGS = {"epochs": 4, "least_steps": 10, "batch_size": 8, "patience": 2}
RECIPE = {"optimizer": "adamw", "learning_rate": 0.003, "head_multiplier": 5.0, "weight_decay": 0.01}


def history_of(folder) -> list[dict]:
    with open(folder / "history.csv", newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize(
    ("head", "freeze_depth", "cached", "others"),
    [
        ("kept", "block_relu", "on", {"class_weight": "balanced"}),
        ("kept_beside", "stem_relu", "off", {"augmentation": "none", "class_weight": {1: 2.0, 4: 0.5}}),
        pytest.param("replaced", "all", "on", {}, marks=pytest.mark.long),
        pytest.param("kept_batchnorm", "none", "auto", {"class_weight": {1: 2.0, 4: 0.5}}, marks=pytest.mark.long),
    ],
)
def test_fit_gives_what_run_gives(tiny_backbone, photo_folder, tmp_path, head, freeze_depth, cached, others):
    network = {"head": head, "scale": 5.0, "freeze_depth": freeze_depth}
    result = ktl.run(
        dataset=str(photo_folder),
        backbone=str(tiny_backbone),
        seed=3,
        cache=cached,
        cache_dir=str(tmp_path / "one"),
        output=tmp_path / "run",
        verbose=0,
        **network,
        **SETTINGS,
        **RECIPE,
        **others,
    )
    dataset = ktl.load_dataset(str(photo_folder))
    classifier = ktl.TransferClassifier(str(tiny_backbone), class_names=dataset.class_names, seed=3, **network)
    history = ktl.fit(
        classifier,
        dataset,
        recipe=ktl.Recipe(**RECIPE),
        caching=ktl.Caching(mode=cached, folder=tmp_path / "two"),
        seed=3,
        verbose=0,
        **SETTINGS,
        **others,
    )
    assert without_seconds(history) == without_seconds(history_of(tmp_path / "run"))
    assert len(history) == result["epochs"]
    assert (tmp_path / "two").exists() is (cached != "off")
    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert [v.path for v in classifier.weights] == [v.path for v in model.weights]
    for variable, wanted in zip(classifier.weights, model.weights, strict=True):
        np.testing.assert_array_equal(variable, wanted, err_msg=variable.path)
