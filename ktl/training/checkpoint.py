"""Early stopping on validation that survives a kill at any moment."""

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, cast

import keras
import numpy as np

from ktl.errors import DivergedError
from ktl.files import read_json, write_atomically, write_json


class EpochRow(TypedDict):
    """What one epoch gave: a row of history.csv.

    `epoch` counts from 1. Losses are means over photos, in nats: `loss` is what is minimised, with smoothed labels and
    weights of classes; `validation_loss` is the plain cross-entropy. `top1` and `validation_top1` are 0 to 1.
    """

    epoch: int
    loss: float
    top1: float
    validation_loss: float
    validation_top1: float
    seconds: float


def best_epoch(history: Sequence[EpochRow]) -> int:
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
        stopped: another callback has ended the training before its last epoch.
    """

    def __init__(
        self, folder: str | os.PathLike, *, patience: int = 0, on_epoch: Callable[[EpochRow], None] = lambda row: None
    ):
        super().__init__()
        self.folder = folder
        self.patience = patience
        self.on_epoch = on_epoch
        self.history, self.stopped = self._read_state()

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

    def on_epoch_end(self, epoch, logs: Any = None):
        # The validation loss too: that of training is from before the epoch's last step.
        bad = [logs[name] for name in ("loss", "val_log_loss") if not math.isfinite(logs[name])]
        if bad:
            raise DivergedError(
                f"Expected a finite loss. Received: {bad[0]} in epoch {epoch + 1}. "
                "Lower `learning_rate` or `head_multiplier`"
            )
        row: EpochRow = {
            "epoch": epoch + 1,
            "loss": logs["loss"],
            "top1": logs["top1"],
            "validation_loss": logs["val_log_loss"],
            "validation_top1": logs["val_top1"],
            "seconds": time.perf_counter() - self._started,
        }
        self.history.append(row)
        self._save()
        self.on_epoch(self.history[-1])
        if self.out_of_patience:  # else another callback may have asked to stop
            cast(Any, self.model).stop_training = True

    def on_train_end(self, logs=None):
        if self.history and cast(Any, self.model).stop_training and not self.out_of_patience:
            self.stopped = True
            self._write_state()

    def _save(self) -> None:
        os.makedirs(self.folder, exist_ok=True)
        epoch, best = len(self.history), best_epoch(self.history)
        kept = {f"last-{epoch}.npz", f"best-{best}.npz", "state.json"}
        _write_variables(self._path(f"last-{epoch}.npz"), _state(self.model))
        if best == epoch:
            _write_variables(self._path(f"best-{epoch}.npz"), _trained_state(self.model))
        self._write_state()
        self._remove_all_but(kept)

    def forget(self, *, best: bool) -> None:
        """Removes what only further training would need, and the best epoch's weights too if asked; keeps history."""
        kept = {"state.json"} if best or not self.history else {"state.json", f"best-{best_epoch(self.history)}.npz"}
        self._remove_all_but(kept)

    def _write_state(self) -> None:
        write_json(self._path("state.json"), {"history": self.history, "stopped": self.stopped})

    def _read_state(self) -> tuple[list[EpochRow], bool]:
        try:
            state = read_json(self._path("state.json"))
        except FileNotFoundError:
            return [], False
        return state["history"], state.get("stopped", False)

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
    arrays: dict[str, Any] = {str(i): keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}
    write_atomically(path, lambda file: np.savez(file, **arrays))


def _read_variables(path: str, variables: list) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        for i, variable in enumerate(variables):
            variable.assign(arrays[str(i)])
