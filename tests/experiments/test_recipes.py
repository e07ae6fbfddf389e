"""experiments/recipes.py: its table, its files, and what its interventions do to a run."""

import argparse
import dataclasses
import json
import re

import keras
import numpy as np
import pytest
from scipy import stats
from sklearn import linear_model, model_selection
from support import REPOSITORY, as_dataset, run_script, script

from ktl.config.settings import RunConfig
from ktl.data.batches import ArraySpec, Batches
from ktl.data.input_pipeline import PhotoCache, evaluation_batches
from ktl.data.loading import load_dataset
from ktl.errors import UserError
from ktl.runs.session import Session

EXPERIMENTS = REPOSITORY / "experiments"
CHOSEN = ("scale 30", "refit", "last epoch")
FOLDS = (0, 1)


def module_fixture(name: str):
    return pytest.fixture(scope="module")(lambda: script(name))


recipes, recipe_table, interventions, endings, feeding, co_tuning, held_out = map(
    module_fixture, ("recipes", "recipe_table", "interventions", "endings", "feeding", "co_tuning", "held_out")
)


@pytest.fixture(scope="module")
def finished(recipes, tiny_backbone, photo_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes") / "out"
    arguments = ["--dataset", str(photo_folder), "--backbone", str(tiny_backbone), "--seeds", 1, "--output", folder]
    arguments += ["--folds", len(FOLDS), "--depths", "all", "--heads", "kept", "--changes", *CHOSEN]
    arguments += ["--csv", folder.with_suffix(".csv")]
    return folder, arguments, run_script(recipes, *arguments)


@pytest.mark.parametrize("place", ["file/rows.csv", "."])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_trained(recipes, tmp_path, place):
    (tmp_path / "file").touch()
    code, out, err = run_script(recipes, "--dataset", tmp_path / "nothing", "--csv", tmp_path / place)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("recipes.py: Expected a f")
    assert "Received: --csv " in err.splitlines()[-1]


def test_a_missing_data_set_is_one_line(recipes, tmp_path):
    code, out, err = run_script(recipes, "--dataset", tmp_path / "nothing", "--output", tmp_path / "out")
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert "nothing" in line


def test_every_change_is_of_settings_that_runs_have(recipes, endings):
    for name, change in recipes.CHANGES.items():
        config = RunConfig(dataset="digits", **change.settings)
        defaults = RunConfig(dataset="digits")
        changed = {key for key, value in vars(config).items() if value != getattr(defaults, key)}
        assert changed == set(change.settings), name
        if change.intervention:
            module, function = change.intervention.split(".")
            assert callable(getattr(script(module), function))
        assert change.ending in endings.ENDINGS


def test_every_change_is_one_thing_or_of_single_ones():
    changes = script("changes")
    for name, change in changes.SINGLE.items():
        things = [change.settings, change.intervention, change.refit, change.ending != "none"]
        assert sum(map(bool, things)) == (2 if "way back" in name else name != "none"), name
    for name, change in changes.COMBINED.items():
        things = [*change.settings.items(), *filter(None, (change.intervention, change.refit))]
        singles = [
            {*one.settings.items(), *filter(None, (one.intervention, one.refit))} for one in changes.SINGLE.values()
        ]
        assert len(things) > 1, name
        assert all({thing} in singles for thing in things), name


def test_the_table_has_each_change_and_its_difference(finished, recipes, recipe_table):
    folder, arguments, (code, out, err) = finished
    assert code == 0, err
    dataset = arguments[1]
    defaults = RunConfig(dataset=dataset, backbone=arguments[3], cache="on")
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines()]
    assert header == [*recipe_table.COLUMNS, "stripes, top-1 in %", *recipe_table.COLUMNS_OF_ALL]
    expected = [(change, "kept") for change in ("none", *CHOSEN)]
    assert [tuple(row[:2]) for row in rows] == expected
    found = {}
    for change, head in expected:
        trials = [recipes.Trial(dataset, change, head, "all", 0, fold) for fold in FOLDS]
        ending = recipes.CHANGES[change].ending
        files = [json.loads(next(folder.glob(f"*/{trial.file(defaults)}")).read_text())[ending] for trial in trials]
        for outcome in files:
            assert np.mean(outcome["correct"]) == pytest.approx(outcome["top1"])
        assert sum(len(outcome["correct"]) for outcome in files) == 60, "every photo once, but for the test photos"
        found[change, head] = np.array([(outcome["top1"], outcome["log_loss"]) for outcome in files])
    for (change, head), (*_, top1, gain, loss, better) in zip(expected, rows, strict=True):
        assert float(top1) == pytest.approx(100 * found[change, head][:, 0].mean(), abs=0.06)
        if change == "none":
            assert gain == loss == better == ""
        else:
            changed = (found[change, head] - found["none", head]).mean(axis=0)
            assert float(gain.split()[0]) == pytest.approx(100 * changed[0], abs=0.06)
            assert float(loss.split()[0]) == pytest.approx(changed[1], abs=0.0006)
            assert better == f"{int(changed[0] > 0)} of 1"


