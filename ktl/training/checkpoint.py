"""Early stopping on validation that survives a kill at any moment."""

import contextlib
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict, cast

import keras
import numpy as np

from ktl.errors import DivergedError
from ktl.evaluation.objectives import OBJECTIVES
from ktl.files import damaged, digest, reading, way_on, write_atomically, write_json
from ktl.stored import read_arrays, read_record
from ktl.training.variables import assign, state_variables, to_numpy, trained_variables

_OWN_FILE = re.compile(r"(last|best)-\d+\.npz|\.(last-\d+\.npz|best-\d+\.npz|state\.json)-[a-z0-9_]{8}")
"""Names of weights files, and under which `ktl.files.write_atomically` writes what a checkpoint has."""


class EpochRow(TypedDict):
    """What one epoch gave: a row of history.csv.

    `epoch` counts from 1. Losses are means over photos, in nats: `loss` is what is minimised, with smoothed labels and
    weights of classes; `validation_loss` is the plain cross-entropy. All others are 0 to 1.
    `validation_mean_class_accuracy` and `validation_macro_f1` are there where the training goes by them.
    """

    epoch: int
    loss: float
    top1: float
    validation_loss: float
    validation_top1: float
    validation_mean_class_accuracy: NotRequired[float]
    validation_macro_f1: NotRequired[float]
    seconds: float


def best_epoch(history: Sequence[EpochRow], objective: str = "top1") -> int:
    """The epoch, counted from 1, that is the best by an objective, and has the lowest validation loss among equals.

    Args:
        history: a row an epoch.
        objective: a name in `ktl.evaluation.objectives.OBJECTIVES`, whose column the rows have.
    """
    goodness = OBJECTIVES[objective].goodness
    return max(history, key=lambda row: (goodness(row), -row["validation_loss"]))["epoch"]


class State(TypedDict):
    """What state.json holds.

    Attributes:
        history: a row an epoch.
        stopped: another callback has ended the training before its last epoch.
        weights: name of each weights file that counts -> its SHA-256 digest, hexadecimal.
    """

    history: list[EpochRow]
    stopped: bool
    weights: dict[str, str]


