"""What a folder's work began with is told by digests, computed photo by photo."""

import dataclasses
import hashlib
import tracemalloc

import numpy as np

from ktl.data.dataset import make_dataset
from ktl.data.listing import Listing
from ktl.data.split import MemorySource, Split
from ktl.runs.identity import difference_between, identity_of

CLASSES = ("ash", "it's")


def dataset_of(counts=(20, 1, 3), *, first=0):
    """Splits of so many photos, whose names go on from one split to the next."""
    splits = {}
    for name, count in zip(("train", "validation", "test"), counts, strict=True):
        photos = tuple(f"{number % 2}/{number:07}.jpg" for number in range(first, first + count))
        source = MemorySource(dict.fromkeys(photos, b"photo"))
        splits[name] = Split(name, photos, np.arange(count, dtype=np.int32) % 2, source)
        first += count
    return make_dataset(Listing("made up", splits, CLASSES))


def test_the_digest_of_splits_is_that_of_version_0_1():
    dataset = dataset_of()
    members = [(split.name, split.photos, split.labels.tolist()) for split in dataset.splits]
    text = repr((dataset.class_names, members))
    assert identity_of(dataset, [])["splits"] == hashlib.sha256(text.encode()).hexdigest()


def test_what_changes_is_told():
    here = dataset_of()
    found = identity_of(here, [])
    assert found["photos"] == {"train": 20, "validation": 1, "test": 3}
    assert difference_between(found, identity_of(dataset_of(), []), set_aside=()) is None
    moved = dataclasses.replace(here, train=here.test, test=here.train)
    line = difference_between(found, identity_of(moved, []), set_aside=())
    assert line == "the same photos and classes in other splits"
    other = dataclasses.replace(here, test=dataclasses.replace(here.test, labels=1 - here.test.labels))
    renamed = dataclasses.replace(here, class_names=("ash", "elm"))
    for changed in (other, renamed, dataset_of(first=1)):
        assert difference_between(found, identity_of(changed, []), set_aside=()).startswith("others, of now")


def test_memory_is_flat():
    """The photos' names take 6 MB; a data set itself holds them, its digests do not."""
    dataset = dataset_of((100_000, 1, 1))
    tracemalloc.start()
    try:
        identity_of(dataset, [])
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 10**6
