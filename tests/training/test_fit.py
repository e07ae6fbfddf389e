import contextlib
import math
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from support import start

from ktl.config.settings import RunConfig
from ktl.errors import UserError
from ktl.models.backbones import build_backbone
from ktl.models.classifier import build_network
from ktl.training import fit as training

SIZE, CLASSES, PHOTOS, BATCH = 42, 6, 20, 5
STEPS = PHOTOS // BATCH
MIDDLE = "depthwise_relu"


def make_config(**changes):
    return RunConfig(
        **{"dataset": "x", "epochs": 5, "warmup_epochs": 0.0, "weight_decay": 0.0, "patience": 0} | changes
    )


def make_network(path, *, freeze_depth="none", seed=0, **changes):
    keras.utils.set_random_seed(seed)
    return build_network(build_backbone(str(path)), classes=CLASSES, freeze_depth=freeze_depth, **changes)


def without_dropout(network):
    for layer in network.graph.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return network


def compiled(network, config, *, xla=False):
    training.compile_model(
        network.model, head_variables=network.head_variables, config=config, steps_per_epoch=STEPS, xla=xla
    )
    return network.model


@pytest.fixture
def network(tiny_backbone):
    return make_network(tiny_backbone)


@pytest.fixture
def small_network(tiny_backbone):
    """Trains its head alone, which is quick to trace."""
    return make_network(tiny_backbone, freeze_depth="all", head="kept_raw")


