"""A classifier in memory as what is exported: verified on photos that are given, or on noise."""

import dataclasses
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from ktl.data.images import BadPhoto, pixels_of
from ktl.data.split import FileSource, Split
from ktl.data.views import view_of
from ktl.errors import UserError
from ktl.exporting.subject import CALIBRATION_PHOTOS, VERIFICATION_PHOTOS, Evidence, Subject, head_input, spread
from ktl.inference.photos import NamedPhoto, Photos, name_photos, read_photo
from ktl.inference.predictor import predictor_of
from ktl.machine import has_gpu
from ktl.models.classifier import TransferClassifier
from ktl.models.finite import check_finite
from ktl.models.flat_graph import copy_model
from ktl.names import is_url

NOISE_PHOTOS = 32
NOISE_SEED = 2026

BATCH = 32


@dataclasses.dataclass(frozen=True)
class _Sample:
    """A photo that an export is verified on.

    Attributes:
        name: what messages call it.
        read: gives its encoded bytes.
        file: where these are; None if they are in no file.
    """

    name: str
    read: Callable[[], bytes]
    file: Path | None = None


@dataclasses.dataclass(frozen=True)
class _Samples:
    """The photos that an export is verified on, and their true classes where they are known."""

    verified_on: str
    photos: Sequence[_Sample]
    labels: np.ndarray | None = None
    folders: tuple[Path, ...] = ()


def subject_of_classifier(classifier: TransferClassifier, photos: Split | Photos | None) -> Subject:
    """A classifier in memory. A copy of it is exported, so that it stays as it is.

    Args:
        classifier: the network.
        photos: which the export is verified on; noise if None.

    Raises:
        UserError: it cannot be copied, it has weights that are no finite numbers, or `photos` has no photo.
    """
    check_finite(classifier.variables, holder="the classifier")
    samples = _samples(photos, classifier)
    # A copy: exporting adds to the graph of the layers that it is given.
    model = copy_model(classifier)
    dense_layers = sum(isinstance(layer, keras.layers.Dense) for layer in classifier.new_layers)
    return Subject(
        model=model,
        head_input=head_input(model, dense_layers=dense_layers),
        class_names=classifier.class_names,
        calibration=None,
        rounded=has_gpu() or any(layer.compute_dtype not in ("float32", None) for layer in classifier.layers),
        verified_on=samples.verified_on,
        make_evidence=partial(_evidence, classifier, samples),
        training_views=partial(_training_views, samples, classifier.image_size),
        photo_folders=samples.folders,
        facts=_facts(classifier),
    )


def noise_photos(image_size: int) -> list[np.ndarray]:
    """Photos of noise around a colour of their own, so that networks tell them apart: uint8 [height, width, 3] each."""
    generator = np.random.default_rng(NOISE_SEED)
    height, width = image_size * 5 // 4, image_size * 3 // 2  # neither square nor of the network's size
    colors = generator.uniform(0, 255, (NOISE_PHOTOS, 1, 1, 3))
    pixels = colors + generator.normal(0, 40, (NOISE_PHOTOS, height, width, 3))
    return list(pixels.clip(0, 255).astype(np.uint8))


def _samples(photos: Split | Photos | None, network: TransferClassifier) -> _Samples:
    if photos is None:
        noise = enumerate(noise_photos(network.image_size))
        found = [_Sample(f"noise {index}", partial(_encode, pixels)) for index, pixels in noise]
        return _Samples("noise with a fixed seed, no photos were given", found)
    if isinstance(photos, Split):
        chosen = photos.take(spread(len(photos), VERIFICATION_PHOTOS))
        if chosen.labels.max(initial=0) >= len(network.class_names):
            raise UserError(
                f"Expected `photos` of the classifier's {len(network.class_names)} classes. Received: a split with more"
            )
        found = [_sample_of(chosen, index) for index in range(len(chosen))]
        source = photos.source
        folders = (source.root,) if isinstance(source, FileSource) and source.is_dataset else ()
        return _Samples(f"{chosen.name} photos that were given", found, chosen.labels, folders)
    given = photos if isinstance(photos, str | os.PathLike | Image.Image | np.ndarray) else list(photos)
    named = name_photos(given)
    found = [_named_sample(named[index]) for index in spread(len(named), VERIFICATION_PHOTOS)]
    return _Samples("photos that were given", found, folders=_folders_of(given))


def _folders_of(given: Photos) -> tuple[Path, ...]:
    """The folders among what was given, and the one of the class folders that the files are in, if there are several.

    A file's own folder is none of them: photos and an export may be beside each other.
    """
    each: Iterable = [given] if isinstance(given, str | os.PathLike | Image.Image) else given
    paths = [Path(path) for path in each if isinstance(path, str | os.PathLike) and not is_url(path)]
    class_folders = {path.absolute().parent for path in paths if not path.is_dir()}
    roots = {folder.parent for folder in class_folders}
    shared = roots if len(class_folders) > 1 and len(roots) == 1 else set()
    return (*(path for path in paths if path.is_dir()), *shared)


def _sample_of(split: Split, index: int) -> _Sample:
    name, read = split.photos[index], partial(split.read, index)
    if isinstance(split.source, FileSource):
        return _Sample(name, read, Path(split.source.root, name).absolute())
    return _Sample(name, read)


def _named_sample(photo: NamedPhoto) -> _Sample:
    content = photo.content
    if isinstance(content, Path | str):
        file = content.absolute() if isinstance(content, Path) else None
        return _Sample(photo.name, partial(read_photo, content), file)
    if isinstance(content, Image.Image):
        return _Sample(photo.name, lambda: _encode(pixels_of(content)))
    return _Sample(photo.name, partial(_encode, content))


def _encode(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _readable(samples: _Samples, image_size: int) -> Iterator[tuple[int, bytes, np.ndarray]]:
    """Index, encoded bytes and view of each photo that can be read."""
    for index, sample in enumerate(samples.photos):
        try:
            encoded = sample.read()
            yield index, encoded, view_of(encoded, size=image_size)
        except (BadPhoto, OSError):
            continue


def _evidence(network: TransferClassifier, samples: _Samples, folder: Path) -> Evidence:
    """The photos that can be read, and what the classifier gives for them."""
    rows, files, views = [], [], []
    for index, encoded, view in _readable(samples, network.image_size):
        file = samples.photos[index].file
        if file is None:
            file = folder / f"{index:06}"
            file.write_bytes(encoded)
        rows.append(index)
        files.append(file)
        views.append(view)
    if not rows:
        raise UserError(f"Expected `photos` that can be read. Received: {len(samples.photos)} that cannot")
    classify = predictor_of(network).classify
    batches = [np.stack(views[start : start + BATCH]) for start in range(0, len(views), BATCH)]
    expected = np.concatenate([classify(batch) for batch in batches])
    return Evidence(
        photos=files,
        expected=expected,
        labels=None if samples.labels is None else samples.labels[rows],
        names=[samples.photos[row].name for row in rows],
    )


def _training_views(samples: _Samples, image_size: int) -> Iterator[np.ndarray]:
    chosen = [samples.photos[index] for index in spread(len(samples.photos), CALIBRATION_PHOTOS)]
    for _, _, view in _readable(_Samples(samples.verified_on, chosen), image_size):
        yield view[np.newaxis]


def _facts(network: TransferClassifier) -> dict[str, str]:
    """What the classifier says of itself, for the model card."""
    boundary = network.boundary
    return {
        "network": network.name,
        "head": network.head,
        "frozen up to": f"{boundary.name}, {boundary.parameters_before:,} of {network.count_params():,} parameters",
    }
