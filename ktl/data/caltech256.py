"""Caltech-256 as a TFDS builder, which TFDS itself does not have.

Importing this module registers the builder. That loads TFDS, which takes seconds: import it only where it is needed.
"""

import re
import tarfile
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

ARCHIVE = "256_ObjectCategories.tar"
TRAIN_PHOTOS_A_CLASS = 60
PROTOCOL_SEED = 2026

_CLUTTER = "clutter"
_PHOTO = re.compile(r"(?:^|/)\d{3}\.(?P<label>[^/]+)/\d{3}_\d{4}\.jpg$")
"""Matches photos only. The archive holds other things too: a script among the spiders, a folder among the dogs."""


class Caltech256(tfds.core.GeneratorBasedBuilder):
    """256 classes with 80 to 827 photos each: 60 random photos of each class are for training, the others for test."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Download {ARCHIVE} (1.2 GB) from https://data.caltech.edu/records/nyy15-4j048 and do not unpack it."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "file_name": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(),  # The archive names the classes.
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://data.caltech.edu/records/nyy15-4j048",
        )

    def _split_generators(self, dl_manager):
        archive = dl_manager.manual_dir / ARCHIVE
        if not archive.exists():
            raise FileNotFoundError(f"{archive} does not exist. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        with tarfile.open(archive) as tar:
            labels = {name: label for name in sorted(tar.getnames()) if (label := _label(name))}
        class_names = sorted(set(labels.values()))
        features: Any = self.info.features
        features["label"].names = class_names
        train = set()
        for number, label in enumerate(class_names):
            photos = [name for name in labels if labels[name] == label]
            order = np.random.default_rng([PROTOCOL_SEED, number]).permutation(len(photos))
            train.update(photos[index] for index in order[:TRAIN_PHOTOS_A_CLASS])
        return {
            "train": self._generate_examples(archive, train),
            "test": self._generate_examples(archive, set(labels) - train),
        }

    def _generate_examples(self, archive, members):
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name in members:
                    file_name = member.name.rpartition("/")[2]
                    photo = {"image": tar.extractfile(member), "file_name": file_name, "label": _label(member.name)}
                    yield file_name, photo


def _label(member: str) -> str | None:
    found = _PHOTO.search(member)
    return found["label"] if found and found["label"] != _CLUTTER else None