def make_photos(count=PHOTOS, seed=0):
    """Noise with the class as its brightness: can be learned in a few epochs."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(count, dtype=np.int32) % CLASSES)
    brightness = 20 + 40 * labels[:, None, None, None]
    pixels = brightness + generator.normal(0, 8, (count, SIZE, SIZE, 3)) * np.array([1, 2, 3])
    return pixels.clip(0, 255).astype(np.uint8), labels


def train_batches(first_epoch, epochs=5):
    """All epochs from the given one on, each in an order of its own."""
    pixels, labels = make_photos()
    orders = [np.random.default_rng(epoch).permutation(PHOTOS) for epoch in range(first_epoch, epochs)]
    order = np.concatenate([*orders, np.empty(0, int)]).astype(int)
    return tf.data.Dataset.from_tensor_slices((pixels[order], labels[order])).batch(BATCH)


def validation_batches():
    return tf.data.Dataset.from_tensor_slices(make_photos(10, seed=1)).batch(BATCH)


def fit(model, config, folder, **changes):
    arguments = {
        "train": lambda first_epoch: train_batches(first_epoch, config.epochs),
        "steps_per_epoch": STEPS,
        "validation": validation_batches(),
        "config": config,
        "checkpoint_dir": str(folder),
    }
    return training.fit(model, **(arguments | changes))


def values(variables) -> list:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def put_back(variables, saved):
    for variable, value in zip(variables, saved, strict=True):
        variable.assign(value)


def loss_gradients(model, pixels, labels) -> list:
    """By a GradientTape, with TensorFlow's own loss; leaves the model as it was."""
    trainable = {id(variable) for variable in model.trainable_variables}
    state = [variable for variable in model.variables if id(variable) not in trainable]
    saved = values(state)  # statistics of norms, and the dropout's generator
    with tf.GradientTape() as tape:
        logits = model(pixels, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    put_back(state, saved)
    return [gradient.numpy().astype(np.float64) for gradient in gradients]


# Optimizers


def test_one_step_moves_each_group_by_its_own_rate(network):
    model = compiled(network, make_config(optimizer="sgd", learning_rate=0.03, head_multiplier=7.0))
    pixels, labels = make_photos(BATCH)
    gradients = loss_gradients(model, pixels, labels)
    before = values(model.trainable_variables)
    model.train_on_batch(pixels, labels)
    names = []
    for variable, old, gradient in zip(model.trainable_variables, before, gradients, strict=True):
        new_layer = variable.path.startswith("head_")
        rate = 0.03 * 7 if new_layer else 0.03
        assert np.abs(gradient).max() > 0, variable.path
        np.testing.assert_allclose(
            variable.numpy() - old.astype(np.float64), -rate * gradient, rtol=2e-3, atol=3e-7, err_msg=variable.path
        )
        names.append(new_layer)
    assert 0 < sum(names) < len(names)


def expected_rate(step, peak, warmup, total):
    """Linear from 0 to the peak, then half a cosine to 0."""
    if step < warmup:
        return peak * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


@pytest.mark.parametrize(("warmup_epochs", "warmup_steps"), [(1.5, 6), (99.0, 11)])
def test_every_step_has_the_rate_of_the_schedule_and_momentum_nine_tenths(tiny_backbone, warmup_epochs, warmup_steps):
    network = make_network(tiny_backbone, freeze_depth="block_relu")
    config = make_config(
        epochs=3, optimizer="sgd", learning_rate=0.02, head_multiplier=3.0, warmup_epochs=warmup_epochs
    )
    model = compiled(network, config)
    pixels, labels = make_photos(BATCH)
    groups = {0.02: [], 0.06: []}
    for i, variable in enumerate(model.trainable_variables):
        groups[0.06 if variable.path.startswith("head_") else 0.02].append(i)
    velocity = [0.0] * len(model.trainable_variables)
    for step in range(config.epochs * STEPS):
        gradients = loss_gradients(model, pixels, labels)
        before = values(model.trainable_variables)
        model.train_on_batch(pixels, labels)
        moved = [
            new.astype(np.float64) - old for new, old in zip(values(model.trainable_variables), before, strict=True)
        ]
        for peak, members in groups.items():
            # velocity' = 0.9 velocity - rate * gradient: the rate that fits all elements of the group best
            impulse = np.concatenate([np.ravel(moved[i] - 0.9 * velocity[i]) for i in members])
            gradient = np.concatenate([np.ravel(gradients[i]) for i in members])
            rate = -impulse @ gradient / (gradient @ gradient)
            assert rate == pytest.approx(expected_rate(step, peak, warmup_steps, 12), rel=5e-3, abs=5e-3 * peak), step
        velocity = moved


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_shrinks_kernels_and_leaves_norms_and_biases_alone(network, optimizer):
    pixels, labels = make_photos(BATCH)
    start_values = values(network.model.variables)
    after = {}
    for weight_decay in (0.0, 0.5):
        put_back(network.model.variables, start_values)
        config = make_config(optimizer=optimizer, learning_rate=0.01, head_multiplier=5.0, weight_decay=weight_decay)
        compiled(network, config).train_on_batch(pixels, labels)
        after[weight_decay] = {v.path: v.numpy() for v in network.model.trainable_variables}
    before = {v.path: value for v, value in zip(network.model.variables, start_values, strict=True)}
    shrunk = set()
    for path, plain in after[0.0].items():
        rate = 0.05 if path.startswith("head_") else 0.01
        if path.endswith("kernel"):
            expected = plain - rate * 0.5 * before[path]
            shrunk.add(path)
        else:
            expected = plain
            np.testing.assert_array_equal(after[0.5][path], plain, err_msg=path)
        np.testing.assert_allclose(after[0.5][path], expected, rtol=1e-5, atol=1e-7, err_msg=path)
    assert len(shrunk) == 6
    assert {"head_normalization/gamma", "head_classifier/bias", "stem_norm/gamma", "stem_norm/beta"} <= {
        *after[0.0]
    } - shrunk


def test_a_frozen_backbone_trains_with_the_head_rate_alone(tiny_backbone):
    network = make_network(tiny_backbone, freeze_depth="all", head="kept_raw")
    model = compiled(network, make_config(optimizer="sgd", learning_rate=1e-5, head_multiplier=1000.0))
    pixels, labels = make_photos(BATCH)
    gradients = loss_gradients(model, pixels, labels)
    before = values(model.trainable_variables)
    model.train_on_batch(pixels, labels)
    for new, old, gradient in zip(values(model.trainable_variables), before, gradients, strict=True):
        np.testing.assert_allclose(new - old, -1e-2 * gradient, rtol=1e-3, atol=1e-7)


# The loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.99])
def test_loss_is_the_cross_entropy_with_smoothed_labels(network, smoothing):
    model = compiled(network, make_config(label_smoothing=smoothing))
    pixels, labels = make_photos(BATCH)
    logits = model.predict(pixels, verbose=0).astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    wanted = (1 - smoothing) * np.eye(CLASSES)[labels] + smoothing / CLASSES
    expected = -(wanted * log_probabilities).sum(1).mean()
    loss, top1 = model.evaluate(pixels, labels, verbose=0)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert top1 == pytest.approx(np.mean(logits.argmax(1) == labels))


@pytest.mark.parametrize(("optimizer", "learning_rate"), [("sgd", 1e37), ("adamw", 1e37)])
def test_a_loss_that_is_not_finite_ends_in_one_line(small_network, tmp_path, optimizer, learning_rate):
    config = make_config(optimizer=optimizer, learning_rate=learning_rate)
    with pytest.raises(UserError, match=r"Expected a finite loss. Received: (nan|inf) in epoch \d") as error:
        fit(compiled(small_network, config), config, tmp_path / "checkpoint")
    assert "\n" not in str(error.value)
    assert "--learning-rate" in str(error.value)


def test_a_last_step_into_infinity_is_noticed_too(small_network, tmp_path):
    """The training loss is that of before the step: only the validation loss tells."""
    config = make_config(optimizer="sgd", learning_rate=1e38, epochs=1)
    with pytest.raises(UserError, match="Expected a finite loss"):
        fit(
            compiled(small_network, config),
            config,
            tmp_path / "checkpoint",
            train=lambda first_epoch: train_batches(0, 1).take(1),
            steps_per_epoch=1,
        )


# The best epoch and the end


def row(epoch, top1, loss):
    return {"epoch": epoch, "validation_top1": top1, "validation_loss": loss}


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([(0.5, 1.0)], 1),
        ([(0.5, 1.0), (0.6, 2.0), (0.4, 0.1)], 2),  # top-1 before loss
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)], 2),  # then loss
        ([(0.5, 1.0), (0.5, 1.0)], 1),  # then the earlier one
    ],
)
def test_best_epoch(rows, best):
    assert training.best_epoch([row(i, *numbers) for i, numbers in enumerate(rows, 1)]) == best


