"""Co-Tuning, an intervention of `experiments/recipes.py`: ImageNet's classification layer keeps on being taught.

Beside the loss of the new classes there is a second one, of the kept layer's answers: the cross-entropy to the ImageNet
classes that stand for a photo's new class, p(source | target), which are learned before training:

    loss = -log p(y | x) + strength * -sum_s p(s | y) log p_kept(s | x)

Reference:
    You, Kou, Long, Wang, "Co-Tuning for Transfer Learning", NeurIPS 2020. Both classifiers of its network read the
    same features, as with the head `replaced` here; with `kept` the new layer reads the one that is taught.
"""

import contextlib
import dataclasses
import functools

import keras
import numpy as np
from keras import ops
from scipy.special import softmax
from sklearn import linear_model, metrics
from threadpoolctl import threadpool_limits

from ktl.data.split import Split
from ktl.errors import DivergedError
from ktl.evaluation.metrics import score
from ktl.machine import faster_on_cpu
from ktl.models.backbones import build_backbone
from ktl.models.heads import find_head
from ktl.models.recipe import make_optimizer
from ktl.runs.session import Training, recipe_of
from ktl.training.checkpoint import EpochRow
from ktl.training.evaluate import predict_probabilities
from ktl.training.feeds import make_feed

PENALTIES = np.logspace(-2, 4, 7)
"""Values of scikit-learn's C of which validation photos choose one."""


def co_tune(training: Training, strength: float = 2.3) -> "CoTuning":
    """Teaches the kept layer too."""
    kept = kept_logits(training)
    model = keras.Model(start_of(training), kept)
    dataset = training.inputs.dataset

    def answers(split: Split) -> tuple[np.ndarray, np.ndarray]:
        return predict_probabilities(model, training.inputs.evaluation_batches(split)), split.labels

    related = relation(answers(dataset.train), answers(dataset.validation))
    return CoTuning(**vars(training), kept=kept, relation=related, strength=strength)


co_tune_lightly = functools.partial(co_tune, strength=0.3)


def start_of(training: Training) -> keras.KerasTensor:
    """What the trained part reads, in the classifier's graph."""
    classifier = training.classifier
    return classifier.boundary.tensor if training.inputs.cached else classifier.input


def kept_logits(training: Training) -> keras.KerasTensor:
    """What ImageNet's classification layer gives: the head's own, or one beside the head on the same features."""
    read = training.classifier.new_layers[0].input
    if find_head(training.classifier.head).source == "logits":
        return read
    config = training.config
    backbone = build_backbone(config.backbone, weights=config.weights, image_size=config.image_size)
    kernel, *bias = backbone.classification_layer.get_weights()
    layer = keras.layers.Dense(kernel.shape[-1], use_bias=bool(bias), dtype="float32", name="kept_beside")
    logits = layer(read)
    layer.set_weights([kernel.reshape(-1, kernel.shape[-1]), *bias])
    return logits


def relation(train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """p(source | target), float32 [classes, ImageNet classes], by way of p(target | source) and Bayes' rule:

        p(s | t) = p(t | s) p(s) / sum over s' of p(t | s') p(s')

    p(t | s) is what a logistic regression without bias says of a photo that is surely of ImageNet's class s; p(s) is
    the mean over the training photos.

    Args:
        train: ImageNet probabilities, [photos, ImageNet classes], and new classes, int [photos].
        validation: the same of the photos that choose the penalty, by their log loss.
    """
    (answers, labels), (others, other_labels) = train, validation
    classes = range(labels.max() + 1)

    def fit(penalty: float):
        return linear_model.LogisticRegression(C=penalty, fit_intercept=False, max_iter=1000).fit(answers, labels)

    with threadpool_limits(1):
        found = [fit(penalty) for penalty in PENALTIES]
        losses = [metrics.log_loss(other_labels, one.predict_proba(others), labels=classes) for one in found]
    best = found[int(np.argmin(losses))]
    # Of two classes there is one row, the logit of the second against the first.
    rows = best.coef_ if len(best.coef_) > 1 else np.concatenate([np.zeros_like(best.coef_), best.coef_])
    joint = softmax(rows, axis=0) * answers.mean(axis=0)
    return (joint / joint.sum(axis=1, keepdims=True)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class CoTuning(Training):
    """A training with both losses.

    Attributes:
        kept: logits of ImageNet's classes, in the graph of what is trained.
        relation: p(source | target).
        strength: of the second loss.
    """

    kept: keras.KerasTensor
    relation: np.ndarray
    strength: float

    def fit(self, checkpoint_dir, *, callbacks=(), **_) -> list[EpochRow]:
        """All epochs, one after another; nothing is written to `checkpoint_dir`."""
        part, inputs, classifier = self.compile(), self.inputs, self.classifier
        outputs = [classifier.output, self.kept]
        model = TwoLosses(start_of(self), outputs, relation=self.relation, strength=self.strength)
        new = {id(variable) for variable in classifier.new_variables}
        length = {"epochs": self.config.epochs, "steps_per_epoch": inputs.steps_per_epoch}
        model.compile(
            make_optimizer(
                recipe_of(self.config),
                new_variables=classifier.new_variables,
                pretrained_variables=[one for one in model.trainable_variables if id(one) not in new],
                **length,
            )
        )
        rows = _Rows(self, part)
        with contextlib.ExitStack() as stack:
            stack.enter_context(faster_on_cpu(model.layers))
            feed = stack.enter_context(make_feed(model))
            batches = inputs.training_batches(epochs=self.config.epochs)
            model.fit(feed.once(batches), callbacks=[*callbacks, rows], shuffle=False, verbose=0, **length)
        return rows.found


class TwoLosses(keras.Model):
    """A model of logits of the new classes and of ImageNet's, trained on labels of the new ones."""

    def __init__(self, inputs, outputs, *, relation: np.ndarray, strength: float):
        super().__init__(inputs, outputs)
        self.relation, self.strength = relation, strength

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        new, kept = y_pred
        labels = ops.reshape(ops.cast(y, "int32"), (-1,))
        first = keras.losses.sparse_categorical_crossentropy(labels, new, from_logits=True)
        second = keras.losses.categorical_crossentropy(
            ops.take(self.relation, labels, axis=0), ops.cast(kept, "float32"), from_logits=True
        )
        return ops.mean(first + self.strength * second)


class _Rows(keras.callbacks.Callback):
    """What the new classes' logits reach on the validation photos after each epoch."""

    def __init__(self, training: Training, part: keras.Model):
        super().__init__()
        self.training, self.part = training, part
        self.found: list[EpochRow] = []

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {})["loss"]
        if not np.isfinite(loss):
            raise DivergedError(f"Expected a finite loss. Received: {loss} in epoch {epoch + 1}")
        inputs = self.training.inputs
        split = inputs.dataset.validation
        scores = score(predict_probabilities(self.part, inputs.evaluation_batches(split)), split.labels)
        row = {"epoch": epoch + 1, "loss": loss, "validation_loss": scores["log_loss"], "seconds": 0.0}
        self.found.append({**row, "top1": 0.0, "validation_top1": scores["top1"]})
