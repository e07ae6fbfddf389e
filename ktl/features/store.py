"""The frozen prefix, computed once: its output for every photo and view, on disk, and batches of it for the suffix.

Everything before the freeze boundary is a pure function of the photo. One forward pass writes what it gives at one
boundary or at several; training, evaluation and search then run the suffix alone, on the very same layer objects.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path

import filelock
import keras
import numpy as np
import tensorflow as tf

from ktl.data.dataset import Dataset, Split, without
from ktl.data.input_pipeline import PhotoCache, epoch_order, evaluation_batches, training_batches
from ktl.data.tf_data import PREFETCH, untuned
from ktl.files import write_atomically
from ktl.models.batchnorm_folding import fold_batch_normalization
from ktl.models.boundaries import Boundary

PASS_BATCH = 64
"""Photos a step of the pass: for MobileNet on a CPU faster than 32; nothing was measured on a GPU."""

LEAST_SPEEDUP = 1.2
"""Less than this is not worth the disk."""

FILES = ("meta.json", "train.bin", "validation.bin", "test.bin")
"""Of a whole entry."""

VIEW_SEED = 0
"""Fixed, so that runs with different training seeds share their views: they differ in when each is shown."""


@dataclasses.dataclass(frozen=True)
class Views:
    """How the photos of a data set are seen by the pass.

    Attributes:
        image_size: side of the network's input, pixels.
        augmentation: of the training photos, see `ktl.data.input_pipeline.training_batches`.
        count: views of each training photo, each drawn as an epoch of uncached training draws it; validation and test
            photos have the one evaluation view.
    """

    image_size: int
    augmentation: str = "none"
    count: int = 1

    def of(self, split: Split) -> int:
        """The number of views of each photo of a split."""
        return self.count if split.name == "train" and self.augmentation != "none" else 1


@dataclasses.dataclass(frozen=True)
class Features:
    """What the prefix gives for one split, open for reading; stays readable if the cache drops its files.

    Attributes:
        labels: int32 [photos].
        places: int64 [photos], where in the file a photo is.
        views: views of each photo.
        shape: of one photo's features.
        dtype: float32 or float16.
        file: of rows [photos, views, *shape], of all photos that the pass saw; closed when the last reader lets it go.
    """

    labels: np.ndarray
    places: np.ndarray
    views: int
    shape: tuple[int, ...]
    dtype: str
    file: io.FileIO

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        return len(self) * self.views * self.row_bytes

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The features of some rows (photo * views + view), [len(rows), *shape].

        Plain reads, not a memory map: a map's pages would count as this process' memory, the whole file in the end.
        """
        out = np.empty((len(rows), *self.shape), self.dtype)
        photos, views = np.divmod(rows, self.views)
        for target, row in zip(out, self.places[photos] * self.views + views, strict=True):
            if (
                os.preadv(self.file.fileno(), [memoryview(target).cast("B")], int(row) * self.row_bytes)
                != self.row_bytes
            ):
                raise OSError(f"Expected {self.row_bytes} bytes of features. Received: the end of the file")
        return out


