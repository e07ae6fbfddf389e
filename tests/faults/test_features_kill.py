"""A pass over the photos that is killed: what is whole is kept, the rest is never read and goes."""

import os
import signal

import numpy as np
from stored_features import compute, everything, extraction_of, stored
from support import start
from tiny import tiny_classifier

from ktl.data.loading import load_dataset
from ktl.features.store import FeatureStore

SHARD_ROWS = 30


def _compute_until_killed(folder, backbone, photos):
    def kill(done):
        if done > SHARD_ROWS:
            os.kill(os.getpid(), signal.SIGKILL)

    extraction = extraction_of(tiny_classifier(backbone), load_dataset(photos))
    compute(FeatureStore(folder), extraction, progress=kill, shard_rows=SHARD_ROWS)


def test_a_killed_pass_goes_on_after_its_last_whole_shard(tiny_backbone, photo_folder, tmp_path):
    process = start(_compute_until_killed, str(tmp_path / "cache"), str(tiny_backbone), str(photo_folder))
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.rglob("*.shard"))) == len(list(tmp_path.rglob("*.partial"))) == 1
    dataset = load_dataset(str(photo_folder))
    extraction = extraction_of(tiny_classifier(tiny_backbone), dataset)
    store, fresh, done = FeatureStore(tmp_path / "cache"), FeatureStore(tmp_path / "fresh"), []
    assert not list(tmp_path.rglob("*.partial"))
    assert stored(store, extraction) is None
    compute(store, extraction, progress=done.append)
    assert done[-1] == sum(map(len, dataset.splits)) - SHARD_ROWS
    compute(fresh, extraction)
    for split in dataset.splits:
        found, expected = (everything(stored(each, extraction)[split.name]) for each in (store, fresh))
        np.testing.assert_array_equal(found, expected)
