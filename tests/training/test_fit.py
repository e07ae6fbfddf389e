"""Training until the patience ends: what it leaves and how it goes on; features train to the numbers of photos."""

import dataclasses
import math
import os
import shutil

import keras
import numpy as np
import pytest
import scipy.special
from support import Interrupt, Listener, as_dataset, one_line, start
from tiny import (
    BATCH,
    CLASSES,
    PHOTOS,
    STEPS,
    Losses,
    inputs_of,
    losses_and_gradients,
    make_dataset,
    make_photos,
    put_back,
    tiny_classifier,
    values,
    without_dropout,
    without_seconds,
)

from ktl.data.dataset import Dataset, with_splits
from ktl.data.loading import load_dataset
from ktl.data.order import epoch_photos
from ktl.errors import DivergedError, UserError
from ktl.evaluation.metrics import score
from ktl.evaluation.objectives import OBJECTIVES
from ktl.machine import Machine, backend
from ktl.models.recipe import Recipe
from ktl.progress import Reporter
from ktl.training.checkpoint import best_epoch
from ktl.training.class_weights import class_weight_of
from ktl.training.evaluate import predict_probabilities
from ktl.training.fit import compile_for, fit, fit_dataset
from ktl.training.options import Caching

MIDDLE = "depthwise_relu"


def train(classifier, inputs, folder, *, interrupt_after=None, reporter=None, recipe=None, **arguments):
    """Five epochs with the rate of `learning_rate` from the first step on, and no decay, unless told otherwise."""
    chosen = Recipe(**{"warmup_epochs": 0.0, "weight_decay": 0.0, **(recipe or {})})
    reporter = reporter or Listener(interrupt_after)
    settings = {"epochs": 5, "patience": 0, "recipe": chosen, "checkpoint_dir": str(folder), "reporter": reporter}
    return fit(classifier, inputs, **{**settings, **arguments})


@pytest.fixture
def small(tiny_backbone):
    """Trains its head alone, which is quick to trace."""
    return tiny_classifier(tiny_backbone, freeze_depth="all", head="kept_raw")


# The best epoch and the end


def test_a_loss_that_is_not_finite_ends_in_one_line(small, tmp_path):
    message = r"Expected a finite loss. Received: (nan|inf) in epoch \d"
    before = values(small.weights)
    with pytest.raises(DivergedError, match=message) as error:
        train(small, inputs_of(small), tmp_path, recipe={"learning_rate": 1e37})
    for variable, expected in zip(small.weights, before, strict=True):
        np.testing.assert_array_equal(variable, expected)  # not NaN
    assert isinstance(error.value, UserError)
    assert "\n" not in str(error.value)
    assert "learning_rate" in str(error.value)


@pytest.mark.parametrize("part", ["prefix", "suffix"])
def test_weights_that_are_no_numbers_are_blamed_and_not_the_rate(small, tmp_path, part):
    variable = getattr(small, part).trainable_variables[0] if part == "suffix" else small.prefix.weights[0]
    variable.assign(np.full(variable.shape, np.nan, "float32"))
    with pytest.raises(
        UserError, match=r"^Expected the classifier to hold finite numbers\. Received: nan in "
    ) as error:
        train(small, inputs_of(small), tmp_path)
    assert "learning_rate" not in str(error.value)


def test_a_last_step_into_infinity_is_noticed_too(tiny_backbone, tmp_path):
    """The training loss is that of before the step: only the validation loss tells."""
    classifier = tiny_classifier(tiny_backbone, freeze_depth="all", scale=30.0)
    inputs = inputs_of(classifier, batch_size=PHOTOS)
    assert inputs.steps_per_epoch == 1
    recipe = {"optimizer": "sgd", "learning_rate": 3e38, "head_multiplier": 1.0}
    with pytest.raises(DivergedError, match="Expected a finite loss"):
        train(classifier, inputs, tmp_path, recipe=recipe, epochs=1)