class Recorder(keras.callbacks.Callback):
    """The weights after every epoch."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(values(self.model.variables))


def test_training_stops_after_the_patience_with_the_best_epochs_weights(tiny_backbone, tmp_path):
    network = make_network(tiny_backbone, freeze_depth="stem_relu")
    config = make_config(epochs=30, patience=3, learning_rate=0.02, warmup_epochs=1.0)
    recorder, rows = Recorder(), []
    # Validation labels are the neighbours of the right ones: what is learned makes validation worse, soon.
    pixels, labels = make_photos(10, seed=1)
    validation = tf.data.Dataset.from_tensor_slices((pixels, (labels + 1) % CLASSES)).batch(BATCH)
    model = compiled(network, config)
    history = fit(
        model,
        config,
        tmp_path,
        validation=validation,
        callbacks=(recorder,),
        on_epoch=lambda row: rows.append(dict(row)),
    )
    scores = [(row["validation_top1"], -row["validation_loss"]) for row in history]
    best = scores.index(max(scores))
    assert len(history) < 30
    assert len(history) - 1 - best == 3
    for variable, expected in zip(model.variables, recorder.weights[best], strict=True):
        np.testing.assert_array_equal(variable, expected, err_msg=variable.path)
    assert any((a != b).any() for a, b in zip(recorder.weights[best], recorder.weights[-1], strict=True))
    loss, top1 = model.evaluate(validation, verbose=0)
    assert (top1, loss) == pytest.approx((history[best]["validation_top1"], history[best]["validation_loss"]), rel=1e-5)
    assert rows == history
    # Called again, a run that is out of patience trains no more.
    assert fit(model, config, tmp_path, validation=validation, train=None) == history


def test_without_patience_all_epochs_are_trained_and_recorded(small_network, tmp_path):
    (tmp_path / "last-1.npz").write_bytes(b"litter is no checkpoint")
    config = make_config(learning_rate=0.0, epochs=3)  # never better than at the start
    model = compiled(small_network, config)
    expected = dict(
        zip(("validation_loss", "validation_top1"), model.evaluate(validation_batches(), verbose=0), strict=True)
    )
    history = fit(model, config, tmp_path)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    for row in history:
        assert list(row) == ["epoch", "loss", "top1", "validation_loss", "validation_top1", "seconds"]
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)
        assert 0 < row["seconds"] < 60


# Resuming


class Interrupt(Exception):
    pass


def interrupt_after(epoch):
    def on_epoch(row):
        if row["epoch"] == epoch:
            raise Interrupt

    return on_epoch


def without_seconds(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


RESUME = {"learning_rate": 0.003, "warmup_epochs": 1.0, "weight_decay": 0.01, "label_smoothing": 0.1}


@pytest.mark.parametrize(("optimizer", "freeze_depth", "litter"), [("adamw", MIDDLE, False), ("sgd", "all", True)])
def test_two_epochs_and_three_more_equal_five_bit_for_bit(tiny_backbone, tmp_path, optimizer, freeze_depth, litter):
    config = make_config(optimizer=optimizer, **RESUME)
    whole = make_network(tiny_backbone, freeze_depth=freeze_depth)
    history = fit(compiled(whole, config), config, tmp_path / "whole")

    first = make_network(tiny_backbone, freeze_depth=freeze_depth)
    with pytest.raises(Interrupt):
        fit(compiled(first, config), config, tmp_path / "parts", on_epoch=interrupt_after(2))
    keras.backend.clear_session()
    if litter:  # what a kill in the middle of a write leaves, and worse
        for name in ("last-3.npz", "best-3.npz", ".last-3.npz-abc", "last-1.npz", "last-99.npz", ".state.json-xyz"):
            (tmp_path / "parts" / name).write_bytes(b"PK\3\4 not whole")

    # Other initial weights and another state of all generators: everything must come from the checkpoint.
    second = make_network(tiny_backbone, freeze_depth=freeze_depth, seed=99)
    rows = []
    resumed = fit(compiled(second, config), config, tmp_path / "parts", on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == [3, 4, 5]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert without_seconds(resumed) == without_seconds(history)
    assert len({row["loss"] for row in history}) == 5
    for part in ("prefix", "suffix"):
        pairs = zip(getattr(second, part).weights, getattr(whole, part).weights, strict=True)
        for variable, expected in pairs:
            np.testing.assert_array_equal(variable, expected, err_msg=variable.path)
    optimizers = [values(network.model.optimizer.variables) for network in (second, whole)]
    assert len(optimizers[0]) >= 4
    for variable, expected in zip(*optimizers, strict=True):
        np.testing.assert_array_equal(variable, expected)
    # No more than the last and the best epoch stay on disk.
    best = training.best_epoch(history)
    assert sorted(os.listdir(tmp_path / "parts")) == sorted({"last-5.npz", f"best-{best}.npz", "state.json"})


def test_a_finished_training_is_not_repeated(small_network, tmp_path):
    config = make_config(epochs=2)
    model = compiled(small_network, config)
    history = fit(model, config, tmp_path)
    trained = values(model.trainable_variables)
    put_back(model.trainable_variables, [value * 0 for value in trained])
    assert fit(model, config, tmp_path, train=None) == history
    for variable, expected in zip(model.trainable_variables, trained, strict=True):
        np.testing.assert_array_equal(variable, expected)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("call", range(1, 12))
def test_a_kill_at_any_file_operation_loses_no_more_than_the_epoch(tmp_path, monkeypatch, call):
    """Epochs whose weights are their number, killed at the n-th file that is put into place or removed."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    calls = []

    def killed_at(function):
        def counted(*arguments):
            calls.append(function)
            if len(calls) == call:
                raise Killed
            return function(*arguments)

        return counted

    def new_checkpoint():
        checkpoint = training.Checkpoint(str(tmp_path), patience=0, on_epoch=lambda row: None)
        checkpoint.set_model(model)
        return checkpoint

    def set_all(number):
        put_back(model.variables, [np.full(v.shape, number) for v in model.variables])
        put_back(model.optimizer.variables[2:], [np.full(v.shape, -number) for v in model.optimizer.variables[2:]])

    validation = [0.1, 0.3, 0.2, 0.4]
    checkpoint, complete = new_checkpoint(), 0
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        for name in ("replace", "remove"):
            patch.setattr(os, name, killed_at(getattr(os, name)))
        for epoch, top1 in enumerate(validation):
            set_all(epoch + 1)
            checkpoint.on_epoch_begin(epoch)
            checkpoint.on_epoch_end(epoch, {"loss": 1.0, "top1": 0.5, "val_loss": 1.0, "val_top1": top1})
            complete = epoch + 1
    assert len(calls) == call
    set_all(77)
    again = new_checkpoint()
    restored = again.restore(model)
    assert restored in (complete, complete + 1)
    assert [row["epoch"] for row in again.history] == list(range(1, restored + 1))
    if restored:
        np.testing.assert_array_equal(model.variables[0], np.full((2, 1), restored))
        np.testing.assert_array_equal(model.optimizer.variables[2], np.full((2, 1), -restored))
        again.restore_best(model)
        best = 1 + int(np.argmax(validation[:restored]))
        np.testing.assert_array_equal(model.variables[0], np.full((2, 1), best))
    else:
        np.testing.assert_array_equal(model.variables[0], np.full((2, 1), 77))