def test_a_head_is_trained_with_the_changes_that_concern_it(recipes):
    """A scale is nothing to a replaced layer that is not normalised."""
    options = argparse.Namespace(seeds=1, folds=1, depths=["all"], heads=["kept", "replaced"], changes=CHOSEN)
    found = [(trial.change, trial.head) for trial in recipes.trials("photos", options)]
    others = [(change, head) for change in ("refit", "last epoch") for head in ("kept", "replaced")]
    assert found == [("none", "kept"), ("none", "replaced"), ("scale 30", "kept"), *others]


def test_intervals_are_students_and_adjusted_for_the_number_of_changes(recipe_table):
    generator = np.random.default_rng(0)
    changes = {
        "better": generator.normal((3, -0.2), 0.5, (6, 2)),
        "alike": generator.normal((0, 0), 0.5, (6, 2)),
        "none of it": np.zeros((6, 2)),
    }
    found = recipe_table.intervals_of(changes)
    p_values = [stats.ttest_1samp(changes[name][:, 0], 0).pvalue for name in ("better", "alike")]
    assert p_values[0] < 0.05 / 3 < 0.05 / 2 < p_values[1]
    for name, level in (("better", 0.05 / 3), ("alike", 0.05 / 2)):
        values = changes[name][:, 0]
        interval = stats.t.interval(1 - level, 5, loc=values.mean(), scale=stats.sem(values))
        numbers = [float(number) for number in re.findall(r"[-+][\d.]+", found[name][0])]
        assert numbers == pytest.approx([values.mean(), *interval], abs=0.051)
    assert found["none of it"] == ("+0.0 (+0.0 to +0.0)", "+0.000 (+0.000 to +0.000)")
    assert recipe_table.intervals_of({"one": np.array([[1.0, np.nan]])})["one"] == ("+1.0", "not finite")


def test_again_trains_nothing_and_prints_the_same(finished, recipes):
    folder, arguments, (_, out, _) = finished
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert {file.suffix for file in before if file.is_file()} == {".json"}
    assert run_script(recipes, *arguments)[:2] == (0, out)
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before


def test_the_rows_that_are_kept_give_the_same_table(finished, recipe_table):
    folder, _, (_, out, _) = finished
    rows = recipe_table.read_csv(folder.with_suffix(".csv"))
    assert len(rows) == (1 + len(CHOSEN)) * len(FOLDS)
    assert list(recipe_table.table(rows)) == out.splitlines()


def made_up_rows(recipe_table, *, head: str, gains: dict[str, tuple[float, float, float]]) -> list:
    """Of three data sets and two folds: top-1 is 0.5 and so much more, log loss 1 and so much less."""
    return [
        recipe_table.Row(dataset, change, head, "all", 0, fold, 0.5 + gain / 100, 1 - gain / 10)
        for change, of_datasets in {"none": (0, 0, 0), **gains}.items()
        for dataset, gain in zip("abc", of_datasets, strict=True)
        for fold in (0, 1)
    ]


