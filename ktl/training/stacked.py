"""Several heads of one structure as one computation, where all else is frozen.

Each variable of a head is a row of a matrix that has a row for each head. A step takes the gradients of all heads in
one vectorized pass, and one optimizer, whose learning rate and weight decay are columns, moves all rows. Heads with the
same seed see the same batches, which are multiplied with all their kernels in one product.
"""

import dataclasses
import importlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ktl.backends.learning import Learning
from ktl.data.batches import Batch, Batches
from ktl.data.dataset import Split
from ktl.models.classifier import TransferClassifier
from ktl.models.recipe import OPTIMIZERS, Recipe, SmoothedCrossEntropy, WarmupCosine, decay_coefficient
from ktl.models.recipe_metrics import make_metrics
from ktl.training.inputs import Inputs
from ktl.training.variables import state_variables, to_numpy

_stacking: Any = importlib.import_module(f"ktl.backends.{keras.config.backend()}_stacking")
_map = _stacking.vectorized


def make_stacked_optimizer(
    recipes: Sequence[Recipe], *, undecayed: Sequence[keras.Variable], epochs: int, steps_per_epoch: int
) -> keras.optimizers.Optimizer:
    """An optimizer that does to each row of its variables what the row's own recipe would do.

    Args:
        recipes: of each row; alike but for rates, decay and smoothing.
        undecayed: variables that have no weight decay, those of norms and biases.
        epochs: after which all learning rates are 0.
        steps_per_epoch: optimizer steps an epoch.
    """
    length = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
    schedules = [WarmupCosine.of(recipe, recipe.learning_rate * recipe.head_multiplier, **length) for recipe in recipes]
    peaks = np.array([[schedule.peak] for schedule in schedules], "float32")
    optimizer = OPTIMIZERS[recipes[0].optimizer](WarmupCosine.of(recipes[0], peaks, **length), 0.0)
    decays = [decay_coefficient(r.weight_decay, s.rates) for r, s in zip(recipes, schedules, strict=True)]
    if any(decays):
        optimizer.weight_decay = np.array(decays, "float32")[:, None]
    optimizer.exclude_from_weight_decay(var_list=list(undecayed))
    return optimizer


def arrange(seeds: Sequence[int]) -> np.ndarray:
    """Which head is in which row: int [seeds, rows of a seed], a seed after another.

    Seeds with fewer heads have their first one several times; what it gives is the same each time.
    """
    of_seed = [np.flatnonzero(np.array(seeds) == seed) for seed in sorted(set(seeds))]
    longest = max(map(len, of_seed))
    return np.array([[*heads, *[heads[0]] * (longest - len(heads))] for heads in of_seed])