def test_a_photo_that_is_damaged_while_it_trains_is_named_in_one_line(small, photo_folder, tmp_path):
    shutil.copytree(photo_folder, tmp_path / "photos")
    inputs = inputs_of(small, load_dataset(str(tmp_path / "photos")), memory_gib=0)
    photo = inputs.dataset.validation.photos[-1]

    class Damage(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                (tmp_path / "photos" / photo).write_bytes(b"")

    with pytest.raises(
        UserError, match=r"^Expected photos that stay .* the file is empty\. Repeat the command$"
    ) as error:
        train(small, inputs, tmp_path / "run", callbacks=(Damage(),))
    assert photo in one_line(error)


class Recorder(keras.callbacks.Callback):
    """The weights after every epoch."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(values(self.model.variables))


class Unwelcome(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        raise AssertionError("trained again")


def misleading_dataset() -> Dataset:
    """Validation labels are the neighbours of the right ones: what is learned makes validation worse, soon."""
    dataset = make_dataset()
    labels = (dataset.validation.labels + 1) % len(CLASSES)
    return dataclasses.replace(dataset, validation=dataclasses.replace(dataset.validation, labels=labels))


@pytest.mark.parametrize("cached", [False, True])
def test_training_stops_after_the_patience_with_the_best_epochs_weights(tiny_backbone, tmp_path, cached):
    classifier = tiny_classifier(tiny_backbone)
    inputs = inputs_of(classifier, misleading_dataset(), cache_dir=tmp_path / "cache" if cached else None)
    settings = {"epochs": 30, "patience": 3, "recipe": {"learning_rate": 0.02, "warmup_epochs": 1.0}}
    recorder, listener = Recorder(), Listener()
    history = train(classifier, inputs, tmp_path / "run", callbacks=(recorder,), reporter=listener, **settings)
    scores = [(row["validation_top1"], -row["validation_loss"]) for row in history]
    best = scores.index(max(scores))
    assert len(history) < 30
    assert len(history) - 1 - best == 3
    for variable, expected in zip(classifier.variables, recorder.weights[best], strict=True):
        np.testing.assert_array_equal(variable, expected, err_msg=variable.path)
    assert any((a != b).any() for a, b in zip(recorder.weights[best], recorder.weights[-1], strict=True))
    part = inputs.trained_part(classifier)
    _, top1, loss = part.evaluate(as_dataset(inputs.evaluation_batches(inputs.dataset.validation)), verbose=0)
    assert (top1, loss) == pytest.approx((history[best]["validation_top1"], history[best]["validation_loss"]), rel=1e-5)
    assert listener.rows == history
    # Called again, a run that is out of patience trains no more.
    assert train(classifier, inputs, tmp_path / "run", callbacks=(Unwelcome(),), **settings) == history


def test_without_patience_all_epochs_are_trained_and_recorded(small, tmp_path):
    (tmp_path / "last-1.npz").write_bytes(b"litter is no checkpoint")
    inputs = inputs_of(small)
    small.compile()
    _, *found = small.evaluate(as_dataset(inputs.evaluation_batches(inputs.dataset.validation)), verbose=0)
    expected = dict(zip(("validation_top1", "validation_loss"), found, strict=True))
    # Never better than at the start.
    history = train(small, inputs, tmp_path, recipe={"learning_rate": 0.0}, epochs=3)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    for row in history:
        assert list(row) == ["epoch", "loss", "top1", "validation_loss", "validation_top1", "seconds"]
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)
        assert 0 < row["seconds"] < 60


@pytest.mark.parametrize("cached", [False, True])
def test_validation_is_scored_with_the_plain_cross_entropy(tiny_backbone, tmp_path, cached):
    """Against its formula: else settings that smooth their labels would never have the lower loss."""
    classifier = tiny_classifier(tiny_backbone)
    inputs = inputs_of(classifier, cache_dir=tmp_path / "cache" if cached else None)
    recipe = {"learning_rate": 0.0, "label_smoothing": 0.5}
    (row,) = train(classifier, inputs, tmp_path / "run", recipe=recipe, epochs=1, class_weight={0: 9.0, 3: 0.1})
    photos = inputs_of(classifier)
    logits = classifier.predict(as_dataset(photos.evaluation_batches(photos.dataset.validation)), verbose=0)
    labels = photos.dataset.validation.labels
    losses = -scipy.special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    assert row["validation_loss"] == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert row["loss"] != pytest.approx(row["validation_loss"], rel=0.05)


@pytest.mark.parametrize(
    ("objective", "cached"), [("mean_class_accuracy", False), ("macro_f1", True), ("log_loss", True)]
)
def test_the_best_epoch_is_that_by_the_objective(tiny_backbone, tmp_path, objective, cached):
    """With the scores that a run reports, by scikit-learn, for the weights that are left."""
    classifier, dataset = tiny_classifier(tiny_backbone), uneven_dataset()
    inputs = inputs_of(classifier, dataset, cache_dir=tmp_path / "cache" if cached else None)
    recipe = {"learning_rate": 0.003}
    history = train(classifier, inputs, tmp_path / "run", recipe=recipe, epochs=6, objective=objective)
    row = OBJECTIVES[objective]
    best = max(history, key=row.goodness)
    photos = inputs.evaluation_batches(inputs.dataset.validation)
    probabilities = predict_probabilities(inputs.trained_part(classifier), photos)
    scores = score(probabilities, inputs.dataset.validation.labels)
    assert best[row.column] == pytest.approx(scores[objective], rel=1e-5)
    assert len({each[row.column] for each in history}) > 1


def test_an_unknown_objective_is_refused_before_anything_else(small):
    with pytest.raises(UserError, match=r"^Expected `objective` to be one of: top1, mean_class_accuracy, log_loss"):
        fit_dataset(small, make_dataset(), objective="accuracy")


# Resuming

RESUME = {"learning_rate": 0.003, "warmup_epochs": 1.0, "weight_decay": 0.01, "label_smoothing": 0.1}


@pytest.mark.parametrize(
    ("optimizer", "freeze_depth", "cached", "litter"),
    [
        ("adamw", MIDDLE, False, False),
        ("sgd", "all", True, True),
        pytest.param("adamw", MIDDLE, True, True, marks=pytest.mark.long),
    ],
)
def test_two_epochs_and_three_more_equal_five_bit_for_bit(
    tiny_backbone, tmp_path, optimizer, freeze_depth, cached, litter
):
    def begin(seed=0):
        classifier = tiny_classifier(tiny_backbone, freeze_depth=freeze_depth, seed=seed)
        return classifier, inputs_of(classifier, cache_dir=tmp_path / "cache" if cached else None)

    recipe = {"optimizer": optimizer, **RESUME}
    whole, inputs = begin()
    history = train(whole, inputs, tmp_path / "whole", recipe=recipe)
    first, inputs = begin()
    with pytest.raises(Interrupt):
        train(first, inputs, tmp_path / "parts", recipe=recipe, interrupt_after=2)
    keras.backend.clear_session()
    if litter:  # what a kill in the middle of a write leaves, and worse
        cut_off = (".last-3.npz-abcdefgh", ".state.json-zyxwvuts")
        for name in ("last-3.npz", "best-3.npz", "last-1.npz", "last-99.npz", *cut_off):
            (tmp_path / "parts" / name).write_bytes(b"PK\3\4 not whole")

    # Other initial weights and another state of all generators: everything must come from the checkpoint.
    second, inputs = begin(seed=99)
    listener = Listener()
    resumed = train(second, inputs, tmp_path / "parts", recipe=recipe, reporter=listener)
    assert [row["epoch"] for row in listener.rows] == [3, 4, 5]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert without_seconds(resumed) == without_seconds(history)
    assert len({row["loss"] for row in history}) == 5
    for part in ("prefix", "suffix"):
        for variable, expected in zip(getattr(second, part).weights, getattr(whole, part).weights, strict=True):
            np.testing.assert_array_equal(variable, expected, err_msg=variable.path)
    optimizers = [values(classifier.optimizer.variables) for classifier in (second, whole)]
    assert len(optimizers[0]) >= 4
    for variable, expected in zip(*optimizers, strict=True):
        np.testing.assert_array_equal(variable, expected)
    # No more than the last and the best epoch stay on disk.
    best = best_epoch(history)
    assert sorted(os.listdir(tmp_path / "parts")) == sorted({"last-5.npz", f"best-{best}.npz", "state.json"})


def test_a_finished_training_is_not_repeated(small, tmp_path):
    inputs = inputs_of(small)
    history = train(small, inputs, tmp_path, epochs=2)
    trained = values(small.trainable_variables)
    put_back(small.trainable_variables, [value * 0 for value in trained])
    assert train(small, inputs, tmp_path, epochs=2, callbacks=(Unwelcome(),)) == history
    for variable, expected in zip(small.trainable_variables, trained, strict=True):
        np.testing.assert_array_equal(variable, expected)


def test_a_training_in_steps_is_the_training_in_one_go(small, tmp_path):
    """As Hyperband trains: the schedule is that of all epochs."""
    inputs, start_values = inputs_of(small), values(small.variables)
    whole = train(small, inputs, tmp_path / "whole")
    put_back(small.variables, start_values)
    for end in (1, 5):
        rows = train(small, inputs, tmp_path / "steps", stop_after=end)
        assert len(rows) == end
    assert without_seconds(rows) == without_seconds(whole)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_training_in_mixed_precision_resumes(tiny_backbone, float32_policy, tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    classifier = tiny_classifier(tiny_backbone, freeze_depth="block_relu")
    inputs, before = inputs_of(classifier), values(classifier.trainable_variables)
    recipe = {"learning_rate": 0.003}
    with pytest.raises(Interrupt):
        train(classifier, inputs, tmp_path, recipe=recipe, epochs=4, interrupt_after=1)
    assert isinstance(classifier.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    assert classifier.get_layer("point").compute_dtype == policy.removeprefix("mixed_")
    history = train(classifier, inputs, tmp_path, recipe=recipe, epochs=4)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    for variable, old in zip(classifier.trainable_variables, before, strict=True):
        assert (variable.numpy() != old).any(), variable.path


# Features instead of photos, XLA, several devices


@pytest.mark.parametrize(
    ("freeze_depth", "optimizer"),
    [pytest.param("stem_relu", "adamw", marks=pytest.mark.long), ("stem_relu", "sgd"), ("all", "adamw")],
)
def test_cached_and_uncached_training_have_the_same_losses_step_by_step(
    tiny_backbone, photo_folder, tmp_path, freeze_depth, optimizer
):
    dataset = load_dataset(str(photo_folder))
    steps = -(-len(dataset.train) // 8)
    losses, weights = {}, {}
    for way in ("cached", "uncached"):
        classifier = tiny_classifier(tiny_backbone, freeze_depth=freeze_depth, seed=2)
        folder = tmp_path / "cache" if way == "cached" else None
        inputs = inputs_of(classifier, dataset, cache_dir=folder, batch_size=8)
        part = compile_for(
            classifier, inputs, Recipe(optimizer=optimizer, learning_rate=1e-3), epochs=3, jit_compile=False
        )
        part.steps_per_execution = 1  # to see each step, also where an epoch is one call
        recorder = Losses()
        settings = {"epochs": 3, "steps_per_epoch": steps, "shuffle": False, "verbose": 0}
        keras.Model.fit(part, as_dataset(inputs.training_batches(epochs=3)), callbacks=[recorder], **settings)
        losses[way], weights[way] = recorder.values, values(classifier.weights)
    assert len(losses["cached"]) == 3 * steps
    np.testing.assert_allclose(losses["cached"], losses["uncached"], atol=1e-4)
    if optimizer == "adamw" and freeze_depth != "all":
        return  # AdamW makes full steps of the rounding errors that are the gradient of a bias before a normalisation
    for cached, uncached in zip(weights["cached"], weights["uncached"], strict=True):
        np.testing.assert_allclose(cached, uncached, atol=1e-3)


def test_xla_compiles_and_gives_the_same_numbers(tiny_backbone, tmp_path):
    # Not AdamW: it makes full steps of the rounding errors that are the gradient of a bias before a normalisation.
    recipe, histories = {"optimizer": "sgd", "learning_rate": 0.003}, {}
    for xla in (False, True):
        classifier = without_dropout(tiny_classifier(tiny_backbone, freeze_depth=MIDDLE))  # XLA draws other masks
        inputs = inputs_of(classifier)
        histories[xla] = train(classifier, inputs, tmp_path / str(xla), recipe=recipe, epochs=2, jit_compile=xla)
        assert classifier.jit_compile is xla
    for plain, jit in zip(*map(without_seconds, histories.values()), strict=True):
        assert jit == pytest.approx(plain, abs=1e-4)


def _two_devices_of_tensorflow():
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def _two_devices_of_jax():
    flags = ("--xla_force_host_platform_device_count=2", "--xla_cpu_collective_call_terminate_timeout_seconds=600")
    os.environ["XLA_FLAGS"] = " ".join(flags)  # on a busy machine the two wait longer for each other than by default


_TWO_DEVICES = {"tensorflow": _two_devices_of_tensorflow, "jax": _two_devices_of_jax}


def _train_on_two_devices(backbone, folder):
    """In a process of its own, whose CPU is made into two."""
    _TWO_DEVICES[keras.config.backend()]()
    arguments = {
        "epochs": 2,
        "recipe": {"optimizer": "sgd", "learning_rate": 0.01, "weight_decay": 0.5},
        "objective": "macro_f1",
    }
    for strategy in ("none", "mirrored"):
        with Machine(("CPU",), "float32", False, strategy).scope():
            classifier = without_dropout(tiny_classifier(backbone, freeze_depth="none"))
        inputs, output = inputs_of(classifier, batch_size=4), os.path.join(folder, strategy)
        if strategy == "mirrored":
            with pytest.raises(Interrupt):
                train(classifier, inputs, output, interrupt_after=1, **arguments)
        history = train(classifier, inputs, output, **arguments)
        devices = backend.devices_of(classifier)
        losses = [row[name] for row in history for name in ("loss", "validation_loss", "validation_macro_f1")]
        np.savez(os.path.join(folder, f"{strategy}.npz"), devices, losses, *values(classifier.variables))


def test_two_devices_train_to_the_numbers_of_one(tiny_backbone, tmp_path):
    process = start(_train_on_two_devices, str(tiny_backbone), str(tmp_path))
    process.join(300)
    assert process.exitcode == 0
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("none", "mirrored"))
    assert (one["arr_0"], two["arr_0"]) == (1, 2)
    assert len(one.files) > 10
    for name in one.files[1:]:
        # Sums in another order, through BatchNormalization of four photos. Of two photos each, losses differ by 0.07.
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=5e-5)


# Callbacks


class Watcher(keras.callbacks.Callback):
    """Which model it is given, and what that has at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.models, self.logits, self.parameters = [], [], None

    def on_train_begin(self, logs=None):
        self.parameters = dict(self.params)

    def on_train_batch_begin(self, batch, logs=None):
        self.models.append(self.model)

    def on_epoch_end(self, epoch, logs=None):
        self.models.append(self.model)
        self.logits.append(self.model.predict(make_photos(10, seed=2)[0], verbose=0))


@pytest.mark.parametrize(("freeze_depth", "cached"), [(MIDDLE, False), (MIDDLE, True), ("all", True)])
def test_a_callback_s_model_is_the_classifier(tiny_backbone, tmp_path, cached, freeze_depth):
    classifier = tiny_classifier(tiny_backbone, freeze_depth=freeze_depth)
    inputs, watcher = inputs_of(classifier, cache_dir=tmp_path / "cache" if cached else None), Watcher()
    train(classifier, inputs, tmp_path / "run", callbacks=(watcher,), epochs=2)
    assert watcher.models
    assert all(model is classifier for model in watcher.models)
    assert {name: watcher.parameters[name] for name in ("epochs", "steps")} == {"epochs": 2, "steps": STEPS}
    assert (watcher.logits[0] != watcher.logits[1]).any()
    assert isinstance(classifier.history, keras.callbacks.History)
    assert len(classifier.history.history["loss"]) == 2


class StopAt(keras.callbacks.Callback):
    """Ends training in its second epoch: where that ends, or where its first step does."""

    def __init__(self, moment):
        super().__init__()
        self.moment, self.epoch = moment, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.moment, self.epoch) == ("step", 1):
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        if (self.moment, self.epoch) == ("epoch", 1):
            self.model.stop_training = True