def test_the_overview_has_the_mean_difference_and_that_on_each_data_set(recipe_table):
    rows = made_up_rows(recipe_table, head="kept", gains={"better": (2, 1, 0), "worse": (-1, 1, -3)})
    rows += made_up_rows(recipe_table, head="replaced", gains={"worse": (1, 0, 0)})
    for score, none, scale in ((0, "50.0 / 50.0 / 50.0", 1), (1, "1.000 / 1.000 / 1.000", -0.1)):
        header, _, *lines = recipe_table.overview(rows, score)
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        assert header == "| change | `kept`, frozen up to `all` | `replaced`, frozen up to `all` |"
        assert cells[0] == ["none", none, none]
        assert [row[0] for row in cells] == ["none", "better", "worse"]
        better, worse = cells[1], cells[2]
        assert better[2] == "", "was not done there"
        for cell, gains in ((better[1], (2, 1, 0)), (worse[1], (-1, 1, -3)), (worse[2], (1, 0, 0))):
            mean, each = float(cell.split()[0]), [float(one) for one in cell.split(": ")[1].split(" / ")]
            assert mean == pytest.approx(scale * np.mean(gains), abs=0.051 * abs(scale))
            assert each == pytest.approx([scale * gain for gain in gains], abs=0.051 * abs(scale))


def test_a_change_of_fewer_seeds_is_compared_with_these(recipe_table):
    """Seed 1 is worse with every change and without: that is no gain of a change that it was not trained with."""
    rows = [
        recipe_table.Row("a", change, "kept", "all", seed, fold, (60 + gain - 20 * seed + fold) / 100, 1.0)
        for change, gain, seeds in (("none", 0, 2), ("both", 1, 2), ("first", 2, 1))
        for seed in range(seeds)
        for fold in (0, 1)
    ]
    (changes,) = recipe_table.by_place(rows).values()
    for name, gain in (("both", 1), ("first", 2)):
        found = recipe_table.differences(changes[name], changes["none"])
        np.testing.assert_allclose(found, [[gain, 0], [gain, 0]], atol=1e-9)
    assert [line.split("|")[2].strip() for line in recipe_table.overview(rows, 0)][2:] == [
        "50.5",
        "+1.0 (+1.0 to +1.0): +1.0",
        "+2.0 (+2.0 to +2.0): +2.0",
    ]
    assert [line.split("|")[-2].strip() for line in recipe_table.table(rows)][3:] == ["1 of 1", "1 of 1"]


@pytest.mark.parametrize("score", [0, 1])
@pytest.mark.parametrize("name", ["recipes", "few_photos", "eight_photos", "beside_probabilities"])
def test_the_docs_have_the_overview_of_the_rows_that_are_kept(recipe_table, name, score):
    rows = recipe_table.read_csv(EXPERIMENTS / "results" / f"{name}.csv")
    assert "\n".join(recipe_table.overview(rows, score)) in (REPOSITORY / "docs" / "evidence.md").read_text()


def test_rows_are_added_to_a_file_once(recipe_table, tmp_path):
    rows = made_up_rows(recipe_table, head="kept", gains={"better": (2, 1, 0)})
    recipe_table.add_to_csv(tmp_path / "rows.csv", rows[:5])
    recipe_table.add_to_csv(tmp_path / "rows.csv", rows[3:])
    assert recipe_table.read_csv(tmp_path / "rows.csv") == rows


def test_other_settings_have_other_files(recipes):
    names = set()
    for dataset in ("digits", "flowers"):
        for change in recipes.CHANGES:
            names |= {
                recipes.Trial(dataset, change, "kept", "all", 0, n).file(RunConfig(dataset=dataset)) for n in FOLDS
            }
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


def test_few_photos_of_a_class_are_others_in_each_part(held_out, photo_folder):
    dataset = load_dataset(str(photo_folder))
    parts = held_out.held_out_parts(dataset, 2, photos_a_class=4)
    known = {*dataset.train.photos, *dataset.validation.photos}
    seen = [{*part.train.photos, *part.validation.photos} for part in parts]
    assert not seen[0] & seen[1]
    for part, own in zip(parts, seen, strict=True):
        assert {*part.test.photos} == known - own
        labels = np.concatenate([part.train.labels, part.validation.labels])
        assert np.bincount(labels).tolist() == [4] * 6
        assert np.bincount(part.validation.labels).tolist() == [1] * 6
    for draws, photos in ((3, 4), (1, 10)):
        with pytest.raises(UserError, match=f"^Expected a class to have {draws} times {photos} photos .*: 10 in the"):
            held_out.held_out_parts(dataset, draws, photos_a_class=photos)


