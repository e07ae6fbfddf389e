"""Compiling and fitting: the only place that names optimizers, XLA, precision and devices."""

import dataclasses
import functools
import json
import math
import os
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from ktl.config.settings import RunConfig
from ktl.errors import DivergedError
from ktl.files import write_atomically


@dataclasses.dataclass(frozen=True)
class Machine:
    """How this machine computes; what is in force, not what was asked for.

    Attributes:
        devices: names of the GPUs, or of the CPU if there is none.
        precision: a Keras dtype policy.
        xla: whether models are compiled with XLA.
        strategy: `mirrored` when a batch is split over GPUs, else `none`.
    """

    devices: tuple[str, ...]
    precision: str
    xla: bool
    strategy: str

    def scope(self):
        """The context that models are built and compiled in."""
        strategy = _mirrored_strategy() if self.strategy == "mirrored" else tf.distribute.get_strategy()
        return strategy.scope()


@functools.cache
def _mirrored_strategy() -> tf.distribute.Strategy:
    """The only one: a model that one strategy's scope has built can't be compiled in another's."""
    return tf.distribute.MirroredStrategy()


def set_up_machine(config: RunConfig) -> Machine:
    """Seeds everything and sets the precision policy, before any layer is built.

    Mixed precision is chosen for GPUs with tensor cores: float16 from compute capability 7.0 on, bfloat16, which needs
    no loss scaling, from 8.0 on. XLA is chosen for every GPU. On a CPU both cost time instead of saving it.
    """
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    precision = config.precision
    if precision == "auto":
        capability = min((d.get("compute_capability", (0, 0)) for d in details), default=(0, 0))
        precision = "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"
    keras.config.set_dtype_policy(precision)
    return Machine(
        devices=tuple(d.get("device_name", "GPU") for d in details) or ("CPU",),
        precision=precision,
        xla=config.xla == "on" or (config.xla == "auto" and bool(gpus) and not config.deterministic),
        strategy="mirrored" if len(gpus) > 1 and config.strategy == "auto" else "none",
    )


def compile_model(
    model: keras.Model,
    *,
    head_variables: list,
    config: RunConfig,
    steps_per_epoch: int,
    xla: bool,
    steps_per_execution: int = 1,
) -> None:
    """Compiles a model for classification with two learning rates, and sets its BatchNormalization's momentum.

    Args:
        model: whose output is logits [batch, classes].
        head_variables: the new layers' variables, trained at `head_multiplier` times the rate of the others.
        config: optimizer, rates, schedule, smoothing.
        steps_per_epoch: optimizer steps an epoch; the schedule lives inside the optimizer and counts them.
        xla: whether to compile with XLA.
        steps_per_execution: steps that TensorFlow takes before it comes back to Python; more than one pays where a step
            takes less than a millisecond.
    """
    _normalize_batches(model, steps_per_epoch)
    model.compile(
        optimizer=_optimizer(model.trainable_variables, head_variables, config, steps_per_epoch),
        loss=_smoothed_cross_entropy(config.label_smoothing),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="top1")],
        jit_compile=xla,
        steps_per_execution=steps_per_execution,
    )
    # Here and not in `fit`: the variables of several GPUs can be made in the machine's scope alone.
    model.optimizer.build(model.trainable_variables)


def fit(
    model: keras.Model,
    *,
    train: Callable[[int], tf.data.Dataset],
    steps_per_epoch: int,
    validation: tf.data.Dataset,
    config: RunConfig,
    checkpoint_dir: str,
    on_epoch: Callable[[dict], None] = lambda row: None,
    callbacks: tuple[keras.callbacks.Callback, ...] = (),
    stop_after: int | None = None,
) -> list[dict]:
    """Trains a compiled model until the epochs or the patience end; leaves it with its best epoch's weights.

    Everything that continues a killed run is written to `checkpoint_dir` after each epoch; called again with the same
    arguments it goes on after the last complete one.

    Args:
        model: compiled by `compile_model`.
        train: gives the batches of all epochs from the given one (counted from 0) on.
        steps_per_epoch: batches an epoch.
        validation: batches that choose the best epoch: highest top-1, lowest loss among equals.
        config: epochs and patience.
        checkpoint_dir: a folder of its own.
        on_epoch: called with each new row of the history.
        callbacks: further Keras callbacks.
        stop_after: end after this epoch (counted from 1) of the schedule's `config.epochs`; a later call goes on.

    Returns:
        One row an epoch: epoch (from 1), loss, top1, validation_loss, validation_top1, seconds.

    Raises:
        DivergedError: the loss is no longer a finite number.
    """
    checkpoint = Checkpoint(checkpoint_dir, patience=config.patience, on_epoch=on_epoch)
    epochs = stop_after or config.epochs
    if len(checkpoint.history) < epochs and not checkpoint.out_of_patience:
        first_epoch = checkpoint.restore(model)
        model.fit(
            train(first_epoch),
            validation_data=validation,
            epochs=epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=steps_per_epoch,
            callbacks=[checkpoint, *callbacks],
            shuffle=False,  # `train` has shuffled
            verbose=0,
        )
    checkpoint.restore_best(model)
    return checkpoint.history


