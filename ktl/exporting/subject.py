"""What is exported: a network, and photos for which it is known what it gives."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ktl.data.split import FileSource, Source
from ktl.exporting.record import Calibration
from ktl.inference.formats import probabilities_of
from ktl.models.keras_graph import node_of
from ktl.runs.finished_run import FinishedRun

VERIFICATION_PHOTOS = 1000
"""The most photos that an export is verified on."""

CALIBRATION_PHOTOS = 128
"""Photos that show int8 quantization the range of each layer's output."""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Photos, and what the network gives for them.

    Attributes:
        photos: files of encoded photos.
        expected: class probabilities, float32 [photos, classes].
        labels: true classes, int [photos]; None if they are not known.
        names: what messages call the photos; their files if None.
    """

    photos: Sequence[Path]
    expected: np.ndarray
    labels: np.ndarray | None
    names: Sequence[str] | None = None


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network that is exported.

    Attributes:
        model: flat functional model, pixels in 0..255 to logits. It is the export's own: layers may be added to it.
        head_input: what the first new Dense layer reads, [batch, channels]; a tensor of the model.
        class_names: in the order of the logits.
        calibration: has the temperature that the logits are divided by; None for 1.
        rounded: whether the network computed with fewer bits than float32 has, so that an export differs by more.
        verified_on: which photos the evidence has.
        make_evidence: gives the evidence; photos that are no files of their own are written to the folder that it gets.
        training_views: gives what the network sees of some photos, uint8 [1, image_size, image_size, 3] each.
        run: where the network is from; None for a classifier in memory.
        photo_folders: those of the photos that were given with a classifier in memory; no export goes into one.
        facts: rows of the model card about a classifier in memory.
    """

    model: keras.Model
    head_input: keras.KerasTensor
    class_names: tuple[str, ...]
    calibration: Calibration | None
    rounded: bool
    verified_on: str
    make_evidence: Callable[[Path], Evidence]
    training_views: Callable[[], Iterator[np.ndarray]]
    run: FinishedRun | None = None
    photo_folders: tuple[Path, ...] = ()
    facts: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def image_size(self) -> int:
        """Side of what the network sees of a photo, pixels."""
        return self.model.input_shape[1]

    @property
    def temperature(self) -> float:
        """What the logits are divided by."""
        return self.calibration["temperature"] if self.calibration else 1.0


def head_input(model: keras.Model, *, dense_layers: int = 1) -> keras.KerasTensor:
    """What the first new Dense layer reads, [batch, channels]: for `kept`, the normalised and scaled kept logits.

    Args:
        model: pixels to logits, as one flat graph that ends in the new Dense layers.
        dense_layers: how many those are: 2 with hidden units, else 1.
    """
    tensor: Any = model.outputs[0]
    for _ in range(dense_layers):
        tensor = node_of(tensor).input_tensors[0]
    return tensor


def deployed(model: keras.Model, *, temperature: float = 1.0) -> keras.Model:
    """The model from pixels to probabilities, its logits divided by the temperature.

    Args:
        model: from pixels to logits, as a run saves it.
        temperature: 1 leaves the logits as they are.
    """
    if temperature == 1:
        return probabilities_of(model)
    scaled = keras.layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(model.output)
    return probabilities_of(keras.Model(model.input, scaled))


def spread(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `count` things, evenly from the first to the last: int [m]."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def photo_files(photos: Iterable[str], sources: Mapping[str, Source], folder: Path) -> list[Path]:
    """A file for each photo: its own, or a copy in `folder` of one that is not a file."""
    files = []
    for index, photo in enumerate(photos):
        source = sources[photo]
        if isinstance(source, FileSource):
            files.append(Path(source.root, photo).absolute())
        else:
            files.append(folder / f"{index:06}")
            files[-1].write_bytes(source.read(photo))
    return files
