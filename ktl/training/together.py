"""Trainings of suffixes that see the same features, at once: each with its own schedule, early stop and checkpoint."""

import dataclasses
import math
import os
import time
from collections.abc import Iterator, Sequence

import numpy as np

from ktl.errors import DivergedError
from ktl.machine import backend, faster_on_cpu, has_gpu, trains_together
from ktl.models.classifier import TransferClassifier
from ktl.models.recipe import Recipe
from ktl.progress import Reporter
from ktl.training.checkpoint import Checkpoint, EpochRow
from ktl.training.class_weights import ClassWeight, class_weight_of
from ktl.training.fit import compile_for, trains_head_alone
from ktl.training.inputs import Inputs
from ktl.training.stacked import StackedHeads
from ktl.training.variables import state_variables, to_numpy, trained_variables

MOST_HEADS = 64
"""Heads that are trained at once, at most."""

MOST_WEIGHTS, MOST_WEIGHTS_ON_GPU = 2**25, 2**27
"""Weights of all heads that are trained at once, at most; their optimizers and gradients take four times as much."""

WRITE_SECONDS, WRITE_SHARE = 1.0, 0.2
"""Between two writes of the checkpoints, and of the time that they may take: the epochs since the last one are what a
kill costs."""

Outcome = list[EpochRow] | DivergedError
"""A row an epoch, or why there is none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """A training of new layers.

    Attributes:
        recipe: alike for all heads but for rates, decay and smoothing.
        seed: of the order of its photos.
        initial: values of the classifier's `trained_variables` before its first step.
        checkpoint_dir: a folder of its own.
    """

    recipe: Recipe
    seed: int
    initial: Sequence[np.ndarray]
    checkpoint_dir: str | os.PathLike


def can_train_together(classifier: TransferClassifier, inputs: Inputs, *, precision: str) -> bool:
    """Whether suffixes of this classifier's structure can be trained at once: on features, where that is faster."""
    # Loss scaling for float16 skips steps, each head its own; several devices each have their share of a batch.
    simple = precision != "mixed_float16" and backend.devices_of(classifier) == 1
    return simple and inputs.cached and trains_together(head_alone=trains_head_alone(classifier, inputs))


# Long by what it tells of its arguments.
def fit_together(
    classifier: TransferClassifier,
    inputs: Inputs,
    heads: Sequence[Head],
    *,
    epochs: int,
    patience: int = 5,
    objective: str = "top1",
    class_weight: ClassWeight = None,
    jit_compile: bool = False,
    stop_after: int | None = None,
    reporter: Reporter | None = None,
) -> list[Outcome]:
    """What `ktl.training.fit.fit` gives for each head, up to rounding, and the checkpoints that it leaves.

    A head whose loss is no longer a finite number is given up; the others go on. Checkpoints are written once a second:
    called again after a kill, each head goes on from its own. A row's `seconds` are a head's share of the epoch.

    Args:
        classifier: of the heads' structure, for which `can_train_together` is true; is compiled by this, and its own
            weights are of no account.
        inputs: features for its suffix.
        heads: are trained.
        epochs: see `ktl.training.fit.fit`, as all others.
        patience: see there.
        objective: see there.
        class_weight: see there.
        jit_compile: see there.
        stop_after: see there.
        reporter: is told of the progress of all.

    Returns:
        Of each head a row an epoch, or why it was given up.
    """
    compile_for(classifier, inputs, heads[0].recipe, epochs=epochs, jit_compile=jit_compile, objective=objective)
    optimizer = [to_numpy(variable) for variable in classifier.optimizer.variables]
    settings = {"patience": patience, "objective": objective}
    runs = [
        _HeadRun(head, Checkpoint(head.checkpoint_dir, **settings), [*head.initial, *optimizer], stop_after or epochs)
        for head in heads
    ]

    def stack(chosen: Sequence[_HeadRun]) -> StackedHeads:
        return StackedHeads(
            classifier,
            inputs,
            recipes=[run.head.recipe for run in chosen],
            seeds=[run.head.seed for run in chosen],
            states=[run.last for run in chosen],
            epochs=epochs,
            first_epoch=chosen[0].epoch,
            objective=objective,
            class_weight=class_weight_of(class_weight, inputs.dataset),
            jit_compile=jit_compile,
        )

    left = [run for run in runs if run.goes_on]
    total = sum(run.epochs_left for run in left) * inputs.photos_per_epoch
    progress = (reporter or Reporter()).photos(f"training {len(left)} heads at once", total)
    with progress as tell, faster_on_cpu(classifier.suffix.layers):
        while left := [run for run in left if run.goes_on]:
            chosen = _chosen(left, most=_most_heads(classifier))
            for _ in _train(stack(chosen), chosen, inputs):
                tell(total - sum(run.epochs_left for run in left) * inputs.photos_per_epoch)
    return [run.error or run.checkpoint.history for run in runs]