# The machine


def test_xla_compiles_and_gives_the_same_numbers(tiny_backbone, tmp_path):
    # Not AdamW: it makes full steps of the rounding errors that are the gradient of a bias before a normalisation.
    config = make_config(epochs=2, xla="on", optimizer="sgd", learning_rate=0.003)
    histories = {}
    for xla in (False, True):
        network = without_dropout(make_network(tiny_backbone, freeze_depth=MIDDLE))  # XLA draws other masks
        model = compiled(network, config, xla=xla)
        assert model.jit_compile is xla
        histories[xla] = fit(model, config, tmp_path / str(xla))
        assert model.jit_compile is xla
    for plain, jit in zip(*map(without_seconds, histories.values()), strict=True):
        assert jit == pytest.approx(plain, abs=1e-4)


@pytest.fixture
def machine_settings(float32_policy):
    """Puts back what `set_up_machine` sets for the whole process."""
    yield
    from tensorflow.python.framework import config

    config.disable_op_determinism()


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="says what a CPU gets")
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}),
        ({"xla": "on"}, {"xla": True}),
        ({"xla": "off"}, {}),
        ({"precision": "mixed_bfloat16"}, {"precision": "mixed_bfloat16"}),
        ({"precision": "mixed_float16"}, {"precision": "mixed_float16"}),
        ({"strategy": "none"}, {}),
        ({"deterministic": True}, {}),
    ],
)
def test_the_machine_says_what_is_in_force_on_a_cpu(machine_settings, settings, expected):
    machine = training.set_up_machine(make_config(**settings))
    plain = {"devices": ("CPU",), "precision": "float32", "xla": False, "strategy": "none"}
    assert machine == training.Machine(**plain | expected)
    assert keras.config.dtype_policy().name == machine.precision
    from tensorflow.python.framework import config

    assert config.is_op_determinism_enabled() is settings.get("deterministic", False)
    with machine.scope():
        assert not isinstance(tf.distribute.get_strategy(), tf.distribute.MirroredStrategy)


