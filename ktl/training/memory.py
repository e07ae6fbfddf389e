"""The least memory that a training's settings need, known before any is taken."""

import math

from ktl.backends.engines import BATCH
from ktl.data.images import WORKERS
from ktl.data.views import shrunk_side
from ktl.memory import check_memory
from ktl.models.classifier import TransferClassifier
from ktl.models.keras_graph import topological_nodes
from ktl.training.options import InputOptions

FLOAT = 4
"""Bytes."""

ROW = 64
"""Bytes that the name of a row of the cache takes."""


def check_training_fits(classifier: TransferClassifier, options: InputOptions, *, photos: int, epochs: int) -> None:
    """Refuses settings whose least need of memory is more than there is.

    Args:
        classifier: what is trained.
        options: how photos become batches.
        photos: training photos.
        epochs: the most that the training may take.

    Raises:
        UserError: names the setting, and how much it takes.
    """
    size, batch, steps = classifier.image_size, options.batch_size, options.steps_per_epoch(photos)
    # Each thread that decodes photos shrinks one: Pillow takes four bytes for a pixel.
    shrinking = WORKERS * 4 * shrunk_side(size) ** 2
    largest = max(_elements(node.outputs[0].shape) for node in topological_nodes(classifier.output))
    check_memory(shrinking + largest * FLOAT, setting=f"`image_size` {size}")
    pixels = batch * 3 * size**2 * (1 + FLOAT)
    computed = min(batch, BATCH) * largest * FLOAT
    check_memory(pixels + computed, setting=f"`batch_size` {batch} with `image_size` {size}")
    order = 3 * 8 * steps * batch  # three numbers for each photo that an epoch shows
    check_memory(order, setting=f"`least_steps` {options.least_steps} with `batch_size` {batch}")
    if options.caching.mode != "off":
        views = photos * options.training_views
        check_memory(ROW * views, setting=f"`views` {options.views} of {photos} photos, of which `cache` keeps a list")
    check_memory(8 * steps * epochs, setting=f"`epochs` {epochs} of {steps} steps")  # a rate for each


def _elements(shape) -> int:
    return math.prod(side or 1 for side in shape[1:])