def best_epoch(history: list[dict]) -> int:
    """The epoch, counted from 1, with the highest validation top-1, and the lowest validation loss among equals."""
    return max(history, key=lambda row: (row["validation_top1"], -row["validation_loss"]))["epoch"]


class Checkpoint(keras.callbacks.Callback):
    """Early stopping on validation that survives a kill at any moment.

    Keras' EarlyStopping, BackupAndRestore and CSVLogger each keep a part of this state, and none survives together
    with the others. Here one small `state.json`, replaced atomically, says which weights files count; a file that it
    does not name is never read.

    Args:
        folder: where the files are.
        patience: epochs without a better validation before training stops; 0 for no limit.
        on_epoch: called with each new row of the history.

    Attributes:
        history: a row an epoch, those of earlier processes included.
    """

    def __init__(self, folder: str, *, patience: int = 0, on_epoch: Callable[[dict], None] = lambda row: None):
        super().__init__()
        self.folder = folder
        self.patience = patience
        self.on_epoch = on_epoch
        self.history: list[dict] = self._read_history()

    @property
    def out_of_patience(self) -> bool:
        return bool(self.patience and self.history) and len(self.history) - best_epoch(self.history) >= self.patience

    def restore(self, model: keras.Model) -> int:
        """Puts the model and its optimizer where the last complete epoch left them; returns the next one's index."""
        if self.history:
            _read_variables(self._path(f"last-{len(self.history)}.npz"), _state(model))
        return len(self.history)

    def restore_best(self, model: keras.Model) -> None:
        """Gives the model its best epoch's weights."""
        _read_variables(self._path(f"best-{best_epoch(self.history)}.npz"), _trained_state(model))

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        # The validation loss too: that of training is from before the epoch's last step.
        bad = [logs[name] for name in ("loss", "val_loss") if not math.isfinite(logs[name])]
        if bad:
            raise DivergedError(
                f"Expected a finite loss. Received: {bad[0]} in epoch {epoch + 1}. "
                "Lower --learning-rate or --head-multiplier"
            )
        row = {"epoch": epoch + 1, "loss": logs["loss"], "top1": logs["top1"]}
        row |= {f"validation_{name}": logs[f"val_{name}"] for name in ("loss", "top1")}
        self.history.append({**row, "seconds": time.perf_counter() - self._started})
        self._save()
        self.on_epoch(self.history[-1])
        self.model.stop_training = self.out_of_patience

    def _save(self) -> None:
        os.makedirs(self.folder, exist_ok=True)
        epoch, best = len(self.history), best_epoch(self.history)
        kept = {f"last-{epoch}.npz", f"best-{best}.npz", "state.json"}
        _write_variables(self._path(f"last-{epoch}.npz"), _state(self.model))
        if best == epoch:
            _write_variables(self._path(f"best-{epoch}.npz"), _trained_state(self.model))
        write_atomically(self._path("state.json"), json.dumps({"history": self.history}))
        self._remove_all_but(kept)

    def forget(self, *, best: bool) -> None:
        """Removes what only further training would need, and the best epoch's weights too if asked; keeps history."""
        kept = {"state.json"} if best or not self.history else {"state.json", f"best-{best_epoch(self.history)}.npz"}
        self._remove_all_but(kept)

    def _read_history(self) -> list[dict]:
        try:
            with open(self._path("state.json")) as file:
                return json.load(file)["history"]
        except FileNotFoundError:
            return []

    def _remove_all_but(self, kept: set[str]) -> None:
        for name in set(os.listdir(self.folder)) - kept:
            os.remove(self._path(name))

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)


