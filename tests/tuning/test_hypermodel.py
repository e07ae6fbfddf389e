"""The HyperModel in KerasTuner's own tuners."""

import gc

import keras
import keras_tuner
import numpy as np
import pytest
from support import as_dataset
from tensorflow.python.framework.func_graph import FuncGraph

import ktl
from ktl.errors import UserError
from ktl.runs.session import Session
from ktl.tuning.hypermodel import TransferHyperModel

VALUES = {"scale": (1.0, 10.0)}
OBJECTIVE = keras_tuner.Objective("val_top1", "max")


pytestmark = pytest.mark.usefixtures("without_determinism_afterwards")


@pytest.fixture(scope="module")
def dataset(photo_folder):
    return ktl.load_dataset(str(photo_folder))


def test_nothing_of_a_trial_is_left_when_the_next_one_is_built(make_config, dataset):
    """Neither models and optimizers, nor the graphs that TensorFlow's register of gradients would hold for ever."""

    def alive() -> dict[str, int]:
        found = gc.get_objects()
        kinds = {"models": keras.Model, "optimizers": keras.optimizers.Optimizer, "graphs": FuncGraph}
        return {name: sum(isinstance(thing, kind) for thing in found) for name, kind in kinds.items()}

    hypermodel = TransferHyperModel(make_config(epochs=1), dataset, VALUES)
    counts = []
    hp = keras_tuner.HyperParameters()
    for hp.values["scale"] in (1.0, 10.0, 1.0):
        model = hypermodel.build(hp)
        counts.append(alive())
        hypermodel.fit(hp, model, verbose=0)
        del model
    assert counts[1] == counts[2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"speed": (1,)}, r"each name in `values` to be one of: dataset, .* Received: speed"),
        ({"scale": 3.0}, r"`values` to have values for scale\. Received: 3\.0"),
        ({"scale": ()}, r"`values` to have values for scale\. Received: \(\)"),
        ({"head": "kept"}, r"`values` to have values for head\. Received: 'kept'"),
        ({"scale": (1.0, -1.0)}, r"`scale` to be at least 0\.001\. Received: -1\.0"),
    ],
)
def test_values_that_cannot_be_tried_get_one_line(make_config, dataset, values, message):
    with pytest.raises(UserError, match=f"^Expected {message}$"):
        TransferHyperModel(make_config(), dataset, values)


def test_values_may_be_in_a_list_or_an_array(make_config, dataset):
    hypermodel = TransferHyperModel(make_config(), dataset, {"scale": np.array([1, 3]), "freeze_depth": [1, "all"]})
    assert hypermodel.values == {"scale": (1.0, 3.0), "freeze_depth": ("1", "all")}


# In KerasTuner's tuners


def test_kerastuners_random_search_finds_what_runs_find(make_config, dataset, tmp_path):
    config = make_config(freeze_depth="all", epochs=2)
    hypermodel = TransferHyperModel(config, dataset, VALUES)
    tuner = keras_tuner.RandomSearch(hypermodel, OBJECTIVE, max_trials=2, directory=str(tmp_path), seed=1)
    tuner.search(verbose=0)
    trials = tuner.oracle.get_best_trials(2)
    assert {trial.hyperparameters.get("scale") for trial in trials} == {1.0, 10.0}
    for trial in trials:
        scale = trial.hyperparameters.get("scale")
        history = Session(config, dataset).prepare({"scale": scale}).fit(tmp_path / str(scale))
        assert trial.score == pytest.approx(max(row["validation_top1"] for row in history), abs=1e-6)
    model = tuner.get_best_models()[0]
    validation = as_dataset(hypermodel.training.inputs.evaluation_batches(dataset.validation))
    assert model.evaluate(validation, verbose=0, return_dict=True)["top1"] == pytest.approx(trials[0].score, abs=1e-6)


@pytest.mark.slow
def test_kerastuners_hyperband_goes_on_with_a_models_weights(make_config, dataset, tmp_path):
    hypermodel = TransferHyperModel(make_config(), dataset, {"scale": (1.0, 3.0, 10.0, 30.0, 100.0)})
    tuner = keras_tuner.Hyperband(hypermodel, objective=OBJECTIVE, max_epochs=3, directory=str(tmp_path), seed=1)
    tuner.search(verbose=0)
    trials = tuner.oracle.trials.values()
    assert {trial.status for trial in trials} == {"COMPLETED"}
    assert {trial.hyperparameters.values["tuner/epochs"] for trial in trials} == {1, 3}
    assert any("tuner/trial_id" in trial.hyperparameters.values for trial in trials)


def test_a_trials_model_is_what_is_after_the_boundary_with_the_trials_values(make_config, dataset):
    hypermodel = TransferHyperModel(make_config(cache="on"), dataset, VALUES)
    hp = keras_tuner.HyperParameters()
    norms = []
    for hp.values["scale"] in VALUES["scale"]:
        model = hypermodel.build(hp)
        names = {layer.name for layer in model.layers}
        assert "predictions" in names
        assert not {"stem", "depthwise", "block"} & names
        norms += [layer.get_weights()[0] for layer in model.layers if type(layer) is ktl.ScaledUnitNormalization]
    assert {choice.name: tuple(choice.values) for choice in hp.space} == VALUES  # and nothing else
    np.testing.assert_allclose(norms[1], 10 * norms[0])


@pytest.mark.parametrize(("xla", "compiled"), [("on", True), ("off", False)])
def test_the_asked_for_xla_reaches_the_trials_model(make_config, dataset, xla, compiled):
    hypermodel = TransferHyperModel(make_config(xla=xla, deterministic=False), dataset, VALUES)
    assert hypermodel.build(keras_tuner.HyperParameters()).jit_compile is compiled