class FeatureCache:
    """Features on disk, shared by runs, trials and processes.

    An entry is a folder named by everything that its content depends on. It is written under another name and renamed
    when it is whole, under a lock, so that a killed pass leaves nothing that is read, and processes that need the same
    entry wait for the one that makes it. The entries used longest ago give way when a new one needs their room.

    Args:
        folder: where the entries are.
        limit_gib: the most that they take together, in GiB; half of the free disk if None.

    Raises:
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, folder: str | Path, *, limit_gib: float | None = None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.folder))
        if limit_gib is None:
            limit_gib = (shutil.disk_usage(self.folder).free + self._used_bytes()) / 2 / 2**30
        self.limit_bytes = int(limit_gib * 2**30)

    def load(self, key: str, dataset: Dataset) -> tuple[Dataset, dict[str, Features], list] | None:
        """An entry: the data set without its bad photos, the features of each split, the bad photos; None if not there.

        Args:
            key: from `entry_key`.
            dataset: as it was before its photos were checked; of a part, those of the whole are read.
        """
        entry = self.folder / key
        try:
            meta = json.loads((entry / "meta.json").read_text())
            os.utime(entry / "meta.json")  # used now
            files = {name: _open(entry / f"{name}.bin") for name in meta["views"]}
        except FileNotFoundError:
            return None
        bad = [tuple(photo) for photo in meta["bad_photos"]]
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
        return dataset, features, bad

    def build(
        self,
        prefixes: Mapping[str, Boundary],
        pixels: keras.KerasTensor,
        dataset: Dataset,
        *,
        bad_photos: Sequence[tuple[str, str]] = (),
        views: Views,
        dtype: str,
        photo_cache: PhotoCache,
        jit_compile: bool = False,
        progress: Callable[[int], None] = lambda done: None,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """Writes the entries that are not there yet, all in one forward pass.

        Args:
            prefixes: key -> the boundary to write; all of one graph.
            pixels: that graph's input.
            dataset: without its bad photos.
            bad_photos: (photo, reason) of each photo that was left out.
            views: how the photos are seen.
            dtype: float32 or float16, of the files.
            photo_cache: holds decoded photos.
            jit_compile: whether to compile the pass with XLA.
            progress: called with the number of views computed.
            waiting: called once if another process is computing one of them.

        Raises:
            OSError: the disk is full; nothing of the entries is left.
        """
        with contextlib.ExitStack() as stack:
            for key in sorted(prefixes):
                stack.enter_context(_locked(self.folder / f"{key}.lock", waiting))
            missing = {key: boundary for key, boundary in prefixes.items() if not self._is_whole(key)}
            if not missing:
                return
            for key in missing:
                self._discard(self.folder / key)  # what a cleaner of caches has left of it
            self._make_room(sum(entry_bytes(boundary, dataset, views, dtype) for boundary in missing.values()))
            folders = [stack.enter_context(self._partial_folder()) for _ in missing]
            forward = _forward(pixels, list(missing.values()), jit_compile)
            done = 0
            for split in dataset.splits:
                with contextlib.ExitStack() as files:
                    outputs = [files.enter_context(open(folder / f"{split.name}.bin", "wb")) for folder in folders]
                    writer = files.enter_context(futures.ThreadPoolExecutor(1))  # writes while the next batch computes
                    written = writer.submit(lambda: None)
                    for rows, batch in _passes(split, views, photo_cache, dataset.flip):
                        values = [tensor.numpy().astype(dtype, copy=False) for tensor in forward(batch)]
                        written.result()
                        written = writer.submit(_write_batch, outputs, rows, values)
                        done += len(rows)
                        progress(done)
                    written.result()
            for folder, (key, boundary) in zip(folders, missing.items(), strict=True):
                meta = {
                    "shape": boundary.tensor.shape[1:],
                    "dtype": dtype,
                    "views": {split.name: views.of(split) for split in dataset.splits},
                    "bad_photos": list(bad_photos),
                }
                write_atomically(folder / "meta.json", json.dumps(meta))
                os.replace(folder, self.folder / key)

    @contextlib.contextmanager
    def _partial_folder(self) -> Iterator[Path]:
        """A folder of a name that is never read; gone afterwards unless it was renamed."""
        folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _is_whole(self, key: str) -> bool:
        return all((self.folder / key / name).exists() for name in FILES)

    def _make_room(self, size: int) -> None:
        self._remove_abandoned()
        metas = [path / "meta.json" for path in self.folder.iterdir() if not path.name.startswith(".")]
        ages = {meta.parent: status.st_mtime for meta in metas if (status := _status(meta))}
        entries = sorted(ages, key=ages.get)
        while entries and self._used_bytes() + size > self.limit_bytes:
            self._discard(entries.pop(0))

    def _discard(self, entry: Path) -> None:
        """Removes an entry: its name at once, so that a kill leaves a partial folder, and never half an entry."""
        if not entry.exists():
            return
        gone = Path(tempfile.mkdtemp(prefix=".partial-", dir=self.folder))
        with contextlib.suppress(FileNotFoundError):
            os.replace(entry, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _remove_abandoned(self) -> None:
        """Removes what killed passes left: partial entries that nobody has written to for an hour."""
        for folder in [path for path in self.folder.iterdir() if path.name.startswith(".partial-")]:
            statuses = [_status(path) for path in [folder, *_files(folder)]]
            newest = max((status.st_mtime for status in statuses if status), default=math.inf)
            if time.time() - newest > 3600:
                shutil.rmtree(folder, ignore_errors=True)

    def _used_bytes(self) -> int:
        files = [file for entry in self.folder.iterdir() for file in _files(entry) if file.suffix == ".bin"]
        return sum(status.st_size for file in files if (status := _status(file)))


# Other processes rename and remove entries while this one looks at them.


def _files(folder: Path) -> list[Path]:
    """What is in a folder; nothing if it is gone, or is none."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _status(path: Path) -> os.stat_result | None:
    """None if it is gone, or its folder is none."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


_OPEN_FILES: weakref.WeakValueDictionary[Path, io.FileIO] = weakref.WeakValueDictionary()


def _open(path: Path) -> io.FileIO:
    """The file, open for reading; once for all readers, since TensorFlow never lets go of a function that it maps."""
    file = _OPEN_FILES.get(path)
    if file is None:
        file = _OPEN_FILES[path] = io.FileIO(path)
    return file


def _places(split: Split, whole: Split) -> np.ndarray:
    """Where in the whole split each photo of a part of it is."""
    places = {photo: place for place, photo in enumerate(whole.photos)}
    return np.array([places[photo] for photo in split.photos])


def default_cache_dir() -> Path:
    """ktl/ in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ktl"