def _state(model) -> list:
    return [*_trained_state(model), *model.optimizer.variables]


def _trained_state(model) -> list:
    """The variables that training changes; frozen ones come from the backbone's weights again."""
    frozen = {id(v) for layer in model.layers if not layer.trainable for v in layer.variables}
    return [v for v in model.variables if id(v) not in frozen]


def _write_variables(path: str, variables: list) -> None:
    arrays = {str(i): keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}
    write_atomically(path, lambda file: np.savez(file, **arrays))


def _read_variables(path: str, variables: list) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        for i, variable in enumerate(variables):
            variable.assign(arrays[str(i)])


def _normalize_batches(model: keras.Model, steps_per_epoch: int) -> None:
    """Lets the moving statistics of BatchNormalization keep up with fine-tuning, and has them of the whole batch.

    On several devices each would have statistics of its own share of a batch, which is empty where a last batch is
    short: not a number, and soon everywhere.

    The momentum of ImageNet training, 0.99 or more, needs hundreds of steps to forget; a small data set's epoch has
    twenty, and validation, which uses the moving statistics, collapses meanwhile. With s steps an epoch:

        momentum = max(1 - 10 / s, 0.9)

    Reference:
        Kornblith, Shlens, Le, "Do Better ImageNet Models Transfer Better?", CVPR 2019, appendix A.5.
    """
    devices = tf.distribute.get_strategy().num_replicas_in_sync
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _normalize_batches(layer, steps_per_epoch)
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, max(1 - 10 / steps_per_epoch, 0.9))
            layer.synchronized = devices > 1


def _optimizer(variables, head_variables, config: RunConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """One optimizer for each learning rate; a single one where only the head is trained."""
    head = {id(v) for v in head_variables}
    rate, multiplier = config.learning_rate, config.head_multiplier
    new = _single_optimizer(config, rate * multiplier, steps_per_epoch, [v for v in variables if id(v) in head])
    pretrained_variables = [v for v in variables if id(v) not in head]
    if not pretrained_variables:
        return new
    pretrained = _single_optimizer(config, rate, steps_per_epoch, pretrained_variables)
    return keras.optimizers.MultiOptimizer(lambda variable: new if id(variable) in head else pretrained)


def _single_optimizer(config: RunConfig, peak_rate: float, steps_per_epoch: int, variables):
    total = config.epochs * steps_per_epoch
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total - 1)
    schedule = WarmupCosine(peak_rate, warmup_steps=warmup, total_steps=total)
    optimizers = {
        "adamw": lambda: keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay),
        "sgd": lambda: keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=config.weight_decay),
    }
    optimizer = optimizers[config.optimizer]()
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])
    return optimizer


@keras.saving.register_keras_serializable(package="ktl")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises from 0 in a line and falls back to 0 as a cosine:

        rate(t) = peak * t / warmup                                            for t < warmup
        rate(t) = peak * (1 + cos(pi * (t - warmup) / (total - warmup))) / 2   after that

    Keras' CosineDecay with warm-up gives the same numbers through `cond`, whose two branches TensorFlow keeps for ever:
    a search would grow with every trial.

    Args:
        peak: the highest rate.
        warmup_steps: optimizer steps to the peak; 0 for none.
        total_steps: optimizer steps to the end, more than `warmup_steps`.

    Reference:
        Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017; Goyal et al., "Accurate,
        Large Minibatch SGD", 2017, section 2.2.
    """

    def __init__(self, peak: float, *, warmup_steps: int, total_steps: int):
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        rising = step / max(self.warmup_steps, 1)
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        falling = (1 + keras.ops.cos(math.pi * keras.ops.clip(progress, 0, 1))) / 2
        return self.peak * keras.ops.where(step < self.warmup_steps, rising, falling)

    def get_config(self):
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "total_steps": self.total_steps}


def _smoothed_cross_entropy(label_smoothing: float):
    def loss(labels, logits):
        classes = logits.shape[-1]
        one_hot = keras.ops.one_hot(keras.ops.reshape(labels, (-1,)), classes)
        return keras.losses.categorical_crossentropy(one_hot, logits, from_logits=True, label_smoothing=label_smoothing)

    return loss
