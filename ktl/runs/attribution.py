"""What the kept layer knows: the ImageNet classes whose kept outputs drive each of the new classes."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from ktl.data.imagenet_classes import CLASSES, synsets
from ktl.models.classifier import TransferClassifier
from ktl.models.head_layers import BESIDE_FEATURES
from ktl.models.heads import find_head

STRONGEST = 10
"""ImageNet classes that are told of each new class."""


def reads_imagenet_classes(classifier: TransferClassifier) -> bool:
    """Whether the last Dense layer reads a classification layer of 1000 classes without another layer in between.

    That these are ImageNet's, in their usual order, is taken for granted, of a user's own backbone too.
    """
    source = find_head(classifier.head).source
    hidden = any(isinstance(layer, keras.layers.Dense) for layer in classifier.new_layers[:-1])
    if hidden or source in ("features", "softened"):
        return False
    kept: Any = classifier.new_layers[-1].input
    if source in BESIDE_FEATURES:
        _, kept_layer, _ = BESIDE_FEATURES[source]
        kept = classifier.get_layer(kept_layer).output
    return kept.shape[-1] == CLASSES


def with_activations(classifier: TransferClassifier, part: keras.Model) -> keras.Model:
    """A model of the same layers that gives what the last Dense layer reads, and its logits.

    Args:
        classifier: what was trained.
        part: the classifier or its suffix, whose input the model takes; compiled: the model computes in the same way.
    """
    read: Any = classifier.new_layers[-1].input
    # Keras makes no model whose input is an output; with everything frozen, the suffix of `kept_raw` would be one.
    activations = keras.layers.Identity(dtype=read.dtype)(read)
    start = classifier.input if part is classifier else classifier.boundary.tensor
    both = keras.Model(start, [activations, classifier.output])
    both.jit_compile = part.jit_compile
    both.steps_per_execution = part.steps_per_execution
    return both


def contributions(kernel: np.ndarray, activations: np.ndarray) -> np.ndarray:
    """How much each input of the last Dense layer speaks for each class against the mean of all classes:

        contribution[c, i] = (W[i, c] - mean over classes of W[i, :]) * a[c, i]

    The mean weight is taken away because it raises the logits of all classes alike: softmax gives the same without it,
    so it speaks for none of them. The mean activation stays: what all photos have in common (flowers: petals) speaks
    for some classes more than for others, and without it what is named is further from what one sees.

    Args:
        kernel: float [inputs, classes].
        activations: float [classes, inputs]: of each class's photos, the mean.

    Returns:
        float64 [classes, inputs], in units of a logit.
    """
    kernel = kernel.astype("float64")
    return (kernel - kernel.mean(axis=1, keepdims=True)).T * activations


def mean_activations(activations: np.ndarray, labels: np.ndarray, *, classes: int) -> np.ndarray:
    """The mean over each class's photos.

    Args:
        activations: float [photos, inputs].
        labels: int [photos], the true classes.
        classes: number of them.

    Returns:
        float64 [classes, inputs]; zero for a class without photos.
    """
    means = np.zeros((classes, activations.shape[1]))
    for label in np.unique(labels):
        means[label] = activations[labels == label].astype("float64").mean(axis=0)
    return means


def strongest_classes(
    kernel: np.ndarray, activations: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> list[dict]:
    """The ImageNet classes that speak most for each class that has photos, the strongest first.

    Args:
        kernel: float [inputs, classes], of the last Dense layer; the last 1000 inputs are ImageNet's classes.
        activations: float [photos, inputs]: what it read.
        labels: int [photos], the true classes.
        class_names: in the order of the kernel.

    Returns:
        A row for each: class; rank, from 1; synset, its WordNet id; imagenet_class, its usual name; contribution, in
        units of a logit, see `contributions`; share, of the sum of all inputs that speak for the class, features too
        where the layer reads them, 0 to 1; activation, its mean over the class's photos: if negative, the photos are
        unlike it, and that speaks for the class.
    """
    means = mean_activations(activations, labels, classes=len(class_names))
    found = np.maximum(contributions(kernel, means), 0)
    rows = []
    for label in np.unique(labels):
        speaking = found[label, -CLASSES:]
        order = np.argsort(-speaking, kind="stable")[: min(STRONGEST, np.count_nonzero(speaking))]
        for rank, number in enumerate(order, start=1):
            synset = synsets()[number]
            rows.append(
                {
                    "class": class_names[label],
                    "rank": rank,
                    "synset": synset.id,
                    "imagenet_class": synset.name,
                    "contribution": float(speaking[number]),
                    "share": float(speaking[number] / found[label].sum()),
                    "activation": float(means[label, number - CLASSES]),
                }
            )
    return rows
