"""experiments/recipes.py: its table, its files, and what its interventions do to a run."""

import json
import re

import keras
import numpy as np
import pytest
from sklearn import linear_model, model_selection
from support import REPOSITORY, run_script

from ktl.config.settings import RunConfig
from ktl.data.input_pipeline import PhotoCache, evaluation_batches
from ktl.data.loading import load_dataset
from ktl.evaluation.differences import holm_levels, paired_difference
from ktl.runs.session import Session

EXPERIMENTS = REPOSITORY / "experiments"
CHANGED = ("5 epochs", "scale 1")
CHOSEN = ("scale 30", "refit", "last epoch")
FOLDS = (0, 1)


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
def endings():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        import endings
    return endings


@pytest.fixture(scope="module")
def held_out():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        import held_out
    return held_out


@pytest.fixture(scope="module")
def finished(recipes, tiny_backbone, photo_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes") / "out"
    arguments = ["--dataset", str(photo_folder), "--backbone", str(tiny_backbone), "--seeds", 1, "--output", folder]
    arguments += ["--folds", len(FOLDS), "--depths", "all", "--changes", *CHOSEN]
    return folder, arguments, run_script(recipes, *arguments)


def test_a_missing_data_set_is_one_line(recipes, tmp_path):
    code, out, err = run_script(recipes, "--dataset", tmp_path / "nothing", "--output", tmp_path / "out")
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert "nothing" in line


def test_every_change_is_one_thing_and_a_setting_that_runs_have(recipes, interventions, endings):
    for name, change in recipes.CHANGES.items():
        config = RunConfig(dataset="digits", **change.settings)
        defaults = RunConfig(dataset="digits")
        changed = {key for key, value in vars(config).items() if value != getattr(defaults, key)}
        assert changed == set(change.settings), name
        things = [change.settings, change.intervention, change.refit, change.ending != "none"]
        assert sum(map(bool, things)) == (2 if name == "from a linear probe, half way back" else name != "none"), name
        assert change.intervention is None or callable(getattr(interventions, change.intervention))
        assert change.ending in endings.ENDINGS


def test_the_table_has_each_change_and_its_difference(finished, recipes):
    folder, arguments, (code, out, err) = finished
    assert code == 0, err
    defaults = RunConfig(dataset=arguments[1], backbone=arguments[3], cache="on")
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines()]
    assert header == list(recipes.HEADER)
    # A scale is nothing to a replaced layer that is not normalised.
    heads = {change: ["kept"] if change == "scale 30" else ["kept", "replaced"] for change in ("none", *CHOSEN)}
    expected = [(change, head) for change in heads for head in heads[change]]
    assert [tuple(row[:2]) for row in rows] == expected
    means, photos = {}, 0
    for change, head in expected:
        trials = [recipes.Trial(change, head, "all", 0, fold) for fold in FOLDS]
        ending = recipes.CHANGES[change].ending
        found = [json.loads(next(folder.glob(f"*/{trial.file(defaults)}")).read_text())[ending] for trial in trials]
        for result in found:
            assert np.mean(result["correct"]) == pytest.approx(result["top1"])
        correct = np.concatenate([result["correct"] for result in found])
        means[change, head], photos = correct.mean(), len(correct)
    assert photos == 60, "each training and validation photo once, no test photo"
    for (change, head), (*_, top1, difference, loss, loss_difference) in zip(expected, rows, strict=True):
        assert float(top1) == pytest.approx(100 * means[change, head], abs=0.06)
        assert float(loss) > 0
        assert difference == "", "one seed tells nothing"
        assert loss_difference == "" or change != "none"


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
            names |= {recipes.Trial(change, "kept", "all", 0, fold).file(RunConfig(dataset=dataset)) for fold in FOLDS}
    endings = sum(change.ending != "none" for change in recipes.CHANGES.values())  # share a training
    assert len(names) == 4 * (len(recipes.CHANGES) - endings)


def test_each_photo_is_held_out_once_and_no_test_photo_ever(held_out, photo_folder):
    dataset = load_dataset(str(photo_folder))
    parts = held_out.held_out_parts(dataset, 3)
    known = {*dataset.train.photos, *dataset.validation.photos}
    assert sorted(photo for part in parts for photo in part.test.photos) == sorted(known)
    for part in parts:
        seen = [*part.train.photos, *part.validation.photos, *part.test.photos]
        assert sorted(seen) == sorted(known)
        assert set(part.validation.labels) == set(range(6))
        refitted = held_out.validation_as_training(part)
        assert {*refitted.train.photos} == {*part.train.photos, *part.validation.photos}
        assert refitted.test.photos == part.test.photos


def test_a_run_would_have_stopped_where_patience_ends(endings):
    top1 = [0.1, 0.5, 0.4, 0.5, 0.3, 0.9]
    rows = [{"epoch": n, "validation_top1": one, "validation_loss": 1.0} for n, one in enumerate(top1, 1)]
    assert len(endings.within_patience(rows, 0)) == 6
    assert len(endings.within_patience(rows, 3)) == 5, "three epochs without a better one than the second"
    assert len(endings.within_patience(rows, 5)) == 6


def test_endings_are_what_they_say(endings, prepared, tmp_path):
    made = prepared(epochs=3, freeze_depth="block_relu")
    part = made.inputs.trained_part(made.classifier)
    weights = endings.WeightsOfEpochs(part)
    history = made.fit(tmp_path, callbacks=[weights], keep="last")
    trained = endings.Trained(made, history, weights.found)
    assert len(weights.found) == 4
    split = made.inputs.dataset.test
    batches = made.inputs.evaluation_batches(split)

    def answers(values):
        part.set_weights(values)
        return np.exp(log_softmax(part.predict(batches, verbose=0)))

    expected = {
        "none": weights.found[trained.best_epoch],
        "last epoch": weights.found[3],
        "mean of the last 3 epochs": [sum(each) / 3 for each in zip(*weights.found[1:], strict=True)],
        "half way back to the start": [
            (start + end) / 2 for start, end in zip(weights.found[0], weights.found[trained.best_epoch], strict=True)
        ],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(endings.ENDINGS[name](trained, split), answers(values), atol=1e-5)
    assert not np.allclose(answers(weights.found[0]), answers(weights.found[3]), atol=1e-4), "it has learned"
    pixels = np.concatenate([np.array(one) for one, _ in photos_of(split)])
    part.set_weights(weights.found[trained.best_epoch])
    both = [np.exp(log_softmax(made.classifier.predict(view, verbose=0))) for view in (pixels, pixels[:, :, ::-1])]
    np.testing.assert_allclose(endings.mirrored_too(trained, split), np.mean(both, axis=0), atol=1e-5)


def photos_of(split):
    return evaluation_batches(split, image_size=42, batch_size=64, cache=PhotoCache(memory_gib=0))


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


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


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
