"""The SavedModel: photos or pixels in, probabilities and labels out, with nothing left for the caller to get wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ktl.exporting.graph_views import evaluation_view_in_graph
from ktl.exporting.image_decoding import decode_in_graph
from ktl.files import write_lines
from ktl.inference.formats import LABELS, VIEWS
from ktl.inference.predictor import TOP_K
from ktl.models.batchnorm_folding import fold_batch_normalization


def write_saved_model(model: keras.Model, folder: Path, *, features, class_names: Sequence[str]) -> None:
    """Writes a SavedModel with four signatures:

        serving_default  photos: string [batch], encoded JPEG, PNG, GIF, BMP or WebP
        pixels           pixels: uint8 [batch, height, width, 3], photos of any one size
        views            views: uint8 [batch, s, s, 3], from `ktl.data.views.evaluation_view`
        features         photos, as above

    The first three give `probabilities`, float32 [batch, classes]; `label`, string [batch]; and the five highest as
    `top_k_labels`, string [batch, k], and `top_k_probabilities`. The last gives `features`, float32 [batch, channels].

    Args:
        model: pixels to probabilities.
        folder: where to.
        features: the tensor of the model's graph that `features` gives.
        class_names: in the order of the probabilities.
    """
    labels = folder / LABELS
    write_lines(labels, class_names)
    served: Any = tf.Module()
    # Its variables, not the model: Keras' objects hide their variables from loaders that know no objects, as those of
    # TensorFlow Serving and saved_model_cli.
    network = fold_batch_normalization(model.inputs[0], [model.outputs[0], features])
    served.weights = [variable.value for variable in network.variables]
    served.labels = tf.saved_model.Asset(str(labels))
    signatures = _signatures(network, class_names)
    tf.saved_model.save(served, str(folder), signatures=signatures)
    labels.unlink()  # a copy is among the assets now


def _signatures(model: keras.Model, class_names: Sequence[str]) -> dict:
    """Signature's name -> function; `model` gives probabilities and features."""
    size = model.input_shape[1]
    view = tf.TensorSpec([size, size, 3], tf.uint8)
    photos = tf.TensorSpec([None], tf.string, name="photos")
    pixels = tf.TensorSpec([None, None, None, 3], tf.uint8, name="pixels")
    views = tf.TensorSpec([None, size, size, 3], tf.uint8, name=VIEWS)

    def run(views) -> list:
        count = tf.shape(views)[0]
        # oneDNN's depthwise convolution, with what it is fused with, refuses an empty batch: a blank view goes with it.
        blank = tf.zeros([tf.cast(count == 0, tf.int32), size, size, 3], tf.uint8)
        outputs = model(tf.concat([views, blank], axis=0), training=False)
        return [tf.cast(output, tf.float32)[:count] for output in outputs]

    def classify(views) -> dict:
        probabilities, _ = run(views)
        top = tf.math.top_k(probabilities, min(TOP_K, len(class_names)))
        labels = tf.gather(tf.constant(class_names), top.indices)
        return {
            "probabilities": probabilities,
            "label": labels[:, 0],
            "top_k_labels": labels,
            "top_k_probabilities": top.values,
        }

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def seen(photo):  # traced once, and saved once
        return evaluation_view_in_graph(photo, size=size)

    def views_of(photos):
        return tf.map_fn(lambda photo: seen(_decode(photo)), photos, fn_output_signature=view)

    def resized(pixels):
        return tf.map_fn(seen, pixels, fn_output_signature=view)

    return {
        "serving_default": tf.function(lambda photos: classify(views_of(photos)), [photos]),
        "pixels": tf.function(lambda pixels: classify(resized(pixels)), [pixels]),
        VIEWS: tf.function(lambda views: classify(views), [views]),
        "features": tf.function(lambda photos: {"features": run(views_of(photos))[1]}, [photos]),
    }


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _decode(photo):
    """As a function of its own it is traced once, and saved once for the signatures that call it."""
    return decode_in_graph(photo)
