"""A tiny classifier, photos that it learns in a few epochs, and what tests of training do with them."""

import keras
import numpy as np

from ktl.data.dataset import Dataset
from ktl.models.classifier import TransferClassifier
from ktl.training.inputs import Inputs, make_inputs
from ktl.training.options import Caching, InputOptions

SIZE = 42
"""Pixels, of the fixture `tiny_backbone`."""

CLASSES = tuple(f"class{label}" for label in range(6))
"""Those of the fixture `photo_folder`."""

PHOTOS, BATCH = 20, 5
STEPS = PHOTOS // BATCH


def tiny_classifier(backbone, **settings) -> TransferClassifier:
    """Of the file of the fixture `tiny_backbone`."""
    defaults = {"class_names": CLASSES, "freeze_depth": "stem_relu", "seed": 0}
    return TransferClassifier(str(backbone), **{**defaults, **settings})


def without_dropout(classifier) -> TransferClassifier:
    for layer in classifier.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return classifier


def make_photos(count=PHOTOS, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Noise with the class as its brightness: can be learned in a few epochs."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(count, dtype=np.int32) % len(CLASSES))
    brightness = 20 + 40 * labels[:, None, None, None]
    pixels = brightness + generator.normal(0, 8, (count, SIZE, SIZE, 3)) * np.array([1, 2, 3])
    return pixels.clip(0, 255).astype(np.uint8), labels


def make_dataset(count=PHOTOS) -> Dataset:
    """`count` training photos, 10 for validation and 10 for test."""
    others = {name: make_photos(10, seed) for seed, name in enumerate(("validation", "test"), start=1)}
    return Dataset.from_arrays(*make_photos(count), class_names=CLASSES, **others)


def inputs_of(classifier, dataset=None, *, cache_dir=None, **options) -> Inputs:
    """Photos as they are, one pass an epoch; features where there is a folder for them."""
    caching = Caching(mode="off") if cache_dir is None else Caching(mode="on", folder=cache_dir)
    chosen = InputOptions(
        **{"batch_size": BATCH, "least_steps": 1, "augmentation": "none", "caching": caching, **options}
    )
    return make_inputs(classifier, dataset or make_dataset(), chosen, epochs=5)


class Losses(keras.callbacks.Callback):
    """The running mean of the loss after each step."""

    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(logs["loss"])


def without_seconds(history) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def values(variables) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def put_back(variables, saved) -> None:
    for variable, value in zip(variables, saved, strict=True):
        variable.assign(value)


def losses_and_gradients(model, pixels, labels, weights=1.0) -> tuple[np.ndarray, list[np.ndarray]]:
    """The loss of each photo and the gradients of their weighted mean, by the backend's own loss and differentiation.

    Leaves the model as it was.
    """
    backends = {"tensorflow": _losses_and_gradients_of_tensorflow, "jax": _losses_and_gradients_of_jax}
    losses, gradients = backends[keras.config.backend()](model, pixels, labels, weights)
    return np.asarray(losses), [np.asarray(gradient, np.float64) for gradient in gradients]


def _losses_and_gradients_of_tensorflow(model, pixels, labels, weights):
    import tensorflow as tf

    trainable = {id(variable) for variable in model.trainable_variables}
    state = [variable for variable in model.variables if id(variable) not in trainable]
    saved = values(state)  # statistics of norms, and the dropout's generator
    with tf.GradientTape() as tape:
        logits = model(pixels, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        loss = tf.reduce_mean(weights * losses)
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    put_back(state, saved)
    return losses, gradients


def _losses_and_gradients_of_jax(model, pixels, labels, weights):
    import jax

    state = [variable.value for variable in model.non_trainable_variables]

    def mean_loss(trainable):
        logits, _ = model.stateless_call(trainable, state, pixels, training=True)
        losses = -jax.nn.log_softmax(logits)[np.arange(len(labels)), labels]
        return (weights * losses).mean(), losses

    trainable = [variable.value for variable in model.trainable_variables]
    (_, losses), gradients = jax.value_and_grad(mean_loss, has_aux=True)(trainable)
    return losses, gradients
