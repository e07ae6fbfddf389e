"""experiments/recipes.py: its table, its files, and what its interventions do to a run."""

import json
import re

import keras
import numpy as np
import pytest
from sklearn import linear_model, model_selection
from support import REPOSITORY, run_script

from ktl.config.settings import RunConfig
from ktl.data.loading import load_dataset
from ktl.evaluation.differences import holm_levels, paired_difference
from ktl.runs.session import Session

EXPERIMENTS = REPOSITORY / "experiments"
CHANGED = ("5 epochs", "scale 1")
CHOSEN = ("5 epochs", "scale 30", "start from ridge regression")


@pytest.fixture(scope="module")
def recipes():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        import recipes
    return recipes


@pytest.fixture(scope="module")
def interventions():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        import interventions
    return interventions


@pytest.fixture(scope="module")
def finished(recipes, tiny_backbone, photo_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes") / "out"
    arguments = ["--dataset", str(photo_folder), "--backbone", str(tiny_backbone), "--seeds", 2, "--output", folder]
    arguments += ["--depths", "all", "--changes", *CHOSEN]
    return folder, arguments, run_script(recipes, *arguments)


def test_a_missing_data_set_is_one_line(recipes, tmp_path):
    code, out, err = run_script(recipes, "--dataset", tmp_path / "nothing", "--output", tmp_path / "out")
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert "nothing" in line


def test_every_change_is_one_thing_and_a_setting_that_runs_have(recipes, interventions):
    for name, change in recipes.CHANGES.items():
        config = RunConfig(dataset="digits", **change.settings)
        defaults = RunConfig(dataset="digits")
        changed = {key for key, value in vars(config).items() if value != getattr(defaults, key)}
        assert changed == set(change.settings), name
        assert bool(change.settings) + bool(change.intervention) == (name != "none"), name
        assert change.intervention is None or callable(getattr(interventions, change.intervention))


def test_the_table_has_each_change_and_its_difference(finished, recipes):
    folder, arguments, (code, out, err) = finished
    assert code == 0, err
    defaults = RunConfig(dataset=arguments[1], backbone=arguments[3], cache="on")
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines()]
    assert header == list(recipes.HEADER)
    # A scale is nothing to a replaced layer that is not normalised.
    expected = [("none", "kept"), ("none", "replaced"), ("5 epochs", "kept"), ("5 epochs", "replaced")]
    expected += [("scale 30", "kept")] + [("start from ridge regression", head) for head in ("kept", "replaced")]
    assert [tuple(row[:2]) for row in rows] == expected
    means = {}
    for change, head in expected:
        trials = [recipes.Trial(change, head, "all", seed) for seed in (0, 1)]
        found = [json.loads(next(folder.glob(f"*/{trial.file(defaults)}")).read_text()) for trial in trials]
        for result in found:
            assert np.mean(result["correct"]) == pytest.approx(result["validation_top1"])
        means[change, head] = np.mean([result["correct"] for result in found])
    for (change, head), (*_, top1, difference, loss, loss_difference) in zip(expected, rows, strict=True):
        assert float(top1) == pytest.approx(100 * means[change, head], abs=0.06)
        assert float(loss) > 0
        if change == "none":
            assert difference == loss_difference == ""
        else:
            assert difference == "", "6 validation photos tell nothing"
            assert re.fullmatch(r"[-+]\d+\.\d{3}", loss_difference)


def test_differences_are_adjusted_for_the_number_of_changes_at_a_place(recipes):
    generator = np.random.default_rng(0)
    hits = {
        (change, head, "all"): generator.random((3, 200)) < chance
        for head in ("kept", "replaced")
        for change, chance in (("none", 0.8), ("5 epochs", 0.6), ("scale 1", 0.8))
    }
    groups = {
        group: [recipes.Outcome(row.mean(), 0.5, 1, row.astype(int).tolist()) for row in rows]
        for group, rows in hits.items()
    }
    found = recipes.differences_of(groups)
    assert set(found) == {group for group in groups if group[0] != "none"}
    for head in ("kept", "replaced"):
        pairs = [paired_difference(hits[change, head, "all"], hits["none", head, "all"]) for change in CHANGED]
        levels = holm_levels([one.p_value for one in pairs])
        for change, one, level in zip(CHANGED, pairs, levels, strict=True):
            interval = one.interval(level)
            expected = [100 * value for value in (interval.estimate, interval.low, interval.high)]
            numbers = re.findall(r"[-+][\d.]+", found[change, head, "all"])
            assert [float(number) for number in numbers] == pytest.approx(expected, abs=0.051)
    alone = {group: runs[:1] for group, runs in groups.items()}
    assert recipes.differences_of(alone) == {}


