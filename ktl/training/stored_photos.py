"""The photos of a data set, and what a feature store has of them: the rest is checked and computed."""

import dataclasses
import errno
import functools
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ktl.data.dataset import Dataset, without
from ktl.data.input_pipeline import PhotoCache, check_photos, listed_photos
from ktl.errors import UserError
from ktl.features.digests import DigestMemory, digests_of
from ktl.features.extraction import Digests, Extraction, extract, open_features
from ktl.features.filling import working_bytes
from ktl.features.shared_memory import SharedMemory
from ktl.features.sharing import Sharing, copies_wanted, fetch
from ktl.features.store import Features, FeatureStore
from ktl.memory import size_in_words
from ktl.progress import Reporter
from ktl.remote import joined_url
from ktl.training.options import InputOptions

BadPhotos = tuple[tuple[str, str], ...]
"""(photo, reason) of each photo that cannot be read."""


@dataclasses.dataclass(frozen=True)
class Found:
    """Features of one data set at one freeze boundary.

    Attributes:
        dataset: without its bad photos.
        bad_photos: these.
        features: by the split's name.
        seconds: that computing or finding them took.
    """

    dataset: Dataset
    bad_photos: BadPhotos
    features: Mapping[str, Features]
    seconds: float


class StoredPhotos:
    """The photos of a data set, or of the whole that it is a part of, and what a store has of them.

    Args:
        store: what has them.
        dataset: whose photos.
        options: how they are seen.
        reporter: is told of the progress.
        of_portion: whether a photo is asked for; the others are neither read nor computed.
    """

    def __init__(
        self,
        store: FeatureStore,
        dataset: Dataset,
        options: InputOptions,
        reporter: Reporter,
        *,
        of_portion: Callable[[str], bool] = lambda photo: True,
    ):
        self.store, self.options, self.reporter = store, options, reporter
        self.whole = dataset.whole or dataset
        self.photos = frozenset(photo for split in self.whole.splits for photo in split.photos if of_portion(photo))
        self.bad_photos: BadPhotos = ()

    @functools.cached_property
    def digests(self) -> Digests:
        """Of the photos that are asked for; the others have none, as if they could not be read."""
        memory = DigestMemory(self.store.folder, tell=self.reporter.message)
        if self.store.url:
            memory = SharedMemory(memory, joined_url(self.store.url, "digests"), tell=self.reporter.message)
        reading = functools.partial(self.reporter.photos, "reading photos")
        asked = [
            split.take(np.flatnonzero([photo in self.photos for photo in split.photos])) for split in self.whole.splits
        ]
        nothing: dict[str, bytes | None] = {photo: None for split in self.whole.splits for photo in split.photos}
        return nothing | digests_of(asked, memory, reading=reading)

    def lacks(self, extractions: Sequence[Extraction]) -> set[str]:
        """The photos that a row is missing of."""
        return set().union(*(self._lacks_of(extraction) for extraction in extractions))

    def _lacks_of(self, extraction: Extraction) -> set[str]:
        lacking, entry = set(), extraction.entry(self.store)
        for split in self.whole.splits:
            readable = [photo for photo in split.photos if self.digests[photo] is not None]
            missing = entry.lacks(extraction.ids(split, self.digests)).reshape(-1, extraction.views.of(split))
            lacking |= {readable[index] for index in np.flatnonzero(missing.any(axis=1))}
            lacking |= self.photos.intersection(split.photos) - set(readable)
        return lacking

    def what_is_there(self, extractions: Sequence[Extraction]) -> str:
        """The end of a line: how many of the photos need not be computed."""
        there = len(self.photos) - len(self.lacks(extractions))
        return f"; {there:,} of {len(self.photos):,} photos are there" if there else ""

    def nbytes(self, extractions: Sequence[Extraction]) -> int:
        """What the rows of the photos that are asked for take in the store; of a part of the photos together with the
        rows that are there, for those may be of the other parts, which need room at the same time."""
        is_part = any(photo not in self.photos for split in self.whole.splits for photo in split.photos)
        total = 0
        for extraction in extractions:
            entry = extraction.entry(self.store)
            ids = self._ids(extraction, self.whole)
            rows = len(ids)
            if is_part and not self.store.url:
                rows = int(entry.lacks(ids).sum()) + sum(len(shard.ids) for shard in entry.shards)
            total += rows * entry.row_bytes
        return total

    def _ids(self, extraction: Extraction, dataset: Dataset) -> np.ndarray:
        """Of the rows of a data set's photos that are asked for, each once."""
        return np.unique(np.concatenate([extraction.ids(split, self.digests) for split in dataset.splits]))

    def room(self, extractions: Sequence[Extraction]) -> int:
        """The bytes that computing what is missing needs at the same time; what is at the URL may go from here."""
        if not self.store.url:
            return self.nbytes(extractions)
        ids = self._ids(extractions[0], self.whole)
        entries = [extraction.entry(self.store) for extraction in extractions]
        missing = sum(int(entry.lacks(ids).sum()) * entry.row_bytes for entry in entries)
        return min(missing, working_bytes([entry.row_bytes for entry in entries]))

    def share(self, extractions: Sequence[Extraction]) -> None:
        """Copies what this disk has of the features, and the store's URL has not, there."""
        with Sharing() as sharing:
            sharing.written([extraction.entry(self.store) for extraction in extractions])

    def _fetch(self, extraction: Extraction, dataset: Dataset) -> None:
        """Copies what is at the store's URL of a data set's features, and not on this disk, here, as far as there is
        room; what has none is read there when it is needed."""
        entry = extraction.entry(self.store)
        ids = self._ids(extraction, dataset)
        wanted = copies_wanted(self.store, entry, ids)
        if wanted:
            coming = int(np.isin(np.concatenate(list(wanted.values())), ids).sum())
            with self.reporter.photos("copying features here", coming) as progress:
                fetch(self.store, entry, ids, progress=progress)
        away = int(entry.away(ids).sum())
        if away:
            size, limit = map(size_in_words, (away * entry.row_bytes, self.store.limit_bytes))
            self.reporter.message(
                f"{away:,} of {len(ids):,} rows of features, {size}, have no room here (limit: {limit}); "
                f"each is read at {self.store.place} when it is needed"
            )

    def use(self, extractions: Sequence[Extraction]) -> None:
        """Counts what the store has of the photos as used now, by their data set."""
        for extraction in extractions:
            ids = np.concatenate([extraction.ids(split, self.digests) for split in self.whole.splits])
            self.store.use(extraction.entry(self.store), ids, of=self.whole.name)

    def fill(self, extractions: Sequence[Extraction]) -> bool:
        """As `compute`; False, and a message, where the disk is full."""
        try:
            self.compute(extractions)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.reporter.message(f"cache off: no space left in {self.store.folder}; another folder helps")
            return False
        return True

    def compute(self, extractions: Sequence[Extraction]) -> None:
        """Checks the photos that are missing and computes them in one pass.

        Raises:
            UserError: there are bad photos that are not to be skipped, or somebody has removed the cache meanwhile.
            OSError: the disk is full.
        """
        lacking = self.lacks(extractions)
        if not lacking:
            return
        photos = PhotoCache(memory_gib=self.options.memory_gib)
        size = extractions[0].views.image_size
        checked, self.bad_photos = check(self.whole, size, photos, self.options, self.reporter, only=lacking)
        if not lacking - {photo for photo, _ in self.bad_photos}:
            return
        try:
            with self.reporter.photos("computing frozen layers", self._missing(extractions, checked)) as progress:
                extract(
                    self.store,
                    extractions,
                    checked,
                    self.digests,
                    photo_cache=photos,
                    progress=progress,
                    waiting=lambda: self.reporter.message("waiting for other processes that compute the same photos"),
                )
        except FileNotFoundError as error:
            raise UserError(
                f"Expected `cache_dir` to stay while features are computed. Received: {self.store.folder}, of which "
                "something was removed. Repeat the command: it goes on with what is there"
            ) from error

    def _missing(self, extractions: Sequence[Extraction], checked: Dataset) -> int:
        """How many rows of any of them are missing; photos of the same bytes share one."""
        ids = self._ids(extractions[0], checked)
        return int(np.any([extraction.entry(self.store).lacks(ids) for extraction in extractions], axis=0).sum())

    def found(self, extraction: Extraction, dataset: Dataset, *, started: float) -> Found | None:
        """The features of a data set, computed if need be; None where the disk is full."""
        while self.fill([extraction]):  # more than once, if another process needs the room at once
            bad = {photo for photo, _ in self.bad_photos}
            seen = without(dataset, bad) if bad else dataset
            if any(self.digests[photo] is None for split in seen.splits for photo in split.photos):
                raise UserError("Expected photos that stay as they are. Received: some that came just now. Repeat it")
            self._fetch(extraction, seen)
            mend = functools.partial(self._mend, extraction)
            features = open_features(self.store, extraction, seen, self.digests, mend=mend)
            if features is not None:
                return Found(seen, self.bad_photos, features, time.perf_counter() - started)
        return None

    def _mend(self, extraction: Extraction) -> bool:
        """Computes what has gone since the features were found, from a network that is still the same."""
        if dataclasses.replace(extraction).key != extraction.key:
            raise UserError(
                "Expected the frozen layers to be what they were when their features were computed, which are "
                f"damaged in {self.store.folder}. Received: other weights. Repeat the command"
            )
        return self.fill([extraction])


def check(
    dataset: Dataset,
    image_size: int,
    photos: PhotoCache,
    options: InputOptions,
    reporter: Reporter,
    *,
    only: set[str] | None = None,
) -> tuple[Dataset, BadPhotos]:
    """The data set without its bad photos, and these; `only` some are decoded, if the others are known to be good."""
    total = sum(1 for split in dataset.splits for photo in split.photos if only is None or photo in only)
    with reporter.photos("checking photos", total) as update:
        checked, bad_photos = check_photos(
            dataset, image_size=image_size, on_bad_image=options.on_bad_image, cache=photos, only=only, progress=update
        )
    bad_photos = tuple(dict.fromkeys(bad_photos))  # a photo may be in two splits, see `ktl.data.pooling`
    if bad_photos:
        reporter.message(f"skipped {len(bad_photos)} photos that cannot be read: {listed_photos(bad_photos)}")
    return checked, bad_photos
