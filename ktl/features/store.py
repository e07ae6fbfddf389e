"""The feature store: what the frozen layers give for every photo and view, on disk, shared by processes.

It only stores. What is computed, and whether that pays, is decided above it.
"""

import contextlib
import dataclasses
import errno
import io
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import filelock
import numpy as np
import platformdirs

from ktl.data.dataset import Dataset, Split, without
from ktl.features.rows import SharedFile, open_shared, write_rows
from ktl.files import read_json, write_json

FILES = ("meta.json", "train.bin", "validation.bin", "test.bin")
"""Of a whole entry."""

ABANDONED = 3600
"""Seconds without a write after which a half-written entry is taken for a killed pass's."""


@dataclasses.dataclass(frozen=True)
class Features:
    """What the frozen layers give for one split, open for reading; stays readable if the store drops its files.

    Attributes:
        labels: int32 [photos].
        places: int64 [photos], where in the file a photo is.
        views: views of each photo.
        shape: of one photo's features.
        dtype: float32 or float16.
        file: of rows [photos, views, *shape], of all photos that the pass saw.
    """

    labels: np.ndarray
    places: np.ndarray
    views: int
    shape: tuple[int, ...]
    dtype: str
    file: SharedFile

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        return len(self) * self.views * math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The features of some rows (photo * views + view), [len(rows), *shape]."""
        out = np.empty((len(rows), *self.shape), self.dtype)
        photos, views = np.divmod(rows, self.views)
        self.file.read_rows(self.places[photos] * self.views + views, out)
        return out


@dataclasses.dataclass(frozen=True)
class Entry:
    """Features of one data set at one freeze boundary.

    Attributes:
        dataset: without its bad photos.
        bad_photos: (photo, reason) of each.
        features: by the split's name.
    """

    dataset: Dataset
    bad_photos: tuple[tuple[str, str], ...]
    features: Mapping[str, Features]


class FeatureStore:
    """Features on disk, shared by runs, trials and processes.

    An entry is a folder named by everything that its content depends on. It is written under another name and renamed
    when it is whole, under a lock, so that a killed pass leaves nothing that is read, and processes that need the same
    entry wait for the one that makes it. The entries used longest ago give way when a new one needs their room.

    Args:
        folder: where the entries are; ktl's own in the user's cache folder if None.
        limit_gib: the most that they take together, in GiB; half of the free disk if None.

    Raises:
        OSError, RuntimeError: the folder cannot be made or written to, or there is none.
    """

    def __init__(self, folder: str | Path | None = None, *, limit_gib: float | None = None):
        self.folder = Path(folder or platformdirs.user_cache_path("ktl", appauthor=False))
        self.folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.folder))
        if limit_gib is None:
            limit_gib = (shutil.disk_usage(self.folder).free + self._used_bytes()) / 2 / 2**30
        self.limit_bytes = int(limit_gib * 2**30)

    def has(self, key: str) -> bool:
        """Whether there is a whole entry of that key; it counts as used now."""
        there = all((self.folder / key / name).exists() for name in FILES)
        if there:
            with contextlib.suppress(FileNotFoundError):  # removed just now
                os.utime(self.folder / key / "meta.json")
        return there

    def load(self, key: str, dataset: Dataset) -> Entry | None:
        """An entry, or None if there is none.

        Args:
            key: names it.
            dataset: as it was before its photos were checked; of a part, those of the whole are read.
        """
        entry = self.folder / key
        try:
            meta = read_json(entry / "meta.json")
            os.utime(entry / "meta.json")  # used now
            files = {name: open_shared(entry / f"{name}.bin") for name in meta["views"]}
        except FileNotFoundError:
            return None
        bad = tuple((photo, reason) for photo, reason in meta["bad_photos"])
        whole = dataset.whole or dataset
        if bad:
            dataset, whole = (without(either, {photo for photo, _ in bad}) for either in (dataset, whole))
        features = {
            split.name: Features(
                split.labels,
                _places(split, of),
                meta["views"][split.name],
                tuple(meta["shape"]),
                meta["dtype"],
                files[split.name],
            )
            for split, of in zip(dataset.splits, whole.splits, strict=True)
        }
        return Entry(dataset, bad, features)

    @contextlib.contextmanager
    def writing(
        self, sizes: Mapping[str, int], *, waiting: Callable[[], None] = lambda: None
    ) -> Iterator[dict[str, "EntryWriter"]]:
        """Writers of those entries that are not there yet; they are when the context ends without an error.

        Args:
            sizes: key -> bytes that the entry's features will take.
            waiting: called once if another process is writing one of them.

        Raises:
            OSError: the disk is full; nothing of the entries is left.
        """
        with contextlib.ExitStack() as stack:
            for key in sorted(sizes):
                stack.enter_context(_locked(self.folder / f"{key}.lock", waiting))
            missing = [key for key in sizes if not self.has(key)]
            for key in missing:
                self._discard(self.folder / key)  # what a cleaner of caches has left of it
            if missing:
                self._make_room(sum(sizes[key] for key in missing))
            folders = {key: stack.enter_context(self._partial_folder()) for key in missing}
            yield {key: EntryWriter(folder) for key, folder in folders.items()}
            for key, folder in folders.items():
                os.replace(folder, self.folder / key)

    @contextlib.contextmanager
    def _partial_folder(self) -> Iterator[Path]:
        """A folder of a name that is never read; gone afterwards unless it was renamed."""
        folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _make_room(self, size: int) -> None:
        self._remove_abandoned()
        metas = [path / "meta.json" for path in self.folder.iterdir() if not path.name.startswith(".")]
        ages = {meta.parent: status.st_mtime for meta in metas if (status := _status(meta))}
        entries = sorted(ages, key=lambda entry: ages[entry])
        while entries and self._used_bytes() + size > self.limit_bytes:
            self._discard(entries.pop(0))

    def _discard(self, entry: Path) -> None:
        """Removes an entry: its name at once, so that a kill leaves a partial folder, and never half an entry."""
        if not entry.exists():
            return
        gone = Path(tempfile.mkdtemp(prefix=".partial-", dir=self.folder))
        target = gone / entry.name
        with contextlib.suppress(FileNotFoundError, PermissionError):  # gone already, or open where that keeps a name
            os.replace(entry, target)
        shutil.rmtree(gone, ignore_errors=True)

    def _remove_abandoned(self) -> None:
        """Removes what killed passes left."""
        for folder in [path for path in self.folder.iterdir() if path.name.startswith(".partial-")]:
            statuses = [_status(path) for path in [folder, *_files(folder)]]
            newest = max((status.st_mtime for status in statuses if status), default=math.inf)
            if time.time() - newest > ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)

    def _used_bytes(self) -> int:
        files = [file for entry in self.folder.iterdir() for file in _files(entry) if file.suffix == ".bin"]
        return sum(status.st_size for file in files if (status := _status(file)))


class EntryWriter:
    """Writes one entry: rows of each split in any order, then what they are."""

    def __init__(self, folder: Path):
        self._folder = folder

    @contextlib.contextmanager
    def split(self, name: str) -> Iterator[Callable[[np.ndarray, np.ndarray], None]]:
        """A function that writes features, [len(rows), ...], at those rows of a split's file."""
        with io.FileIO(self._folder / f"{name}.bin", "w") as file:
            yield lambda rows, values: write_rows(file, rows, values)

    def finish(
        self, *, shape: Sequence[int], dtype: str, views: Mapping[str, int], bad_photos: Sequence[tuple[str, str]]
    ) -> None:
        """Writes what the rows are."""
        meta = {"shape": list(shape), "dtype": dtype, "views": dict(views), "bad_photos": list(bad_photos)}
        write_json(self._folder / "meta.json", meta)


# Other processes rename and remove entries while this one looks at them.


def _files(folder: Path) -> list[Path]:
    """The files in a folder; an empty list where another process has removed it, and for what is no folder."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _status(path: Path) -> os.stat_result | None:
    """The status of a file; None where there is none."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _places(split: Split, whole: Split) -> np.ndarray:
    """Where in the whole split each photo of a part of it is."""
    places = {photo: place for place, photo in enumerate(whole.photos)}
    return np.array([places[photo] for photo in split.photos])


@contextlib.contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    lock = filelock.FileLock(path)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