@pytest.mark.parametrize(
    ("folds", "photos", "expected"),
    [
        (1, None, "`folds` to be at least 2. Received: 1"),
        (0, 4, "`folds` to be at least 1. Received: 0"),
        *((1, few, f"`photos_a_class` to be at least 2. Received: {few}") for few in (-1, 0, 1)),
    ],
)
def test_parts_without_photos_to_train_on_or_to_hold_out_are_refused(held_out, photo_folder, folds, photos, expected):
    with pytest.raises(UserError, match=f"^Expected {re.escape(expected)}$"):
        held_out.held_out_parts(load_dataset(str(photo_folder)), folds, photos_a_class=photos)


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
    steps = [part.get_weights()]
    each_step = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_, **logs: steps.append(part.get_weights()))
    history = made.fit(tmp_path, callbacks=[weights, each_step], keep="last")
    trained = endings.Trained(made, history, weights.found, weights.average)
    assert len(steps) == 1 + 3 * made.inputs.steps_per_epoch <= 100, "so few count alike"
    assert len(weights.found) == 4
    split = made.inputs.dataset.test
    batches = made.inputs.evaluation_batches(split)

    def answers(values):
        part.set_weights(values)
        return np.exp(log_softmax(part.predict(as_dataset(batches), verbose=0)))

    expected = {
        "none": weights.found[trained.best_epoch],
        "last epoch": weights.found[3],
        "mean of the last 3 epochs": [sum(each) / 3 for each in zip(*weights.found[1:], strict=True)],
        "moving mean of all steps": [sum(each) / len(steps) for each in zip(*steps, strict=True)],
        "half way back to the start": [
            (start + end) / 2 for start, end in zip(weights.found[0], weights.found[trained.best_epoch], strict=True)
        ],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(endings.ENDINGS[name](trained, split), answers(values), atol=1e-5)
    assert not np.allclose(answers(weights.found[0]), answers(weights.found[3]), atol=1e-4), "it has learned"
    pixels = np.concatenate([one for one, _ in photos_of(split)])
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
    return model.predict(as_dataset(training_photos(prepared)), verbose=0)


def logits_of(prepared) -> np.ndarray:
    """Of the training photos."""
    return prepared.inputs.trained_part(prepared.classifier).predict(as_dataset(training_photos(prepared)), verbose=0)


def training_photos(prepared):
    return prepared.inputs.evaluation_batches(prepared.inputs.dataset.train)


def test_a_fixed_scale_stays(interventions, prepared, tmp_path):
    made = prepared(scale=7.0)
    normalization = made.classifier.get_layer("head_normalization")
    assert normalization.trainable_variables, "else it would stay anyway"
    interventions.fix_scale(made)
    kernel = made.classifier.get_layer("head_classifier").kernel
    before = kernel.numpy()
    made.fit(tmp_path)
    assert np.all(normalization.gamma.numpy() == 7.0)
    assert (kernel.numpy() != before).any()


def test_the_kept_layer_gets_the_rate_of_the_new_ones(interventions, prepared):
    made = prepared(freeze_depth="block_relu")
    paths = {variable.path for variable in interventions.new_rate_for_kept_layer(made).new_variables}
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


def test_a_mixture_counts_for_its_share_of_each_label(feeding):
    """Of rows that are one-hot labels, a mixture is the label that its two copies have together."""
    rows, labels = np.eye(8, dtype=np.float32), np.arange(8, dtype=np.int32)
    specs = ArraySpec((None, 8), "float32"), ArraySpec((None,), "int32")
    batches = feeding.mixed(Batches(2, lambda _: (rows, labels), specs), seed=3)
    mixture, both, weights = batches[0]
    assert len(batches.specs) == 3
    np.testing.assert_array_equal(both[:8], labels)
    np.testing.assert_array_equal(mixture[:8], mixture[8:])
    together = weights[:8, None] * rows[both[:8]] + weights[8:, None] * rows[both[8:]]
    np.testing.assert_allclose(together / 2, mixture[:8], atol=1e-6)
    assert ((mixture > 0.01) & (mixture < 0.99)).any(), "some are mixed"
    assert not np.array_equal(mixture, batches[1][0])
    np.testing.assert_array_equal(mixture, batches[0][0])


def test_roots_are_what_is_trained_and_scored_on(feeding, prepared, tmp_path):
    made = prepared(head="replaced")
    rooted = feeding.take_roots(made)
    of_split = {name: getattr(made.inputs.dataset, name) for name in ("train", "validation", "test")}
    for split in of_split.values():
        for (seen, _), (given, _) in zip(
            rooted.inputs.evaluation_batches(split), made.inputs.evaluation_batches(split), strict=True
        ):
            np.testing.assert_allclose(seen**2, given, rtol=1e-5)
    (seen, _), (given, _) = (one.inputs.training_batches(epochs=1)[0] for one in (rooted, made))
    np.testing.assert_allclose(seen**2, given, rtol=1e-5)
    assert len(rooted.fit(tmp_path)) == 2


@pytest.mark.parametrize("classes", [2, 3])
def test_a_relation_finds_the_source_classes_of_each_new_class(co_tuning, classes):
    """Each new class is a mixture of two source classes; a last source class is in none."""
    generator = np.random.default_rng(0)
    labels = np.arange(60) % classes
    answers = generator.dirichlet(np.full(2 * classes + 1, 0.05), 60)
    for number, label in enumerate(labels):
        answers[number, 2 * label + number // classes % 2] += 8
    answers /= answers.sum(axis=1, keepdims=True)
    found = co_tuning.relation((answers[:40], labels[:40]), (answers[40:], labels[40:]))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    for label, row in enumerate(found):
        assert row[[2 * label, 2 * label + 1]].sum() > 0.9
        assert 0.4 < row[2 * label] / row[2 * label + 1] < 2.5


@pytest.mark.parametrize("head", ["kept", "replaced"])
def test_co_tuning_of_no_strength_is_the_default_training(co_tuning, prepared, tmp_path, head):
    found = []
    for strength in (None, 0.0, 2.0):
        made = prepared(head=head, freeze_depth="stem_relu", epochs=3)
        if strength is not None:
            made = co_tuning.co_tune(made, strength=strength)
            certain = np.eye(*made.relation.shape, dtype=np.float32)  # which such a small network is not
            made = dataclasses.replace(made, relation=certain)
        history = made.fit(tmp_path / str(strength), keep="last")
        rows = [(row["epoch"], row["validation_top1"], row["validation_loss"]) for row in history]
        found.append((rows, made.classifier.get_layer("block").kernel.numpy()))
    (rows, kernel), (same_rows, same_kernel), (_, other_kernel) = found
    np.testing.assert_allclose(same_rows, rows, rtol=1e-3)
    np.testing.assert_allclose(same_kernel, kernel, atol=1e-4)
    assert not np.allclose(other_kernel, kernel, atol=1e-2)


def test_co_tunings_second_loss_is_the_cross_entropy_to_the_relation(co_tuning):
    generator = np.random.default_rng(0)
    new, kept = generator.normal(size=(5, 3)).astype("float32"), generator.normal(size=(5, 4)).astype("float32")
    related, labels = generator.dirichlet(np.ones(4), 3).astype("float32"), np.array([0, 2, 1, 1, 0])
    start = keras.Input((2,))
    model = co_tuning.TwoLosses(
        start, [keras.layers.Dense(3)(start), keras.layers.Dense(4)(start)], relation=related, strength=0.7
    )
    expected = log_loss(new, labels) - 0.7 * (related[labels] * log_softmax(kept)).sum(axis=1).mean()
    assert float(model.compute_loss(y=labels, y_pred=[new, kept])) == pytest.approx(expected, rel=1e-5)