class Checkpoint(keras.callbacks.Callback):
    """Early stopping on validation that survives a kill at any moment.

    Keras' EarlyStopping, BackupAndRestore and CSVLogger each keep a part of this state, and none survives together
    with the others. Here one small `state.json`, replaced atomically, says which weights files count; a file that it
    does not name is never read, and one that it names is compared with its digest.

    Args:
        folder: where the files are.
        patience: epochs without a better validation before training stops; 0 for no limit.
        objective: what is better, see `best_epoch`.
        if_damaged: what to do then, where it is not to begin the training anew.
        on_epoch: called with each new row of the history.

    Attributes:
        history: a row an epoch, those of earlier processes included.
        stopped: another callback has ended the training before its last epoch.

    Raises:
        DamagedError: what is in the folder is not as it was written; so do all that read of it.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        patience: int = 0,
        objective: str = "top1",
        if_damaged: str | None = None,
        on_epoch: Callable[[EpochRow], None] = lambda row: None,
    ):
        super().__init__()
        self.folder = folder
        self.patience = patience
        self.objective = objective
        self.on_epoch = on_epoch
        self._if_damaged = if_damaged or f"Remove {folder}: then the same command begins this training anew"
        self.history: list[EpochRow] = []
        self.stopped = False
        self._digests: dict[str, str] = {}
        self._before: list[np.ndarray] = []
        with self._reading():
            self._read_state()

    @property
    def best_epoch(self) -> int:
        """Counted from 1; there must have been one."""
        return best_epoch(self.history, self.objective)

    @property
    def out_of_patience(self) -> bool:
        return bool(self.patience and self.history) and len(self.history) - self.best_epoch >= self.patience

    def restore(self, model: keras.Model) -> int:
        """Puts the model and its optimizer where the last complete epoch left them; returns the next one's index."""
        if self.history:
            self._assign(state_variables(model), self.read_last(), name=self._last)
        return len(self.history)

    def restore_best(self, model: keras.Model) -> None:
        """Gives the model its best epoch's weights."""
        self._assign(trained_variables(model), self.read_best(), name=self._best)

    def read_last(self) -> list[np.ndarray]:
        """The values of `state_variables` after the last complete epoch; there must have been one.

        Who goes on with them wants those of the best epoch at the end: what is damaged of either is told now.
        """
        with self._reading():
            self._check_digest(self._best)
        return self._read_arrays(self._last)

    def read_best(self) -> list[np.ndarray]:
        """The values of `trained_variables` after the best epoch."""
        with self._reading():
            if not self.history:
                raise damaged(self._path("state.json"), "no such file")
        return self._read_arrays(self._best)

    def on_train_begin(self, logs=None):
        if not self.history:
            self._before = [to_numpy(variable) for variable in trained_variables(self.model)]

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch, logs: Any = None):
        model = self.model
        try:
            self.add(logs, seconds=time.perf_counter() - self._started)
        except DivergedError:
            self._give_back(model)
            raise
        improved = self.best_epoch == len(self.history)
        self.write(state_variables(model), best=trained_variables(model) if improved else None)
        self.on_epoch(self.history[-1])
        if self.out_of_patience:  # else another callback may have asked to stop
            cast(Any, model).stop_training = True

    def add(self, logs: Mapping[str, float], *, seconds: float) -> None:
        """Adds an epoch to the history; nothing is written.

        Args:
            logs: what Keras tells of the epoch.
            seconds: that it took.

        Raises:
            DivergedError: a loss is no longer a finite number.
        """
        epoch = len(self.history) + 1
        # Those of validation too: that of training is from before the epoch's last step.
        bad = [logs[name] for name in ("loss", "val_loss", "val_log_loss") if not math.isfinite(logs[name])]
        if bad:
            raise DivergedError(
                f"Expected a finite loss. Received: {bad[0]} in epoch {epoch}. "
                "Lower `learning_rate` or `head_multiplier`"
            )
        row: EpochRow = {
            "epoch": epoch,
            "loss": logs["loss"],
            "top1": logs["top1"],
            "validation_loss": logs["val_log_loss"],
            "validation_top1": logs["val_top1"],
            "seconds": seconds,
        }
        if "val_mean_class_accuracy" in logs:
            row["validation_mean_class_accuracy"] = logs["val_mean_class_accuracy"]
        if "val_macro_f1" in logs:
            row["validation_macro_f1"] = logs["val_macro_f1"]
        self.history.append(row)

    def _give_back(self, model) -> None:
        """Gives the model its best epoch's weights, or those from before the training: it has none that are of use."""
        if self.history:
            self.restore_best(model)
        else:
            assign(trained_variables(model), self._before)

    def on_train_end(self, logs=None):
        if self.history and cast(Any, self.model).stop_training and not self.out_of_patience:
            self.stopped = True
            self._write_state()

    def write(self, last: Sequence, *, best: Sequence | None) -> None:
        """Writes down the history, and what goes on from there or is kept of it; what was there before is removed.

        Args:
            last: values of `state_variables` after the last epoch.
            best: values of `trained_variables` after the best epoch; None where they are written already.
        """
        if not self._digests:  # later it is there, or somebody has removed what belongs to it too
            os.makedirs(self.folder, exist_ok=True)
        names = self._last, self._best
        self._write_arrays(self._last, last)
        if best is not None:
            self._write_arrays(self._best, best)
        self._digests = {name: self._digests[name] for name in names}
        self._write_state()
        self._remove_all_but({*names, "state.json"})

    def forget(self, *, best: bool) -> None:
        """Removes what only further training would need, and the best epoch's weights too if asked; keeps history."""
        kept = {"state.json"} if best or not self.history else {"state.json", self._best}
        self._remove_all_but(kept)

    @property
    def _last(self) -> str:
        return f"last-{len(self.history)}.npz"

    @property
    def _best(self) -> str:
        return f"best-{self.best_epoch}.npz"

    def _write_state(self) -> None:
        state: State = {"history": self.history, "stopped": self.stopped, "weights": self._digests}
        write_json(self._path("state.json"), state)

    def _read_state(self) -> None:
        path = self._path("state.json")
        try:
            state = read_record(path, State)
        except FileNotFoundError:
            return
        self.history, self.stopped, self._digests = state["history"], state["stopped"], state["weights"]
        with reading(path):
            if not self.history or [row["epoch"] for row in self.history] != list(range(1, len(self.history) + 1)):
                raise ValueError("a history that is not of the epochs from 1")
            if set(self._digests) != {self._last, self._best}:
                raise ValueError(f"weights of other epochs than {self._last} and {self._best}")

    def _reading(self) -> contextlib.AbstractContextManager:
        return way_on(self._if_damaged)

    def _check_digest(self, name: str) -> None:
        path = self._path(name)
        try:
            with reading(path):
                if digest(path) != self._digests[name]:
                    raise damaged(path, "another content than state.json beside it says")
        except FileNotFoundError as error:
            raise damaged(path, "no such file") from error

    def _read_arrays(self, name: str) -> list[np.ndarray]:
        with self._reading():
            self._check_digest(name)
            arrays = read_arrays(self._path(name))
            return [arrays[str(i)] for i in range(len(arrays))]

    def _write_arrays(self, name: str, values: Sequence) -> None:
        arrays: dict[str, Any] = {str(i): to_numpy(value) for i, value in enumerate(values)}
        write_atomically(self._path(name), lambda file: np.savez(file, **arrays))
        self._digests[name] = digest(self._path(name))

    def _assign(self, variables: Sequence, values: Sequence[np.ndarray], *, name: str) -> None:
        with self._reading(), reading(self._path(name)):
            assign(variables, values)

    def _remove_all_but(self, kept: set[str]) -> None:
        """Of what a checkpoint has written: the folder may have files of others too."""
        for name in set(os.listdir(self.folder)) - kept:
            if _OWN_FILE.fullmatch(name):
                os.remove(self._path(name))

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)
