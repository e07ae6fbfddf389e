"""What a classifier is trained and scored on: photos, or what its frozen layers give for them."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import keras

from ktl.data.batches import Batches, Rows
from ktl.data.dataset import Dataset, Split
from ktl.data.input_pipeline import PhotoCache, evaluation_batches, training_batches
from ktl.errors import UserError
from ktl.features.batches import cached_evaluation_batches, cached_training_batches
from ktl.models.classifier import TransferClassifier
from ktl.progress import Reporter
from ktl.training.caching import find_features
from ktl.training.memory import check_training_fits
from ktl.training.options import InputOptions
from ktl.training.stored_photos import check

_features: Any = importlib.import_module(f"ktl.backends.{keras.config.backend()}_features")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Batches of photos for a classifier, or of features for its suffix.

    Attributes:
        dataset: without its bad photos.
        bad_photos: (photo, reason) of each photo that cannot be read.
        options: how photos become batches.
        features: of each split, by its name, where they are cached; None where photos are seen.
        image_size: side of the photos' views, pixels.
        photos: holds decoded photos where these are seen.
        seconds: that computing or finding the features took.
    """

    dataset: Dataset
    bad_photos: tuple[tuple[str, str], ...]
    options: InputOptions
    image_size: int
    photos: PhotoCache
    features: Mapping[str, Rows] | None = None
    seconds: float = 0.0

    @property
    def cached(self) -> bool:
        """Whether these are features for the suffix."""
        return self.features is not None

    @property
    def steps_per_epoch(self) -> int:
        """Training batches an epoch, all of them full."""
        return self.options.steps_per_epoch(len(self.dataset.train))

    @property
    def photos_per_epoch(self) -> int:
        """Photos that an epoch shows, each as often as it shows it."""
        return self.steps_per_epoch * self.options.batch_size

    def trained_part(self, classifier: TransferClassifier) -> keras.Model:
        """What these batches fit: the classifier, or its suffix; either way the classifier's own layers."""
        return classifier.suffix if self.cached else classifier

    def training_batches(self, *, epochs: int, first_epoch: int = 0) -> Batches:
        """The batches of the epochs first_epoch, ..., epochs - 1, counted from 0, one epoch after another.

        Returns:
            Pairs of float [batch, ...] or uint8 pixels and int32 labels [batch].
        """
        length = {"steps": self.steps_per_epoch, "epochs": epochs, "first_epoch": first_epoch}
        batches = {"batch_size": self.options.batch_size, "seed": self.options.seed, **length}
        if self.features is not None:
            return cached_training_batches(self.features["train"], **batches)
        return training_batches(
            self.dataset.train,
            image_size=self.image_size,
            cache=self.photos,
            augmentation=self.options.augmentation,
            views=self.options.training_views,
            flip=self.options.flips(self.dataset),
            **batches,
        )

    def evaluation_batches(self, split: Split) -> Batches:
        """The batches of a split of `dataset`, in its order."""
        if self.features is not None:
            return cached_evaluation_batches(self.features[split.name], batch_size=self.options.batch_size)
        return evaluation_batches(
            split, image_size=self.image_size, batch_size=self.options.batch_size, cache=self.photos
        )


def make_inputs(
    classifier: TransferClassifier,
    dataset: Dataset,
    options: InputOptions | None = None,
    *,
    epochs: int,
    trainings: int = 1,
    jit_compile: bool = False,
    reporter: Reporter | None = None,
) -> Inputs:
    """Features where that is asked for or pays, computed or found; else photos. Says which and why.

    Args:
        classifier: what is trained.
        dataset: whose photos it sees.
        options: how photos become batches.
        epochs: the most that a training may take.
        trainings: about how many trainings share the frozen part.
        jit_compile: whether to compile the pass with XLA.
        reporter: is told of the progress.

    Raises:
        UserError: the data set has other classes than the classifier, bad photos that are not to be skipped,
            or settings that need more memory than there is.
    """
    options, reporter = options or InputOptions(), reporter or Reporter()
    if classifier.class_names != tuple(dataset.class_names):
        raise UserError(
            f"Expected a data set of the classifier's {len(classifier.class_names)} classes, in their order: "
            f"{', '.join(classifier.class_names[:9])}. Received: {', '.join(dataset.class_names[:9])}"
        )
    check_training_fits(classifier, options, photos=len(dataset.train), epochs=epochs)
    found = find_features(
        classifier, dataset, options, epochs=epochs, trainings=trainings, jit_compile=jit_compile, reporter=reporter
    )
    common = {"options": options, "image_size": classifier.image_size}
    if found is not None:
        seen = {name: getattr(found, name) for name in ("dataset", "bad_photos", "seconds")}
        return Inputs(**common, **seen, features=_features.kept(found.features), photos=PhotoCache(memory_gib=0))
    photos = PhotoCache(memory_gib=options.memory_gib)
    checked, bad_photos = check(dataset, classifier.image_size, photos, options, reporter)
    return Inputs(**common, dataset=checked, bad_photos=bad_photos, photos=photos)