def test_the_seed_decides_the_initial_weights(tiny_backbone, machine_settings):
    heads = []
    for seed in (3, 3, 4):
        training.set_up_machine(make_config(seed=seed))
        network = build_network(build_backbone(str(tiny_backbone)), classes=CLASSES)
        heads.append(network.suffix.get_layer("head_classifier").get_weights()[0])
    np.testing.assert_array_equal(heads[0], heads[1])
    assert (heads[0] != heads[2]).all()


def kernel_dtypes(model) -> set[str]:
    """What the layers that multiply compute in."""
    return {layer.compute_dtype for layer in model.layers if any(len(weight.shape) > 1 for weight in layer.weights)}


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_reaches_the_layers(machine_settings, precision):
    training.set_up_machine(make_config(precision=precision))
    network = build_network(build_backbone("mobilenet_0.25", weights="random", image_size=SIZE), classes=CLASSES)
    assert kernel_dtypes(network.graph) == {precision.removeprefix("mixed_"), "float32"}
    assert network.suffix.get_layer("head_classifier").compute_dtype == "float32"  # logits, for the loss
    assert network.graph.output.dtype == "float32"
    assert {variable.dtype for variable in network.graph.trainable_variables} == {"float32"}


def test_mixed_precision_reaches_the_layers_of_a_file(machine_settings, tiny_backbone):
    training.set_up_machine(make_config(precision="mixed_bfloat16"))
    assert "bfloat16" in kernel_dtypes(build_backbone(str(tiny_backbone)).model)