def worth_caching(
    asked: str,
    boundary: Boundary,
    dataset: Dataset,
    *,
    views: Views,
    dtype: str,
    epochs: int,
    trainings: int,
    limit_bytes: int,
) -> tuple[bool, str]:
    """Whether to compute the frozen prefix once, and the reason in a few words.

    By multiply-adds, with a backward pass at twice the cost of a forward one, and c the share of the forward pass that
    is frozen: an epoch of a training costs 1 + 2 (1 - c) without the cache and 3 (1 - c) with it, and a view in the
    cache costs c, once for all trainings.

    Args:
        asked: auto, on or off.
        boundary: where freezing ends.
        dataset: what would be cached.
        views: how its photos would be seen.
        dtype: of the features.
        epochs: the most that a training may take.
        trainings: about how many share what is computed.
        limit_bytes: the most that the cache may take.
    """
    size = entry_bytes(boundary, dataset, views, dtype)
    frozen = boundary.cost_share
    trained = trainings * epochs
    speedup = trained * (1 + 2 * (1 - frozen)) / (views.count * frozen + trained * 3 * (1 - frozen))
    gain = f"{size / 2**30:.2f} GiB for about {speedup:.1f} times less arithmetic"
    if asked == "off":
        return False, "as asked"
    if boundary.depth == 0:
        return False, "nothing is frozen"
    if size > limit_bytes:
        return False, f"it would take {size / 2**30:.2f} GiB, more than the limit of {limit_bytes / 2**30:.2f}"
    if asked == "auto" and speedup < LEAST_SPEEDUP:
        return False, f"it would not pay: {gain}"
    return True, gain


def entry_bytes(boundary: Boundary, dataset: Dataset, views: Views, dtype: str) -> int:
    """Disk space of the features at a boundary, bytes."""
    rows = sum(len(split) * views.of(split) for split in dataset.splits)
    return rows * math.prod(boundary.tensor.shape[1:]) * np.dtype(dtype).itemsize


def entry_key(prefix: keras.Model, dataset: Dataset, *, views: Views, dtype: str, on_bad_image: str) -> str:
    """32 hexadecimal digits that differ when anything that the features depend on does; a part has its whole's."""
    digest = hashlib.sha256()
    digest.update(prefix.to_json().encode())
    for variable in prefix.weights:  # without the seeds of dropout, which the prefix does not use
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).view("uint8").data)
    fingerprint = (dataset.whole or dataset).fingerprint
    seen = (dataclasses.astuple(views), dataset.flip, dtype, on_bad_image)
    identity = (fingerprint, seen, keras.__version__, tf.__version__)
    digest.update(repr(identity).encode())
    return digest.hexdigest()[:32]


def cached_evaluation_batches(features: Features, *, batch_size: int) -> tf.data.Dataset:
    """The features of every photo's first view, in order: pairs ([batch, *shape], int32 [batch]).

    Args:
        features: of a split.
        batch_size: photos a batch.
    """
    views = features.views
    indices = tf.data.Dataset.range(len(features)).batch(batch_size)
    return _batches(indices.map(lambda photos: (photos, photos * views)), features)


