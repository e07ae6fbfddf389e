"""What the ways work on, all of it made before the clock starts."""

import argparse
import dataclasses
from collections.abc import Callable

import numpy as np

from ktl.config.settings import RunConfig
from ktl.data.dataset import Dataset, Split, with_splits
from ktl.data.input_pipeline import PhotoCache, check_photos
from ktl.data.loading import load_dataset
from ktl.machine import Machine
from ktl.models.classifier import TransferClassifier
from ktl.runs.session import Session, classifier_of

DECODED_GIB = 8


@dataclasses.dataclass(frozen=True)
class Work:
    """Settings, the machine as it was set up for them, the photos' names and labels, a classifier."""

    config: RunConfig
    machine: Machine
    dataset: Dataset
    classifier: TransferClassifier

    @property
    def image_size(self) -> int:
        return self.classifier.image_size


def prepare(settings: argparse.Namespace, *, depth: str, **changes) -> Work:
    """The work that the flags describe; `changes` are of the run's settings."""
    config, dataset = configure(settings, freeze_depth=depth, **changes), load(settings)
    machine = Session(config, dataset).set_up_machine()
    return Work(config, machine, dataset, build(config, dataset))


def configure(settings: argparse.Namespace, **changes) -> RunConfig:
    names = ("dataset", "data_dir", "backbone", "weights", "epochs")
    flags = {name: getattr(settings, name) for name in names}
    return RunConfig(**{**flags, "augmentation": "none", "patience": 0, "least_steps": 1, **changes})


def load(settings: argparse.Namespace) -> Dataset:
    """The data set, or the first few photos of each class of each of its splits."""
    dataset = load_dataset(settings.dataset, data_dir=settings.data_dir)
    if settings.photos_a_class is None:
        return dataset
    return change_splits(dataset, lambda split: first_of_each_class(split, settings.photos_a_class))


def change_splits(dataset: Dataset, change: Callable[[Split], Split]) -> Dataset:
    """The data set with each split changed."""
    return with_splits(dataset, {split.name: change(split) for split in dataset.splits})


def first_of_each_class(split: Split, count: int) -> Split:
    return split.take(np.concatenate([np.flatnonzero(split.labels == k)[:count] for k in np.unique(split.labels)]))


def build(config: RunConfig, dataset: Dataset) -> TransferClassifier:
    return classifier_of(config, config.backbone, class_names=dataset.class_names)


def decode(work: Work) -> PhotoCache:
    """All photos, decoded."""
    photos = PhotoCache(memory_gib=DECODED_GIB)
    check_photos(work.dataset, image_size=work.image_size, on_bad_image="fail", cache=photos)
    return photos