@pytest.mark.parametrize(
    ("freeze_depth", "cached", "moment"),
    [(MIDDLE, False, "step"), (MIDDLE, True, "epoch"), ("all", True, "epoch"), ("all", True, "step")],
)
def test_a_callback_may_end_the_training(tiny_backbone, tmp_path, cached, moment, freeze_depth):
    classifier = tiny_classifier(tiny_backbone, freeze_depth=freeze_depth)
    inputs = inputs_of(classifier, cache_dir=tmp_path / "cache" if cached else None)
    losses = Losses()
    history = train(classifier, inputs, tmp_path / "run", callbacks=(losses, StopAt(moment)))
    assert [row["epoch"] for row in history] == [1, 2]
    if not (cached and freeze_depth == "all"):  # there an epoch is one call
        assert len(losses.values) == STEPS + (STEPS if moment == "epoch" else 1)


def test_keras_own_early_stopping_works(tiny_backbone, tmp_path):
    classifier = tiny_classifier(tiny_backbone)
    inputs = inputs_of(classifier, misleading_dataset(), cache_dir=tmp_path / "cache")
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=1, start_from_epoch=1)
    recipe = {"learning_rate": 0.02}
    history = train(classifier, inputs, tmp_path / "run", callbacks=(stopping,), epochs=30, recipe=recipe)
    assert 3 <= len(history) < 30
    assert history[-1]["validation_loss"] >= history[-2]["validation_loss"]
    assert stopping.stopped_epoch == len(history) - 1


