"""TransferClassifier does what a Keras user expects of a keras.Model."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from ktl.data.dataset import Dataset
from ktl.errors import UserError
from ktl.models.classifier import TransferClassifier
from ktl.models.recipe import Recipe, TwoRates
from ktl.progress import warn_once
from ktl.training.fit import fit_dataset
from ktl.training.options import Caching

SIZE = 42
NAMES = ("a", "b", "c")


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (24, SIZE, SIZE, 3), "uint8")


@pytest.fixture
def labels():
    return np.arange(24) % 3


@pytest.fixture
def make(tiny_backbone):
    def make(**arguments) -> TransferClassifier:
        arguments = {"class_names": NAMES, "freeze_depth": "block_relu", "seed": 0, **arguments}
        return TransferClassifier(tiny_backbone, **arguments)

    return make


def snapshot(variables) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


def same(first, second) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


class Batches(keras.utils.PyDataset):
    def __init__(self, pixels, labels):
        super().__init__()
        self.pixels, self.labels = pixels, labels

    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        return self.pixels[rows], self.labels[rows]


def test_arrays_batches_and_datasets_train_alike(make, pixels, labels):
    """The same photos in the same order give the same weights, whatever they come in."""
    sources = {
        "arrays": ((pixels, labels), {"batch_size": 8}),
        "tf.data": ((tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(8),), {}),
        "PyDataset": ((Batches(pixels, labels),), {}),
        "generator": (((Batches(pixels, labels)[n % 3] for n in range(6)),), {"steps_per_epoch": 3}),
    }
    weights = {}
    for name, (data, arguments) in sources.items():
        classifier = make()
        classifier.compile()
        history = classifier.fit(*data, epochs=2, shuffle=False, verbose=0, **arguments)
        assert len(history.history["top1"]) == 2
        weights[name] = snapshot(classifier.weights)
    for name, found in weights.items():
        assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(found, weights["arrays"], strict=True)), name


def test_fit_takes_what_keras_fit_takes(make, pixels, labels):
    classifier, seen = make(), []
    classifier.compile(jit_compile=False)
    history = classifier.fit(
        pixels,
        labels,
        batch_size=8,
        epochs=3,
        validation_split=0.25,
        class_weight={0: 1.0, 1: 2.0, 2: 0.5},
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(sorted(logs)))],
        verbose=0,
    )
    assert set(history.history) == {f"{split}{name}" for split in ("", "val_") for name in ("loss", "top1", "log_loss")}
    assert len(seen) == 3
    assert set(classifier.evaluate(pixels, labels, return_dict=True, verbose=0)) == {"loss", "top1", "log_loss"}
    assert classifier.predict(pixels, verbose=0).shape == (24, 3)


@pytest.mark.parametrize(
    "callback", [keras.callbacks.ReduceLROnPlateau(), keras.callbacks.LearningRateScheduler(lambda epoch: 1e-3)]
)
def test_callbacks_that_set_the_rate_are_refused_before_the_training(make, pixels, labels, callback):
    classifier, seen = make(), []
    before = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: seen.append(logs))
    classifier.compile()
    for callbacks in (callback, [before, callback]):
        with pytest.raises(UserError, match=rf"sets the learning rate.* Received: {type(callback).__name__}\."):
            classifier.fit(pixels, labels, callbacks=callbacks, verbose=0)
    dataset = Dataset.from_arrays(pixels, labels, class_names=NAMES)
    with pytest.raises(UserError, match="sets the learning rate"):
        fit_dataset(classifier, dataset, callbacks=[before, callback], caching=Caching(mode="off"), verbose=0)
    assert seen == []
    classifier.compile("adam")
    classifier.fit(pixels, labels, validation_split=0.5, callbacks=[callback], verbose=0)


def test_class_weight_may_leave_classes_out(make, pixels, labels):
    """They count once, of arrays as of batches."""
    batches = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(24)
    losses = []
    for data, weights in (((pixels, labels), {0: 2.0}), ((batches,), {0: 2.0}), ((batches,), {0: 2.0, 1: 1.0, 2: 1.0})):
        classifier = make()
        classifier.compile()
        fitted = classifier.fit(*data, batch_size=24, class_weight=weights, shuffle=False, verbose=0)
        losses.append(fitted.history["loss"][0])
    assert losses == pytest.approx(losses[:1] * 3)


def test_the_schedule_is_as_long_as_the_training(make, pixels, labels):
    classifier = make()
    classifier.compile(recipe=Recipe(learning_rate=0.01, head_multiplier=10.0, warmup_epochs=1))
    classifier.fit(pixels, labels, batch_size=5, epochs=4, validation_split=0.25, verbose=0)  # 18 photos, 4 steps
    for optimizer, peak in ((classifier.optimizer.new, 0.1), (classifier.optimizer.pretrained, 0.01)):
        schedule = optimizer.get_config()["learning_rate"]["config"]
        assert schedule == {"peak": pytest.approx(peak), "warmup_steps": 4, "total_steps": 16}
    assert int(classifier.optimizer.iterations) == 16
    classifier.fit(pixels, labels, batch_size=5, epochs=1, verbose=0)  # anew: not at a rate of 0
    assert int(classifier.optimizer.iterations) == 5


class Numbered(Batches):
    """With Keras 3's own word for the number of batches, and without Python's."""

    __len__ = None
    num_batches = 3


class Endless(Numbered):
    num_batches = None


@pytest.mark.filterwarnings("ignore::UserWarning")  # Keras says that it expected one array
def test_steps_are_counted_as_keras_counts_them(make, pixels, labels):
    for x in (pixels, [pixels], {"pixels": pixels}, tf.constant(pixels)):
        assert steps_of(make(), x, labels, batch_size=8) == [3, 6]
    assert steps_of(make(), Numbered(pixels, labels)) == [3, 6]
    assert steps_of(make(), tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(10)) == [3, 6]


def steps_of(classifier, *data, **arguments) -> list[int]:
    """Of one epoch, as they were counted after two; and of the schedule."""
    classifier.compile(run_eagerly=True)
    classifier.fit(*data, epochs=2, verbose=0, shuffle=False, **arguments)
    schedule = classifier.optimizer.new.get_config()["learning_rate"]["config"]
    return [int(classifier.optimizer.iterations) // 2, schedule["total_steps"]]


@pytest.mark.parametrize("source", ["tf.data", "PyDataset", "generator"])
def test_the_number_of_batches_must_be_known(make, pixels, labels, source):
    classifier = make()
    classifier.compile()
    match source:
        case "tf.data":
            endless = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(8).repeat()
        case "PyDataset":
            endless = Endless(pixels, labels)
        case "generator":
            endless = iter([])
    with pytest.raises(ValueError, match="steps_per_epoch"):
        classifier.fit(endless, epochs=1)


@pytest.mark.parametrize(
    ("count", "arguments", "message"),
    [
        (24, {"epochs": 0}, "`epochs` to be at least 1. Received: 0"),
        (24, {"validation_split": 1.0}, "photos to train on. Received: none"),
        (0, {}, "photos to train on. Received: none"),
    ],
)
def test_nothing_to_train_on_is_one_line(make, pixels, labels, count, arguments, message):
    classifier = make()
    classifier.compile()
    with pytest.raises(ValueError, match=f"^Expected {message}$"):
        classifier.fit(pixels[:count], labels[:count], verbose=0, **arguments)


def test_a_keras_optimizer_is_used_as_it_is(make, pixels, labels):
    classifier = make()
    classifier.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    history = classifier.fit(pixels, labels, epochs=1, verbose=0)
    assert type(classifier.optimizer) is keras.optimizers.SGD
    assert "accuracy" in history.history
    with pytest.raises(ValueError, match=r"optimizer.*recipe"):
        classifier.compile("sgd", recipe=Recipe())
    with pytest.raises(ValueError, match="recipe"):
        classifier.start_schedule(epochs=1, steps_per_epoch=1)
    with pytest.raises(UserError, match=r"`recipe` to be a Recipe.* Received: 'adamw'"):
        classifier.compile(recipe="adamw")
    with pytest.raises(UserError, match=r"`new_variables` to be .* Received: \['a'\]"):
        classifier.compile(new_variables=["a"])


@pytest.mark.parametrize("optimizer", [None, "sgd"])
def test_a_loss_of_the_user_s_has_labels_of_the_user_s(make, pixels, labels, optimizer):
    classifier = make()
    classifier.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True))
    history = classifier.fit(pixels, np.eye(3)[labels], validation_data=(pixels, np.eye(3)[labels]), verbose=0)
    assert set(history.history) == {"loss", "val_loss"}


@pytest.mark.parametrize("thaw", ["classifier", "layer", "model around it"])
def test_nothing_from_outside_thaws_what_is_frozen(make, pixels, labels, thaw):
    classifier = make()
    model = classifier
    if thaw == "model around it":
        inputs = keras.Input((SIZE, SIZE, 3))
        model = keras.Model(inputs, keras.layers.Softmax()(classifier(inputs)))
        model.trainable = False
    elif thaw == "classifier":
        classifier.trainable = False
        assert classifier.trainable_variables == []
    model.trainable = True
    if thaw == "layer":
        for layer in classifier.layers:
            layer.trainable = True
    frozen, trained = classifier.prefix.variables, classifier.suffix.variables
    assert any("moving_mean" in variable.path for variable in frozen)
    before, trained_before = snapshot(frozen), snapshot(trained)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=model is classifier))
    model.fit(pixels, labels, epochs=2, verbose=0)
    assert same(before, snapshot(frozen))
    assert not same(trained_before, snapshot(trained))


def test_frozen_dropout_is_off_also_in_a_model_around_it(make, pixels):
    classifier = make(freeze_depth="all")  # the tiny backbone drops out before its last layer
    inputs = keras.Input((SIZE, SIZE, 3))
    around = keras.Model(inputs, classifier(inputs))
    assert np.array_equal(around(pixels, training=True), around(pixels, training=False))
    thawed = make(freeze_depth="block_relu")
    around = keras.Model(inputs, thawed(inputs))
    assert not np.array_equal(around(pixels, training=True), around(pixels, training=False))


def test_every_layer_is_seen(make):
    classifier, lines = make(), []
    classifier.summary(print_fn=lambda line, **_: lines.append(line))
    for name in ("stem", "block_norm", "predictions", "head_normalization", "head_classifier"):
        assert classifier.get_layer(name) in classifier.layers
        assert name in "".join(lines)
    assert [layer.name for layer in classifier.new_layers] == ["head_normalization", "head_classifier"]


@pytest.mark.parametrize("compiled", [False, True])
def test_keras_clone_model_gives_the_plain_graph(make, pixels, labels, compiled):
    classifier = make()
    if compiled:
        classifier.compile()
        classifier.fit(pixels, labels, verbose=0)
    clone = keras.models.clone_model(classifier)
    clone.set_weights(classifier.get_weights())
    assert np.array_equal(clone.predict(pixels, verbose=0), classifier.predict(pixels, verbose=0))
    assert [v.path for v in clone.trainable_variables] == [v.path for v in classifier.trainable_variables]
    if compiled:
        clone.fit(pixels, labels, verbose=0)
        assert isinstance(clone.optimizer, TwoRates)


def test_a_clone_of_a_model_around_it_has_a_classifier(make, pixels):
    inputs = keras.Input((SIZE, SIZE, 3))
    around = keras.Model(inputs, keras.layers.Softmax()(make()(inputs)))
    clone = keras.models.clone_model(around)
    clone.set_weights(around.get_weights())
    assert np.array_equal(clone.predict(pixels, verbose=0), around.predict(pixels, verbose=0))
    inner = clone.get_layer("transfer_classifier")
    assert (type(inner), inner.boundary.name, inner.class_names) == (TransferClassifier, "block_relu", NAMES)


def shared_twice() -> keras.Model:
    """A convolution and a nested model that are used twice."""
    pixels, inner = keras.Input((SIZE, SIZE, 3)), keras.Input((SIZE, SIZE, 3))
    convolution = keras.layers.Conv2D(3, 3, padding="same", name="convolution")
    nested = keras.Model(inner, keras.layers.ReLU()(convolution(inner)))
    pooled = keras.layers.GlobalAveragePooling2D()(nested(nested(pixels)))
    return keras.Model(pixels, keras.layers.Dense(5, name="classes")(pooled))


@pytest.mark.parametrize("source", ["path", "model", "model with shared layers", "file"])
def test_the_outputs_of_its_layers_can_be_had(make, tiny_backbone, pixels, source, tmp_path):
    """As for a picture of what a layer answers to."""
    match source:
        case "path":
            classifier = make()
        case "model":
            classifier = TransferClassifier(keras.models.load_model(tiny_backbone), class_names=NAMES)
        case "model with shared layers":
            classifier = TransferClassifier(shared_twice(), class_names=NAMES)
        case "file":
            make().save(tmp_path / "classifier.keras")
            classifier = keras.models.load_model(tmp_path / "classifier.keras")
    model = keras.Model(classifier.input, [layer.output for layer in classifier.layers])
    *_, logits = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(logits, classifier.predict(pixels, verbose=0), atol=1e-5)


@pytest.mark.parametrize("trained", ["recipe", "sgd"])
def test_training_goes_on_with_equal_numbers_after_loading(make, pixels, labels, trained, tmp_path):
    """Two epochs, saved by ModelCheckpoint and loaded, then two more: as four in one go, dropout included."""

    def fit(classifier, **arguments):
        return classifier.fit(pixels, labels, batch_size=8, epochs=4, shuffle=False, verbose=0, **arguments)

    whole = make()
    arguments = {} if trained == "recipe" else {"optimizer": keras.optimizers.SGD(0.01, momentum=0.9)}
    whole.compile(**arguments)
    fit(whole, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")])
    loaded = keras.models.load_model(tmp_path / "2.keras")
    assert type(loaded) is TransferClassifier
    assert (loaded.class_names, loaded.head, loaded.boundary.name) == (NAMES, "kept", "block_relu")
    assert int(loaded.optimizer.iterations) == 6
    fit(loaded, initial_epoch=2)
    assert same(snapshot(whole.weights), snapshot(loaded.weights))
    assert same(snapshot(whole.optimizer.variables), snapshot(loaded.optimizer.variables))
    if trained == "recipe":
        assert isinstance(loaded.optimizer, TwoRates)


def test_a_file_holds_the_graph_and_needs_no_backbone(make, pixels, tmp_path, monkeypatch):
    classifier = make(head="kept_beside", hidden_units=7, freeze_depth=2)
    classifier.save(tmp_path / "classifier.keras")
    monkeypatch.setattr("ktl.models.backbones.BACKBONES", {})
    monkeypatch.setattr("ktl.models.classifier.build_backbone", None)
    loaded = keras.models.load_model(tmp_path / "classifier.keras")
    assert np.array_equal(loaded.predict(pixels, verbose=0), classifier.predict(pixels, verbose=0))
    assert [b.name for b in loaded.boundaries] == [b.name for b in classifier.boundaries]
    assert [v.path for v in loaded.trainable_variables] == [v.path for v in classifier.trainable_variables]
    json.dumps(classifier.get_config())
    clone = TransferClassifier.from_config(classifier.get_config())
    clone.set_weights(classifier.get_weights())
    assert np.array_equal(clone.predict(pixels, verbose=0), classifier.predict(pixels, verbose=0))


def test_a_compiled_classifier_that_never_trained_keeps_its_recipe(make, pixels, labels, tmp_path):
    classifier = make()
    classifier.compile(recipe=Recipe(optimizer="sgd", learning_rate=0.5, label_smoothing=0.1))
    classifier.save(tmp_path / "classifier.keras")
    loaded = keras.models.load_model(tmp_path / "classifier.keras")
    loaded.fit(pixels, labels, epochs=1, verbose=0)
    assert type(loaded.optimizer.new) is keras.optimizers.SGD
    assert loaded.optimizer.pretrained.get_config()["learning_rate"]["config"]["peak"] == 0.5
    assert loaded.loss.label_smoothing == 0.1


def test_the_seed_decides_the_new_layers_and_leaves_the_process_its_own(make):
    import random

    random.seed(5)
    expected = random.random()
    random.seed(5)
    first, second, third = (snapshot(make(seed=seed).weights) for seed in (1, 1, 2))
    assert random.random() == expected
    assert same(first, second)
    assert not same(first, third)


def test_a_users_own_model_is_copied(tiny_backbone, pixels, labels):
    model = keras.models.load_model(tiny_backbone)
    names, before = [layer.name for layer in model.layers], snapshot(model.weights)
    expected = model.predict(pixels, verbose=0)
    classifier = TransferClassifier(model, class_names=NAMES, freeze_depth="none")
    classifier.compile()
    classifier.fit(pixels, labels, epochs=2, verbose=0)
    assert not {id(v) for v in classifier.variables} & {id(v) for v in model.variables}
    assert [layer.name for layer in model.layers] == names
    assert all(layer.trainable for layer in model.layers)
    assert same(before, snapshot(model.weights))
    assert np.array_equal(model.predict(pixels, verbose=0), expected)


class OwnCall(keras.Model):
    def __init__(self):
        inputs = keras.Input((SIZE, SIZE, 3))
        super().__init__(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(inputs)))

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs)


class NeverAgain(keras.layers.Layer):
    def __init__(self, secret):
        super().__init__()
        self.secret = secret

    def call(self, inputs):
        return inputs * self.secret


def with_layer(layer) -> keras.Model:
    inputs = keras.Input((SIZE, SIZE, 3))
    return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(layer(inputs))))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (OwnCall, "functional"),
        (lambda: with_layer(NeverAgain(3.0)), "layers can be copied"),
        (lambda: with_layer(keras.layers.Lambda(lambda x: x * 2)), "layers can be copied"),
        (lambda: keras.Sequential([keras.layers.Flatten()]), "functional"),
        (lambda: 3, "Expected `backbone` to be .*Received: 3"),
    ],
)
def test_what_cannot_be_copied_is_refused_in_one_line(model, message):
    with pytest.raises(UserError, match=message) as error:
        TransferClassifier(model(), class_names=NAMES)
    assert "\n" not in str(error.value)


def test_a_classifier_is_a_backbone_of_the_next(make, pixels, labels, tmp_path):
    """Going on from ktl's own model, twice: its layers are the backbone's, and learn at their rate."""
    classifier, path = make(head="replaced_normalized", freeze_depth="none"), tmp_path / "model.keras"
    for generation, whole in enumerate((True, False)):
        (classifier if whole else classifier.as_functional()).save(path)
        logits = classifier.predict(pixels, verbose=0)
        following = TransferClassifier(str(path), class_names=("x", "y"), head="kept_raw", freeze_depth="none", seed=1)
        kernel, bias = following.get_layer("head_classifier").get_weights()
        assert np.allclose(following.predict(pixels, verbose=0), logits @ kernel + bias, atol=1e-5)
        assert following.get_layer("previous_" * (generation + 1) + "head_classifier")
        assert [v.path for v in following.new_variables] == ["head_classifier/kernel", "head_classifier/bias"]
        following.compile(recipe=Recipe(learning_rate=1e-3, head_multiplier=0.0, warmup_epochs=0))
        before = snapshot(following.trainable_variables)
        following.fit(pixels, labels % 2, epochs=1, batch_size=24, verbose=0)
        moved = [
            v.path
            for v, value in zip(following.trainable_variables, before, strict=True)
            if not np.array_equal(value, v)
        ]
        assert any(path.startswith("previous_") for path in moved)
        assert not any(path.startswith("head_") for path in moved), "the new layers' rate is 0 here"
        classifier = following


def test_xla_gives_the_same(make, pixels, labels):
    losses = []
    for jit_compile in (False, True):
        classifier = make(freeze_depth="all")
        classifier.compile(jit_compile=jit_compile)
        assert classifier.jit_compile is jit_compile
        history = classifier.fit(pixels, labels, batch_size=8, epochs=2, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.usefixtures("float32_policy")
def test_mixed_precision_with_loss_scaling(make, pixels, labels, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    classifier = make()
    classifier.compile()
    history = classifier.fit(pixels, labels, batch_size=8, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert type(classifier.optimizer) is keras.optimizers.LossScaleOptimizer
    assert classifier.get_layer("head_normalization").gamma.dtype == "float32"
    classifier.save(tmp_path / "classifier.keras")
    loaded = keras.models.load_model(tmp_path / "classifier.keras")
    assert np.array_equal(loaded.predict(pixels, verbose=0), classifier.predict(pixels, verbose=0))
    assert same(snapshot(loaded.optimizer.variables), snapshot(classifier.optimizer.variables))


def test_labels_may_be_in_a_column_or_a_list(make, pixels, labels):
    """As `keras.datasets.cifar10` has them, or Python."""
    losses = []
    for given in (labels, labels[:, np.newaxis], labels.tolist(), tf.constant(labels)):
        classifier = make()
        classifier.compile()
        losses.append(classifier.fit(pixels, given, shuffle=False, verbose=0).history["loss"])
    assert losses == losses[:1] * 4


@pytest.mark.parametrize(("divisor", "told"), [(1, ""), (255, "pixels are up to 1, where 0..255 are expected")])
def test_pixels_from_0_to_1_are_told_of(make, pixels, labels, caplog, divisor, told):
    warn_once.cache_clear()
    classifier = make()
    classifier.compile(run_eagerly=True)
    classifier.fit((pixels / divisor).astype("float32"), labels, verbose=0)
    assert told in caplog.text
    assert bool(caplog.text) is bool(told)


@pytest.mark.parametrize("where", ["tf.data", "validation_data"])
def test_one_hot_labels_are_refused_wherever_they_are(make, pixels, labels, where):
    classifier, one_hot = make(), np.eye(3)[labels]
    classifier.compile()
    batches = tf.data.Dataset.from_tensor_slices((pixels, one_hot)).batch(8)
    data = (batches,) if where == "tf.data" else (pixels, labels)
    validation_data = (pixels, one_hot) if where == "validation_data" else None
    with pytest.raises(ValueError, match=r"whole labels \[photos\] from 0 to 2. Received: .*3\)"):
        classifier.fit(*data, validation_data=validation_data, shuffle=False, verbose=0)


def test_labels_of_validation_photos_that_are_no_classes_are_refused(make, pixels, labels):
    classifier = make()
    classifier.compile()
    with pytest.raises(ValueError, match=r"whole labels .* Received: 1 to 3"):
        classifier.fit(pixels, labels, validation_data=(pixels, labels + 1), verbose=0)


@pytest.mark.parametrize("bad", [[0, 1, 3], [-1, 0, 1], ["a", "b", "c"], [0.5, 1.0, 2.0], [[1, 0, 0]] * 3])
def test_labels_that_are_no_classes_are_refused(make, pixels, bad):
    classifier = make()
    classifier.compile()
    with pytest.raises(ValueError, match="whole labels"):
        classifier.fit(pixels[:3], np.array(bad), verbose=0)


def test_after_compile_the_rates_stay_at_their_peaks(make, pixels, labels):
    classifier = make()
    classifier.compile()
    kernel = classifier.get_layer("head_classifier").kernel
    for _ in range(3):
        before = kernel.numpy()
        classifier.train_on_batch(pixels, labels)
        assert np.abs(kernel.numpy() - before).max() == pytest.approx(0.01, rel=0.1), "a step of AdamW is its rate"


def test_training_does_not_go_on_past_the_schedule(make, pixels, labels):
    classifier = make()
    classifier.compile()
    classifier.fit(pixels, labels, batch_size=8, epochs=2, verbose=0)
    with pytest.raises(ValueError, match="epochs=5"):
        classifier.fit(pixels, labels, batch_size=8, epochs=5, initial_epoch=2, verbose=0)


def test_what_was_frozen_by_hand_stays_so_in_a_file(make, pixels, labels, tmp_path):
    classifier = make()
    classifier.get_layer("point").trainable = False
    classifier.compile(new_variables=classifier.get_layer("predictions").trainable_variables)
    classifier.fit(pixels, labels, epochs=1, verbose=0)
    classifier.save(tmp_path / "classifier.keras")
    loaded = keras.models.load_model(tmp_path / "classifier.keras")
    paths = [variable.path for variable in classifier.trainable_variables]
    assert [variable.path for variable in loaded.trainable_variables] == paths
    assert not any(path.startswith("point/") for path in paths)
    loaded.fit(pixels, labels, epochs=1, verbose=0)
    assert loaded.optimizer.new_paths == ["predictions/kernel", "predictions/bias"]


def test_freezing_later_freezes_what_was_traced(make, pixels, labels):
    classifier = make(freeze_depth="none")
    classifier.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    classifier.fit(pixels, labels, epochs=1, verbose=0)
    classifier.freeze("all")
    before = snapshot(classifier.prefix.weights)
    classifier.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    classifier.fit(pixels, labels, epochs=1, verbose=0)
    assert same(before, snapshot(classifier.prefix.weights))


def test_a_nested_model_with_a_call_of_its_own_is_refused():
    inputs, inner_inputs = keras.Input((SIZE, SIZE, 3)), keras.Input((SIZE, SIZE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inner_inputs))
    nested = OwnCallAround(inner_inputs, pooled)
    model = keras.Model(inputs, keras.layers.Dense(5)(nested(inputs)))
    with pytest.raises(UserError, match="call"):
        TransferClassifier(model, class_names=NAMES)


class OwnCallAround(keras.Model):
    def call(self, inputs, training=None, mask=None):
        return 100 * super().call(inputs)