@dataclasses.dataclass
class _HeadRun:
    """A head while it is trained: `last` and `best` are values of `state_variables` and, not written yet, of
    `trained_variables`."""

    head: Head
    checkpoint: Checkpoint
    last: Sequence[np.ndarray]
    end: int
    best: Sequence[np.ndarray] | None = None
    error: DivergedError | None = None

    def __post_init__(self):
        if self.epoch:
            self.last = self.checkpoint.read_last()

    @property
    def epoch(self) -> int:
        return len(self.checkpoint.history)

    @property
    def goes_on(self) -> bool:
        stopped = self.error is not None or self.checkpoint.stopped or self.checkpoint.out_of_patience
        return not stopped and self.epoch < self.end

    @property
    def epochs_left(self) -> int:
        return self.end - self.epoch if self.goes_on else 0

    def add(self, logs: dict[str, float], *, seconds: float) -> bool:
        """Whether this epoch is the best so far."""
        try:
            self.checkpoint.add(logs, seconds=seconds)
        except DivergedError as error:
            self.error = error
            return False
        return self.checkpoint.best_epoch == self.epoch

    def write(self, last: Sequence[np.ndarray]) -> None:
        if self.error is None:
            self.checkpoint.write(last, best=self.best)
            self.last, self.best = last, None


def _most_heads(classifier: TransferClassifier) -> int:
    weights = sum(math.prod(variable.shape) for variable in classifier.trainable_variables)
    most = MOST_WEIGHTS_ON_GPU if has_gpu() else MOST_WEIGHTS
    return max(1, min(MOST_HEADS, most // weights))


def _chosen(left: Sequence[_HeadRun], *, most: int) -> list[_HeadRun]:
    """Those to train next: they have as many epochs behind them, and seeds in common where there are more than fit."""
    first = min(run.epoch for run in left)
    return sorted((run for run in left if run.epoch == first), key=lambda run: run.head.seed)[:most]


def _train(stack: StackedHeads, runs: Sequence[_HeadRun], inputs: Inputs) -> Iterator[None]:
    """Trains until all runs have ended, or so many that the others are better off in a smaller stack."""
    number = {id(run): index for index, run in enumerate(runs)}
    active, write_at = list(runs), time.perf_counter() + WRITE_SECONDS
    while len(active) * 4 > len(runs):
        started = time.perf_counter()
        logs = stack.train_epoch()
        logs |= {f"val_{name}": values for name, values in stack.evaluate(inputs.dataset.validation).items()}
        seconds = (time.perf_counter() - started) / len(active)
        of_run = [{name: float(values[number[id(run)]]) for name, values in logs.items()} for run in active]
        better = [run for run, own in zip(active, of_run, strict=True) if run.add(own, seconds=seconds)]
        if better:
            trained = stack.states(trained_variables(stack.classifier))
            for run in better:
                run.best = trained[number[id(run)]]
        before, active = active, [run for run in active if run.goes_on]
        now = time.perf_counter()
        leaving = len(active) * 4 <= len(runs)
        ended = before if leaving or now > write_at else [run for run in before if not run.goes_on]
        if ended:
            states = stack.states(state_variables(stack.classifier))
            for run in ended:
                run.write(states[number[id(run)]])
        if ended is before:
            written = time.perf_counter()
            write_at = written + max(WRITE_SECONDS, (written - now) / WRITE_SHARE)
        yield
