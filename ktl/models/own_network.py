"""Whether a network that somebody brings can mean what a head reads: told by its graph, and by running it.

A head reads what the network says of ImageNet's classes, or what its classification layer reads. Neither means anything
of a network without that layer, of one that gives an embedding or a number, or of one whose probabilities are taken for
logits.
"""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np

from ktl.errors import UserError, reason_of
from ktl.models.keras_graph import has_kernel, kind, node_of, topological_nodes
from ktl.progress import warn_once

LOOKED_AT = 4
"""How many made-up photos a network is run on."""

BRIGHTER, DARKER = 100.0, 0.005
"""Times the variance that the first normalisation has seen in training, from which on pixels are of another range.
Made-up photos gave 0.1 to 0.8 where MobileNet and EfficientNet-Lite saw the range of their training, 1,700 to 12,000
where they saw 0..255 in the place of -1..1, and below 0.002 where it was the other way round."""

LARGE = 200.0
"""A logit that no network gives that sees what it was trained on."""

_FOLLOWS = frozenset(
    {
        *("activation", "cast", "dropout", "flatten", "identity", "permute", "rescaling", "reshape", "squeeze"),
        *("average_pooling2d", "global_average_pooling2d", "mean"),
    }
)
"""What may come after a classification layer, besides the end of `_ENDS`."""

_ENDS = {
    keras.activations.softmax: "softmax",
    keras.activations.log_softmax: "log_softmax",
    keras.activations.sigmoid: "sigmoid",
}


@contextlib.contextmanager
def foreign_errors_told(name: str, size: int) -> Iterator[None]:
    """Inside, layers run on photos of that size: what they raise, which may be anything, is a UserError."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(
            f"Expected {name} to classify photos of {size} x {size} pixels. Received: {reason_of(error)}"
        ) from error


def check_end(output, *, name: str) -> None:
    """Refuses a network whose outputs are not those of a classification layer.

    Args:
        output: of a flat graph, as the network has it.
        name: what errors call the network.

    Raises:
        UserError: it has one output, or none of a fixed number; or they come of something else.
    """
    width = output.shape[-1]
    if width is None or width < 2:
        raise UserError(f"Expected {name} to tell at least two classes apart. Received: one with {width} outputs")
    node, end = node_of(output), None
    while not has_kernel(node.operation):
        end = end or _end_of(node.operation)
        if not _may_follow(node, end):
            raise _no_classification_layer(name, node.operation)
        node = node_of(node.input_tensors[0])
    own = getattr(node.operation, "activation", None)
    end = end or _end_of(node.operation)
    if end is None and own not in (None, keras.activations.linear):
        raise UserError(
            f"Expected {name} to end in logits, or a softmax of them. Received: {keras.activations.serialize(own)} of "
            f"{node.operation.name}, as an embedding or a regression has it"
        )
    if end == "sigmoid":
        warn_once(
            f"WARNING: {name} ends in a sigmoid: its classes do not exclude each other. Heads read what is before it; "
            "those that read probabilities take them for classes that do"
        )


def check_answers(pixels, logits, *, name: str) -> None:
    """Runs a network on made-up photos, and refuses or tells what a head cannot read.

    Args:
        pixels: its input tensor.
        logits: its output tensor.
        name: what errors call it.

    Raises:
        UserError: it gives no finite numbers, or probabilities where there should be logits.
    """
    normalised = [node for node in topological_nodes(logits) if isinstance(node.operation, _NORMALISATION)][:1]
    model = keras.Model(pixels, [logits, *(node.input_tensors[0] for node in normalised)])
    size = pixels.shape[1]
    with foreign_errors_told(name, size):
        outputs = model(_made_up_photos(LOOKED_AT, size), training=False)
    answers, *before = map(_numbers, keras.tree.flatten(outputs))
    if not np.isfinite(answers).all():
        raise UserError(f"Expected {name} to give finite numbers. Received: {answers[~np.isfinite(answers)][0]}")
    for values, what in ((answers, "probabilities"), (np.exp(np.minimum(answers, 1)), "logarithms of probabilities")):
        if (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-2):
            raise UserError(
                f"Expected {name} to end in logits, or in a softmax that can be taken away. Received: {what}, of "
                f"{node_of(logits).operation.name}"
            )
    if np.ptp(answers, axis=0).max() == 0:
        warn_once(f"WARNING: {name} gives the same for different photos")
    largest = np.abs(answers).max()
    if not before and largest > LARGE:
        _warn_of_range(name, f"pixels in 0..255 give logits up to {largest:.0f}")
    ratio = _spread(before[0], normalised[0].operation) if before else None
    if ratio is not None and not DARKER < ratio < BRIGHTER:
        _warn_of_range(name, f"pixels in 0..255 spread {ratio:.2g} times as much as those of its training")


_NORMALISATION = keras.layers.BatchNormalization


def _numbers(tensor) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")))


def _warn_of_range(name: str, why: str) -> None:
    warn_once(
        f"WARNING: {name} was probably trained on pixels of another range: {why}. Put a Rescaling layer in "
        "front of it, such as Rescaling(1 / 255)"
    )


def _spread(values: np.ndarray, layer) -> float | None:
    """The variance of a channel in times of what the normalisation has seen in training, the median; None if it has
    not been trained."""
    moving = np.asarray(keras.ops.convert_to_numpy(layer.moving_variance)).astype(float)
    axis = layer.axis % values.ndim
    if (moving == 1).all() or values.shape[axis] != len(moving):
        return None
    alive = moving > 1e-9
    variance = values.astype(float).var(axis=tuple(i for i in range(values.ndim) if i != axis))
    return float(np.median(variance[alive] / moving[alive])) if alive.any() else None


def _may_follow(node, end: str | None) -> bool:
    """Whether a classification layer may come before this operation, which has no kernel."""
    operation = node.operation
    if len(node.input_tensors) != 1 or getattr(operation, "weights", ()):
        return False
    activation = getattr(operation, "activation", None)
    if activation not in (None, keras.activations.linear) and activation not in _ENDS:
        return end == "softmax"  # such as the rectifier before SqueezeNet's pooling
    if kind(operation) in ("softmax", "log_softmax", "sigmoid"):
        return True
    if kind(operation) in ("re_lu", "relu"):
        return end == "softmax"
    return kind(operation) in _FOLLOWS


def _end_of(operation) -> str | None:
    found = _ENDS.get(getattr(operation, "activation", None))
    return found or (kind(operation) if kind(operation) in _ENDS.values() else None)


def _no_classification_layer(name: str, operation) -> UserError:
    return UserError(
        f"Expected {name} to end in its classification layer, with its softmax or without. Received: outputs of "
        f"{operation.name}, as a network without that layer has them (include_top=False)"
    )


def _made_up_photos(count: int, size: int) -> np.ndarray:
    """Soft blots of colour with some noise, float32 [count, size, size, 3] in 0..255."""
    generator = np.random.default_rng(0)
    coarse = generator.uniform(0, 255, (count, 7, 9, 3)).astype("float32")
    soft = _numbers(keras.ops.image.resize(coarse, (size, size), interpolation="bilinear"))
    return np.clip(soft + generator.normal(0, 20, soft.shape), 0, 255).astype("float32")