def test_a_callback_that_asked_for_the_end_once_is_not_obeyed_in_the_next_training(small, tmp_path):
    inputs = inputs_of(small, cache_dir=tmp_path / "cache")
    assert len(train(small, inputs, tmp_path / "first", callbacks=(StopAt("epoch"),))) == 2
    assert len(train(small, inputs, tmp_path / "second", epochs=3)) == 3


# Weights of classes


def weights_of(class_weight, labels) -> np.ndarray:
    """For each photo; `balanced` = photos / (classes * photos of its class)."""
    if class_weight == "balanced":
        return np.array([len(labels) / (len(CLASSES) * np.sum(labels == label)) for label in labels])
    return np.array([class_weight.get(label, 1.0) for label in labels])


def uneven_dataset() -> Dataset:
    """Photos of a class: 1, 2, 3, 4, 4, 4."""
    labels = make_photos(24)[1]
    kept = [place for place, label in enumerate(labels) if np.sum(labels[:place] == label) <= label]
    return with_splits(make_dataset(24), {"train": make_dataset(24).train.take(np.array(kept))})


@pytest.mark.parametrize(("class_weight", "cached"), [("balanced", False), ({0: 3.0, 2: 0.5, 5: 0.0}, True)])
def test_each_loss_is_weighted_by_its_class(tiny_backbone, tmp_path, cached, class_weight):
    """By hand, in the first step: the mean of weighted losses, and a step of SGD along its gradient."""
    classifier = without_dropout(tiny_classifier(tiny_backbone, freeze_depth=MIDDLE))
    dataset = uneven_dataset()
    inputs = inputs_of(classifier, dataset, cache_dir=tmp_path / "cache" if cached else None, seed=4)
    labels = dataset.train.labels
    first, _ = epoch_photos(len(labels), size=BATCH, seed=4, epoch=0)
    weights = weights_of(class_weight, labels)[first]
    assert len(set(weights)) > 1
    pixels = next(iter(inputs_of(classifier, dataset, seed=4).training_batches(epochs=1)))[0]
    losses, gradients = losses_and_gradients(classifier, pixels, labels[first], weights)
    before = values(classifier.trainable_variables)
    recorder = FirstStep()
    recipe = {"optimizer": "sgd", "learning_rate": 0.01, "head_multiplier": 1.0}
    train(classifier, inputs, tmp_path / "run", callbacks=(recorder,), recipe=recipe, class_weight=class_weight)
    assert recorder.loss == pytest.approx(np.mean(weights * losses), rel=1e-5)
    assert recorder.loss != pytest.approx(np.mean(losses), rel=1e-3)
    for variable, old, new, gradient in zip(
        classifier.trainable_variables, before, recorder.weights, gradients, strict=True
    ):
        np.testing.assert_allclose(new - old, -0.01 * gradient, rtol=1e-3, atol=1e-6, err_msg=variable.path)


