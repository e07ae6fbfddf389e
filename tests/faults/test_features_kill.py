"""A pass over the photos that is killed: nothing of it is read, and it goes after a while."""

import os
import signal

import numpy as np
from stored_features import compute, expected_features, extraction_of, read_features
from support import start
from tiny import tiny_classifier

from ktl.data.loading import load_dataset
from ktl.features.store import FeatureStore


def _compute_until_killed(folder, backbone, photos):
    def kill(done):
        os.kill(os.getpid(), signal.SIGKILL)

    compute(FeatureStore(folder), extraction_of(tiny_classifier(backbone), load_dataset(photos)), progress=kill)


def test_a_killed_pass_leaves_nothing_that_is_read(tiny_backbone, photo_folder, tmp_path):
    process = start(_compute_until_killed, str(tmp_path), str(tiny_backbone), str(photo_folder))
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    store, dataset = FeatureStore(tmp_path), load_dataset(str(photo_folder))
    classifier = tiny_classifier(tiny_backbone)
    extraction = extraction_of(classifier, dataset)
    assert list(tmp_path.glob(".partial-*"))
    assert store.load(extraction.key, dataset) is None
    compute(store, extraction)
    values, _ = read_features(store.load(extraction.key, dataset).features["test"])
    np.testing.assert_allclose(values, expected_features(classifier, "stem_relu", dataset.test), rtol=1e-5, atol=1e-6)
    for folder in tmp_path.glob(".partial-*"):
        for file in [*folder.iterdir(), folder]:
            os.utime(file, (0, 0))
    compute(store, extraction_of(classifier, dataset, "all"))
    assert not list(tmp_path.glob(".partial-*"))