def test_training_with_a_loss_scale_resumes(tiny_backbone, machine_settings, tmp_path):
    config = make_config(epochs=4, precision="mixed_float16", learning_rate=0.003)
    training.set_up_machine(config)
    model = compiled(make_network(tiny_backbone, freeze_depth="block_relu"), config)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    before = values(model.trainable_variables)
    with pytest.raises(Interrupt):
        fit(model, config, tmp_path, on_epoch=interrupt_after(1))
    assert [row["epoch"] for row in fit(model, config, tmp_path)] == [1, 2, 3, 4]
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (variable.numpy() != old).any(), variable.path


# Several devices


def _train_on_two_devices(backbone, folder):
    """In a process of its own, whose CPU is made into two."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    config = make_config(optimizer="sgd", epochs=2, learning_rate=0.01, weight_decay=0.01)
    batches = tf.data.Dataset.from_tensor_slices(make_photos()).repeat().batch(4)
    arguments = {
        "train": lambda first_epoch: batches.skip(STEPS * first_epoch),
        "validation": batches.take(3),
        "steps_per_epoch": STEPS,
    }
    for strategy in ("none", "mirrored"):
        machine = training.Machine(("CPU",), "float32", False, strategy)
        with machine.scope():
            network = without_dropout(make_network(backbone, freeze_depth="none"))
        with machine.scope():
            compiled(network, config)
        if strategy == "mirrored":
            with pytest.raises(Interrupt):
                fit(network.model, config, os.path.join(folder, strategy), on_epoch=interrupt_after(1), **arguments)
        history = fit(network.model, config, os.path.join(folder, strategy), **arguments)
        replicas = network.model.distribute_strategy.num_replicas_in_sync if strategy == "mirrored" else 1
        losses = [row["loss"] for row in history] + [row["validation_loss"] for row in history]
        np.savez(os.path.join(folder, f"{strategy}.npz"), replicas, losses, *values(network.graph.variables))


def test_two_devices_train_to_the_numbers_of_one(tiny_backbone, tmp_path):
    process = start(_train_on_two_devices, str(tiny_backbone), str(tmp_path))
    process.join(120)
    assert process.exitcode == 0
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("none", "mirrored"))
    assert (one["arr_0"], two["arr_0"]) == (1, 2)
    assert len(one.files) > 10
    for name in one.files[1:]:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-5)