class FirstStep(keras.callbacks.Callback):
    """The loss of the first step, and what it made of the weights."""

    def __init__(self):
        super().__init__()
        self.loss = self.weights = None

    def on_train_batch_end(self, batch, logs=None):
        if self.loss is None:
            self.loss, self.weights = logs["loss"], values(self.model.trainable_variables)


def test_validation_is_not_weighted(small, tmp_path):
    inputs = inputs_of(small)
    recipe = {"learning_rate": 0.0}
    plain, weighted = (
        train(small, inputs, tmp_path / str(bool(weight)), recipe=recipe, epochs=1, class_weight=weight)[0]
        for weight in (None, {0: 9.0, 1: 0.0})
    )
    assert weighted["loss"] != pytest.approx(plain["loss"], rel=1e-2)
    for name in ("validation_loss", "validation_top1", "top1"):
        assert weighted[name] == pytest.approx(plain[name], rel=1e-6)


def test_a_weight_of_a_class_that_is_none_is_refused(small, tmp_path):
    with pytest.raises(
        UserError, match=r"Expected labels from 0 to 5 in `class_weight`. Received: \[6, 'class0'\]"
    ) as caught:
        train(small, inputs_of(small), tmp_path, class_weight={0: 1.0, 6: 2.0, "class0": 1.0})
    one_line(caught)


