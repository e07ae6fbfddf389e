"""Several suffixes of one structure as one computation: heads alone, or what is before them too.

Each variable of a suffix is a row of a matrix that has a row for each suffix. A step takes the gradients of all in one
program, and optimizers whose learning rates and weight decays are columns move all rows: one optimizer those of the new
layers, another those of the pre-trained ones. Heads alone with the same seed see the same batches, which are multiplied
with all their kernels in one product.
"""

import dataclasses
import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import keras
import numpy as np
from keras import ops

from ktl.backends.learning import Learning
from ktl.data.batches import Batch, RowBatches
from ktl.data.dataset import Split
from ktl.features.batches import filled_batches
from ktl.models.classifier import TransferClassifier
from ktl.models.recipe import Recipe, SmoothedCrossEntropy
from ktl.models.recipe_metrics import make_metrics
from ktl.training.inputs import Inputs
from ktl.training.stacked_optimizers import make_groups
from ktl.training.variables import state_variables, to_numpy

_stacking: Any = importlib.import_module(f"ktl.backends.{keras.config.backend()}_stacking")


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
        classifier: compiled, see `ktl.training.fit.compile_for`: has the structure that all have, and the order of
            their states.
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
        new = {id(variable) for variable in classifier.new_variables}
        self._groups = make_groups(
            ordered,
            self._weights,
            new=[id(variable) in new for variable in self.part.trainable_variables],
            vectors=[len(variable.shape) < 2 for variable in self.part.trainable_variables],
            epochs=epochs,
            steps_per_epoch=inputs.steps_per_epoch,
        )
        self._map = _stacking.mapping(small=len(self._groups) == 1)
        self._rows = self._match()
        self._load(states, first_epoch=first_epoch)
        self._steps = _stacking.Steps(
            Learning(self._learn_all, self._weights, self._others, self._groups),
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
        batches = filled_batches(
            cast(RowBatches, self.inputs.evaluation_batches(split)),
            size=min(self.inputs.options.batch_size, len(split)),
        )
        for features, labels, counted in batches:
            losses, counts = self._evaluate(*rows, features, labels, counted, losses, counts)
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

    @property
    def _optimizers(self) -> list[tuple[Any, Any]]:
        """Each of the classifier's that has something to train, and the one that stands for it."""
        own = self.classifier.optimizer.new, self.classifier.optimizer.pretrained
        return list(zip(own, (group.optimizer for group in self._groups), strict=False))

    def _match(self) -> dict[int, keras.Variable]:
        pairs = (
            (self.part.trainable_variables, self._weights),
            (self.part.non_trainable_variables, self._others),
            *((own.variables, stacked.variables) for own, stacked in self._optimizers),
        )
        matched = [pair for variables, rows in pairs for pair in zip(variables, rows, strict=True)]
        return {id(variable): rows for variable, rows in matched if len(rows.shape) == 2}

    def _load(self, states: Sequence[Sequence[np.ndarray]], *, first_epoch: int) -> None:
        for number, variable in enumerate(state_variables(self.classifier)):
            if id(variable) in self._rows:
                rows = np.stack([np.ravel(states[head][number]) for head in self._heads])
                self._rows[id(variable)].assign(rows)
        for _, stacked in self._optimizers:
            stacked.iterations.assign(first_epoch * self.inputs.steps_per_epoch)

    def _values(self, variable) -> np.ndarray:
        """[rows, *shape]"""
        rows = self._rows.get(id(variable))
        if rows is not None:
            return to_numpy(rows).reshape(-1, *variable.shape)
        counting = [self.classifier.optimizer, *(own for own, _ in self._optimizers)]
        counts = any(variable is optimizer.iterations for optimizer in counting)
        value = to_numpy(self._groups[0].optimizer.iterations if counts else variable)
        return np.broadcast_to(value, (len(self._heads), *value.shape))

    # What is computed

    def _training_batches(self, seeds: Sequence[int], *, epochs: int, first_epoch: int) -> RowBatches:
        """Features [seeds, batch, ...] and labels [seeds, batch]."""

        def of_seed(seed: int) -> RowBatches:
            inputs = dataclasses.replace(self.inputs, options=dataclasses.replace(self.inputs.options, seed=seed))
            return cast(RowBatches, inputs.training_batches(epochs=epochs, first_epoch=first_epoch))

        def make(number: int) -> Batch:
            features, labels = zip(*(batches[number] for batches in several), strict=True)
            return np.stack(features), np.stack(labels)

        def rows(number: int) -> np.ndarray:
            return np.stack([batches.rows(number) for batches in several])

        several = [of_seed(seed) for seed in seeds]
        features, labels = (spec._replace(shape=(len(seeds), *spec.shape)) for spec in several[0].specs)
        return dataclasses.replace(several[0], make=make, specs=(features, labels), rows=rows)

    def _learn_all(self, weights, others, features, labels, measured):
        """Of all heads: a step's gradients, what is no weight, and what is measured; rows of matrices each."""
        losses, counts = measured
        heads = (*self._shaped(weights, others), self._smoothing, counts)
        heads = keras.tree.map_structure(self._by_seed, heads)

        def of_seed(arguments):
            heads, features, labels = arguments
            return self._map(lambda head: self._learn(head, features, labels), heads)

        given = self._map_seeds(of_seed, (heads, features, labels))
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

    def _evaluate_batch(self, weights, others, features, labels, counted, losses, counts):
        def of_head(head):
            weights, others, smoothing, counts = head
            logits, _ = self._call(weights, others, features, training=False)
            loss = SmoothedCrossEntropy(smoothing)(labels, logits, sample_weight=counted)
            return loss, self._count(counts, labels, logits, counted)

        loss, counts = self._map(of_head, (*self._shaped(weights, others), self._smoothing, counts))
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

    def _count(self, counts, labels, logits, counted=None) -> list:
        pairs = zip(self._metrics, counts, strict=True)
        given = {"sample_weight": counted}
        return [list(metric.stateless_update_state(values, labels, logits, **given)) for metric, values in pairs]

    def _told(self, losses, counts) -> dict[str, np.ndarray]:
        rows = np.unique(self._heads, return_index=True)[1]
        return {
            "loss": to_numpy(losses)[rows],
            **{name: to_numpy(values)[rows] for name, values in self._sum(counts).items()},
        }

    def _results(self, counts) -> dict:
        pairs = zip(self._metrics, counts, strict=True)
        return {metric.name: self._map(metric.stateless_result, values) for metric, values in pairs}

    def _map_seeds(self, function, arguments):
        """`function` of each seed's part of the arguments: of a single seed without a detour."""
        if self._shape[0] > 1:
            return self._map(function, arguments)
        given = function(keras.tree.map_structure(lambda values: values[0], arguments))
        return keras.tree.map_structure(lambda values: values[None], given)