class StackedHeads:
    """Trains heads by an epoch at a time, each as it would be trained alone.

    Args:
        classifier: frozen up to its new layers, and compiled, see `ktl.training.fit.compile_for`: has the structure
            that all heads have, and the order of their states.
        inputs: features for its suffix.
        recipes: of each head; alike but for rates, decay and smoothing.
        seeds: of each head: of the order of its photos.
        states: of each head, values of `ktl.training.checkpoint.state_variables`.
        epochs: the length of all schedules.
        first_epoch: epochs that all heads have behind them.
        objective: what is measured besides, see `ktl.training.fit.fit`.
        class_weight: label -> weight of its photos' losses; None for 1.
        jit_compile: whether to compile steps with XLA.
    """

    def __init__(
        self,
        classifier: TransferClassifier,
        inputs: Inputs,
        *,
        recipes: Sequence[Recipe],
        seeds: Sequence[int],
        states: Sequence[Sequence[np.ndarray]],
        epochs: int,
        first_epoch: int,
        objective: str,
        class_weight: Mapping[int, float] | None,
        jit_compile: bool,
    ):
        self.inputs, self.classifier, self.part = inputs, classifier, inputs.trained_part(classifier)
        places = arrange(seeds)
        self._shape, self._heads = places.shape, places.ravel()
        ordered = [recipes[head] for head in self._heads]
        self._smoothing = np.array([recipe.label_smoothing for recipe in ordered], "float32")
        self._class_weight = class_weight and np.array([class_weight[k] for k in sorted(class_weight)], "float32")
        self._metrics = make_metrics(objective, classes=len(classifier.class_names))
        self._weights = [self._stacked(variable) for variable in self.part.trainable_variables]
        self._others = [self._stacked(variable) for variable in self.part.non_trainable_variables]
        vectors = [len(variable.shape) < 2 for variable in self.part.trainable_variables]
        self.optimizer = make_stacked_optimizer(
            ordered,
            undecayed=list(itertools.compress(self._weights, vectors)),
            epochs=epochs,
            steps_per_epoch=inputs.steps_per_epoch,
        )
        self.optimizer.build(self._weights)
        self._rows = self._match()
        self._load(states, first_epoch=first_epoch)
        self._steps = _stacking.Steps(
            Learning(self._learn_all, self._weights, self._others, self.optimizer),
            self._training_batches(sorted(set(seeds)), epochs=epochs, first_epoch=first_epoch),
            jit_compile=jit_compile,
        )
        self._evaluate = _stacking.compiled(self._evaluate_batch)
        self._sum = _stacking.compiled(self._results)

    def train_epoch(self) -> dict[str, np.ndarray]:
        """Trains all heads for one more epoch; what Keras tells of it, [heads] each."""
        losses, counts = self._steps.take(self.inputs.steps_per_epoch, self._nothing_yet())
        return self._told(losses / self.inputs.steps_per_epoch, counts)

    def evaluate(self, split: Split) -> dict[str, np.ndarray]:
        """What Keras tells of all heads on a split, [heads] each."""
        losses, counts = self._nothing_yet()
        rows = [[variable.value for variable in group] for group in (self._weights, self._others)]
        for features, labels in self.inputs.evaluation_batches(split):
            losses, counts = self._evaluate(*rows, features, labels, losses, counts)
        return self._told(losses / len(split), counts)

    def states(self, variables: Sequence) -> list[list[np.ndarray]]:
        """Of each head, its values of some of the classifier's `state_variables`."""
        columns = [self._values(variable) for variable in variables]
        rows = np.unique(self._heads, return_index=True)[1]
        return [[column[row] for column in columns] for row in rows]

    # The classifier's variables, and the rows that stand for them

    def _stacked(self, variable) -> keras.Variable:
        shape = len(self._heads), math.prod(variable.shape)
        return keras.Variable(np.zeros(shape), dtype=variable.dtype, trainable=variable.trainable)

    def _match(self) -> dict[int, keras.Variable]:
        own = self.classifier.optimizer.new.variables
        pairs = (
            (self.part.trainable_variables, self._weights),
            (self.part.non_trainable_variables, self._others),
            (own, self.optimizer.variables),
        )
        matched = [pair for variables, rows in pairs for pair in zip(variables, rows, strict=True)]
        return {id(variable): rows for variable, rows in matched if len(rows.shape) == 2}

    def _load(self, states: Sequence[Sequence[np.ndarray]], *, first_epoch: int) -> None:
        for number, variable in enumerate(state_variables(self.classifier)):
            if id(variable) in self._rows:
                rows = np.stack([np.ravel(states[head][number]) for head in self._heads])
                self._rows[id(variable)].assign(rows)
        iterations: Any = self.optimizer.iterations
        iterations.assign(first_epoch * self.inputs.steps_per_epoch)

    def _values(self, variable) -> np.ndarray:
        """[rows, *shape]"""
        rows, optimizer = self._rows.get(id(variable)), self.classifier.optimizer
        if rows is not None:
            return to_numpy(rows).reshape(-1, *variable.shape)
        counts = variable is optimizer.iterations or variable is optimizer.new.iterations
        value = to_numpy(self.optimizer.iterations if counts else variable)
        return np.broadcast_to(value, (len(self._heads), *value.shape))

    # What is computed

    def _training_batches(self, seeds: Sequence[int], *, epochs: int, first_epoch: int) -> Batches:
        """Features [seeds, batch, ...] and labels [seeds, batch]."""

        def of_seed(seed: int) -> Batches:
            inputs = dataclasses.replace(self.inputs, options=dataclasses.replace(self.inputs.options, seed=seed))
            return inputs.training_batches(epochs=epochs, first_epoch=first_epoch)

        def make(number: int) -> Batch:
            features, labels = zip(*(batches[number] for batches in several), strict=True)
            return np.stack(features), np.stack(labels)

        several = [of_seed(seed) for seed in seeds]
        features, labels = (spec._replace(shape=(len(seeds), *spec.shape)) for spec in several[0].specs)
        return dataclasses.replace(several[0], make=make, specs=(features, labels))

    def _learn_all(self, weights, others, features, labels, measured):
        """Of all heads: a step's gradients, what is no weight, and what is measured; rows of matrices each."""
        losses, counts = measured
        heads = (*self._shaped(weights, others), self._smoothing, counts)
        heads = keras.tree.map_structure(self._by_seed, heads)

        def of_seed(arguments):
            heads, features, labels = arguments
            return _map(lambda head: self._learn(head, features, labels), heads)

        given = _map_seeds(of_seed, (heads, features, labels))
        learned: Any = keras.tree.map_structure(self._by_row, given)
        gradients, others, loss, counts = learned
        return self._rows_of(gradients), self._rows_of(others), (losses + loss, counts)

    def _learn(self, head, features, labels):
        """Of one head: gradients, what is no weight, the loss, and counts of metrics."""
        weights, others, smoothing, counts = head
        importance = None if self._class_weight is None else ops.take(self._class_weight, labels)

        def loss_of(weights):
            logits, after = self._call(weights, others, features, training=True)
            return SmoothedCrossEntropy(smoothing)(labels, logits, sample_weight=importance), (logits, after)

        loss, (logits, after), gradients = _stacking.value_and_gradients(loss_of, weights)
        return gradients, after, loss, self._count(counts, labels, logits)

    def _evaluate_batch(self, weights, others, features, labels, losses, counts):
        def of_head(head):
            weights, others, smoothing, counts = head
            logits, _ = self._call(weights, others, features, training=False)
            loss = SmoothedCrossEntropy(smoothing)(labels, logits)
            return loss, self._count(counts, labels, logits)

        loss, counts = _map(of_head, (*self._shaped(weights, others), self._smoothing, counts))
        shape: Any = ops.shape(labels)
        return losses + loss * ops.cast(shape[0], loss.dtype), counts

    def _call(self, weights, others, features, *, training: bool) -> tuple:
        given: tuple = self.part.stateless_call(weights, others, features, training=training)
        return given[:2]

    def _shaped(self, weights, others) -> list[list]:
        """The heads' weights and their other variables, [rows, *shape] each."""
        pairs = (self.part.trainable_variables, weights), (self.part.non_trainable_variables, others)
        return [
            [ops.reshape(rows, (-1, *variable.shape)) for variable, rows in zip(*pair, strict=True)] for pair in pairs
        ]

    def _rows_of(self, values) -> list:
        return [ops.reshape(value, (len(self._heads), -1)) for value in values]

    def _by_seed(self, values):
        return ops.reshape(values, (*self._shape, *values.shape[1:]))

    def _by_row(self, values):
        return ops.reshape(values, (len(self._heads), *values.shape[2:]))

    # What is measured

    def _nothing_yet(self):
        rows = len(self._heads)
        counts = [[ops.stack([v.value] * rows) for v in metric.variables] for metric in self._metrics]
        return ops.zeros(rows), counts

    def _count(self, counts, labels, logits) -> list:
        pairs = zip(self._metrics, counts, strict=True)
        return [list(metric.stateless_update_state(values, labels, logits)) for metric, values in pairs]

    def _told(self, losses, counts) -> dict[str, np.ndarray]:
        rows = np.unique(self._heads, return_index=True)[1]
        return {
            "loss": to_numpy(losses)[rows],
            **{name: to_numpy(values)[rows] for name, values in self._sum(counts).items()},
        }

    def _results(self, counts) -> dict:
        pairs = zip(self._metrics, counts, strict=True)
        return {metric.name: _map(metric.stateless_result, values) for metric, values in pairs}


def _map_seeds(function, arguments):
    """`function` of each seed's part of the arguments: of a single seed without a detour."""
    if keras.tree.flatten(arguments)[0].shape[0] > 1:
        return _map(function, arguments)
    given = function(keras.tree.map_structure(lambda values: values[0], arguments))
    return keras.tree.map_structure(lambda values: values[None], given)