@pytest.mark.parametrize("weight", [-1, math.nan, math.inf, True, "2"])
def test_a_weight_that_is_negative_or_no_number_is_refused(small, weight):
    with pytest.raises(UserError, match=r"^Expected weights from 0 in `class_weight`\. Received: ") as caught:
        class_weight_of({0: 1.0, 1: weight}, inputs_of(small).dataset)
    one_line(caught)


# A data set


def test_a_data_set_is_trained_on_as_its_inputs_are(tiny_backbone, tmp_path):
    dataset = make_dataset()
    recipe = Recipe(optimizer="sgd", learning_rate=0.01)
    history, weights = {}, {}
    for way in ("inputs", "dataset"):
        classifier = tiny_classifier(tiny_backbone)
        if way == "inputs":
            inputs = inputs_of(classifier, dataset, augmentation="standard", seed=5)
            arguments = {"epochs": 3, "recipe": recipe, "patience": 2, "class_weight": "balanced"}
            found = fit(classifier, inputs, checkpoint_dir=tmp_path / "run", **arguments)
        else:
            arguments = {"epochs": 3, "recipe": recipe, "patience": 2, "class_weight": "balanced", "batch_size": BATCH}
            arguments["least_steps"] = 1
            found = fit_dataset(classifier, dataset, caching=Caching(mode="off"), seed=5, verbose=0, **arguments)
        history[way], weights[way] = without_seconds(found), values(classifier.weights)
    assert history["inputs"] == history["dataset"]
    for one, other in zip(weights["inputs"], weights["dataset"], strict=True):
        np.testing.assert_array_equal(one, other)