def test_again_trains_nothing_and_prints_the_same(finished, recipes):
    folder, arguments, (_, out, _) = finished
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert {file.suffix for file in before if file.is_file()} == {".json"}
    assert run_script(recipes, *arguments)[:2] == (0, out)
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before


def test_other_settings_have_other_files(recipes):
    names = set()
    for dataset in ("digits", "flowers"):
        for change in recipes.CHANGES:
            names |= {recipes.Trial(change, "kept", "all", seed).file(RunConfig(dataset=dataset)) for seed in (0, 1)}
    assert len(names) == 4 * len(recipes.CHANGES)


@pytest.fixture
def prepared(tiny_backbone, photo_folder):
    def make(**settings):
        defaults = {"backbone": str(tiny_backbone), "augmentation": "none", "freeze_depth": "all", "epochs": 2}
        config = RunConfig(dataset=str(photo_folder), **{**defaults, **settings})
        return Session(config, load_dataset(config.dataset)).prepare()

    return make


def inputs_of(prepared) -> np.ndarray:
    """What the last Dense layer reads of the training photos, by a model of its own."""
    classifier = prepared.classifier
    model = keras.Model(classifier.boundary.tensor, keras.layers.Identity()(classifier.new_layers[-1].input))
    return model.predict(training_photos(prepared), verbose=0)


def logits_of(prepared) -> np.ndarray:
    """Of the training photos."""
    return prepared.inputs.trained_part(prepared.classifier).predict(training_photos(prepared), verbose=0)


def training_photos(prepared):
    return prepared.inputs.evaluation_batches(prepared.inputs.dataset.train)


def test_a_fixed_scale_stays(interventions, prepared, tmp_path):
    for fix, expected in ((True, True), (False, False)):
        made = prepared(scale=7.0)
        if fix:
            interventions.fix_scale(made)
        made.fit(tmp_path / str(fix))
        gamma = made.classifier.get_layer("head_normalization").gamma.numpy()
        assert np.all(gamma == 7.0) == expected


def test_the_kept_layer_gets_the_rate_of_the_new_ones(interventions, prepared):
    made = prepared(freeze_depth="block_relu")
    fast = interventions.new_rate_for_kept_layer(made)
    paths = {variable.path for variable in fast}
    assert paths - {variable.path for variable in made.classifier.new_variables} == {
        "predictions/kernel",
        "predictions/bias",
    }
    assert {variable.path for variable in made.classifier.new_variables} < paths


@pytest.mark.parametrize("head", ["kept", "replaced"])
def test_ridge_gives_its_own_answers(interventions, prepared, head):
    made = prepared(head=head)
    interventions.start_from_ridge(made)
    inputs, labels = inputs_of(made), made.inputs.dataset.train.labels
    expected = linear_model.RidgeCV(interventions.RIDGE_PENALTIES).fit(inputs, np.eye(6)[labels]).predict(inputs)
    logits = logits_of(made)
    ratio = (expected / logits).ravel()
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=2e-2)  # divided by one temperature
    folds = model_selection.StratifiedKFold(5, shuffle=True, random_state=1).split(inputs, labels)
    held_out = model_selection.cross_val_predict(
        linear_model.RidgeCV(interventions.RIDGE_PENALTIES), inputs, np.eye(6)[labels], cv=list(folds)
    )
    best = min(np.geomspace(0.05, 20, 60), key=lambda temperature: log_loss(held_out / temperature, labels))
    assert np.median(ratio) == pytest.approx(best, rel=0.6)  # of other folds


def test_class_means_recognise_the_nearest_mean(interventions, prepared):
    made = prepared()
    interventions.start_from_class_means(made)
    inputs, labels = inputs_of(made), made.inputs.dataset.train.labels
    means = np.stack([inputs[labels == label].mean(axis=0) for label in range(6)])
    nearest = np.square(inputs[:, None] - means).sum(axis=2).argmin(axis=1)
    logits = logits_of(made)
    np.testing.assert_array_equal(logits.argmax(axis=1), nearest)


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]))


def test_l2_sp_adds_its_penalty_to_the_pretrained_kernels_alone(interventions, prepared):
    made = prepared(freeze_depth="block_relu")
    interventions.hold_to_start(made)
    suffix = made.classifier.suffix
    assert sum(map(float, suffix.losses)) == pytest.approx(0, abs=1e-9)
    pulled = 0
    for layer in suffix.layers:
        if hasattr(layer, "kernel"):
            layer.kernel.assign_add(0.5 * np.ones(layer.kernel.shape))
            pulled += 0 if layer in made.classifier.new_layers else np.prod(layer.kernel.shape)
    assert pulled
    assert sum(map(float, suffix.losses)) == pytest.approx(interventions.L2_SP / 2 * 0.25 * pulled, rel=1e-4)