def cached_training_batches(
    features: Features, *, batch_size: int, epochs: int, first_epoch: int = 0, seed: int
) -> tf.data.Dataset:
    """The epochs first_epoch, ..., epochs - 1, in the order of uncached training, one view of each photo an epoch.

    Which view a photo shows in an epoch depends on (seed, epoch, photo) only, and each is shown once before any is
    shown again.

    Args:
        features: of the training photos.
        batch_size: photos a batch; the last of an epoch may have fewer.
        epochs: where training ends.
        first_epoch: where it starts or continues.
        seed: of order and views.

    Returns:
        Pairs ([batch, *shape], int32 [batch]), with a known cardinality.
    """
    count, views = len(features), features.views
    offsets = np.random.default_rng([seed, count]).integers(views, size=count)

    def rows(epoch: np.ndarray):
        order = epoch_order(count, seed, epoch)
        return order, order * views + (offsets[order] + epoch) % views

    def shuffled(epoch: tf.Tensor) -> tf.data.Dataset:
        arrays = tf.numpy_function(rows, [epoch], [tf.int64, tf.int64], stateful=False)
        arrays = tuple(tf.ensure_shape(array, [count]) for array in arrays)
        return tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)

    batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(shuffled)
    steps = max(0, epochs - first_epoch) * math.ceil(count / batch_size)
    return _batches(batches.apply(tf.data.experimental.assert_cardinality(steps)), features)


def _batches(indices: tf.data.Dataset, features: Features) -> tf.data.Dataset:
    """Batches of features and labels from batches of photos and rows.

    Read a batch at a time: the system keeps in memory what fits, and a copy of our own was no faster and took seconds.
    """
    labels = tf.constant(features.labels)

    def read(photos, rows):
        values = tf.numpy_function(features.read, [rows], features.dtype, stateful=False)
        return tf.ensure_shape(values, [None, *features.shape]), tf.gather(labels, photos)

    return untuned(indices.map(read, num_parallel_calls=2, deterministic=True).prefetch(PREFETCH))


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


def _forward(pixels, boundaries: Sequence[Boundary], jit_compile: bool):
    """A compiled function from pixels to the tensors of all boundaries, in one pass."""
    # Folded: the same values up to rounding, without a pass over memory for each normalization.
    model = fold_batch_normalization(pixels, [boundary.tensor for boundary in boundaries])
    signature = [tf.TensorSpec([None, *pixels.shape[1:]], tf.uint8)]

    @tf.function(input_signature=signature, jit_compile=jit_compile)
    def forward(batch):
        outputs = model(tf.cast(batch, pixels.dtype), training=False)
        return outputs if isinstance(outputs, (list, tuple)) else [outputs]

    return forward


def _passes(split: Split, views: Views, cache: PhotoCache, flip: bool) -> Iterator[tuple[np.ndarray, tf.Tensor]]:
    """(rows, pixels) over all views of a split."""
    common = {"image_size": views.image_size, "batch_size": PASS_BATCH, "cache": cache}
    if views.of(split) == 1 and (split.name != "train" or views.augmentation == "none"):
        rows, batches = np.arange(len(split)), evaluation_batches(split, **common)
    else:
        batches = training_batches(
            split, epochs=views.count, seed=VIEW_SEED, augmentation=views.augmentation, flip=flip, **common
        )
        orders = [epoch_order(len(split), VIEW_SEED, view) * views.count + view for view in range(views.count)]
        rows = np.concatenate(orders)
    start = 0
    for pixels, _ in batches:
        yield rows[start : start + len(pixels)], pixels
        start += len(pixels)


def _write_batch(files, rows: np.ndarray, outputs: Sequence[np.ndarray]) -> None:
    """Writes each output's values, [len(rows), ...], to its file, at those rows."""
    for file, values in zip(files, outputs, strict=True):
        row_bytes = values[0].nbytes
        for row, value in zip(rows, np.ascontiguousarray(values), strict=True):
            if os.pwrite(file.fileno(), memoryview(value).cast("B"), int(row) * row_bytes) < row_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)  # the rest would be zeros