def test_fitting_a_data_set_leaves_no_files_and_goes_on_from_the_weights(small, tmp_path, monkeypatch):
    """And tells a reporter what goes on."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    settings = {"caching": Caching(mode="off"), "batch_size": BATCH, "augmentation": "none"}
    listener = Listener()
    rows = [fit_dataset(small, make_dataset(), epochs=4, verbose=verbose, **settings) for verbose in (listener, 0)]
    assert [len(each) for each in rows] == [4, 4]
    assert rows[1][0]["loss"] < rows[0][0]["loss"]
    assert os.listdir(tmp_path) == []
    told, warning = listener.messages
    assert told == "cache off: as asked"
    photos = len(make_dataset().validation)
    assert warning.startswith(f"WARNING: few photos choose the epoch: {photos} for validation. ")
    assert warning.endswith("; more photos help"), "a fit has no folds"
    assert listener.rows == rows[0]
    with pytest.raises(UserError, match="Expected `verbose` to be 0, 1 or a Reporter"):
        fit_dataset(small, make_dataset(), verbose=2)


def darker(pixels, generator):
    return (pixels * generator.uniform(0.2, 0.9)).astype("uint8")


def test_photos_may_be_augmented_by_a_function(small):
    """At a rate of zero the network stays: only the photos make the losses differ."""
    settings = {"caching": Caching(mode="off"), "verbose": 0, "batch_size": BATCH, "least_steps": 1, "epochs": 1}
    recipe = Recipe(learning_rate=0.0)
    losses = [
        fit_dataset(small, make_dataset(), recipe=recipe, augmentation=augmentation, **settings)[0]["loss"]
        for augmentation in (darker, "none")
    ]
    inputs = inputs_of(small, augmentation=darker, seed=0)
    seen = [small.evaluate(pixels, labels, verbose=0)[0] for pixels, labels in inputs.training_batches(epochs=1)]
    assert losses[0] == pytest.approx(np.mean(seen), rel=1e-5) != losses[1]


class Shown(Reporter):
    """A progress display, which must come to its end."""

    def __init__(self):
        self.ended = 0

    def training(self, *, epochs, photos):
        def end():
            self.ended += 1

        callback = keras.callbacks.Callback()
        callback.on_train_end = lambda logs=None: end()
        return (callback,)


def test_a_display_ends_also_where_training_fails(small, tmp_path):
    shown = Shown()
    with pytest.raises(DivergedError):
        train(small, inputs_of(small), tmp_path, recipe={"learning_rate": 1e37}, reporter=shown)
    assert shown.ended == 1
