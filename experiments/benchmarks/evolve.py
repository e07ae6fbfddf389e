"""A data set that changed: the pass over all of its photos again, and over those that are new to a cache."""

import dataclasses
import tempfile
import time

ROUNDS = 3
DEPTH = "all"
NEW = 14
"""One photo of so many is new: of 1,360 photos, about 100."""


def cases(settings) -> dict:
    return {f"1 of {NEW} photos new": list(WAYS)}


def again(settings) -> dict:
    """All of them, as where a cache is named by the whole data set."""
    return changed(settings, known=False)


def new(settings) -> dict:
    """Those that the cache of the earlier data set does not have."""
    return changed(settings, known=True)


def changed(settings, *, known: bool) -> dict:
    """Digests, decoding and the pass, from files, after the data set was changed and another pass has warmed up."""
    from benchmarks.copies import with_notes
    from benchmarks.feeds import write_features
    from benchmarks.work import prepare
    from ktl.data.input_pipeline import PhotoCache

    later = prepare(settings, depth=DEPTH)
    photos = sorted(photo for split in later.dataset.splits for photo in split.photos)
    replaced = set(photos[::NEW])
    earlier = dataclasses.replace(later, dataset=with_notes(later.dataset, replaced))
    with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
        write_features(earlier, folder, depths=[DEPTH], photos=PhotoCache(memory_gib=0))
        started = time.perf_counter()
        place = folder if known else f"{folder}/fresh"
        write_features(later, place, depths=[DEPTH], photos=PhotoCache(memory_gib=0))
        seconds = time.perf_counter() - started
    note = f"{len(replaced if known else photos)} computed"
    return {"seconds": seconds, "units": len(photos), "unit": "photos", "note": note}


WAYS = {"again": again, "new": new}
