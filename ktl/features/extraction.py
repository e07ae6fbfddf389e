"""What the frozen layers give: named by all that its numbers depend on, and computed by one pass over the photos.

Everything before a freeze boundary is a pure function of the photo. One forward pass writes what it gives at one
boundary or at several.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from ktl.backends.engines import Engine, make_engine
from ktl.data.batches import made_ahead
from ktl.data.dataset import Dataset, Split
from ktl.data.images import BadPhoto
from ktl.data.input_pipeline import PhotoCache, view_maker
from ktl.data.urls import readers_of
from ktl.errors import UserError
from ktl.features import filling
from ktl.features.code_identity import code_identity
from ktl.features.shards import row_ids
from ktl.features.store import Entry, Features, FeatureStore
from ktl.models.boundaries import Boundary

Digests = Mapping[str, bytes | None]
"""Photo -> digest of its bytes, None of one that cannot be read; see `ktl.features.digests`."""


@dataclasses.dataclass(frozen=True)
class Views:
    """How the photos of a data set are seen by the pass.

    Attributes:
        image_size: side of the network's input, pixels.
        augmentation: of the training photos, see `ktl.data.input_pipeline.training_batches`.
        count: views of each training photo, those of uncached training; validation and test photos have the one
            evaluation view.
        flip: whether "standard" mirrors photos.
    """

    image_size: int
    augmentation: Literal["standard", "none"] = "none"
    count: int = 1
    flip: bool = False

    def of(self, split: Split) -> int:
        """The number of views of each photo of a split."""
        return self.count if self._augments(split) else 1

    def codes(self, split: Split) -> list[int]:
        """A number for each view of a split's photos: 0 is the evaluation view, in every split."""
        return [1 + 2 * number + self.flip for number in range(self.count)] if self._augments(split) else [0]

    def _augments(self, split: Split) -> bool:
        return split.name == "train" and self.augmentation != "none"


@dataclasses.dataclass(frozen=True)
class Extraction:
    """Features that can be computed: of one data set at one freeze boundary.

    Attributes:
        pixels: input of the graph that the boundary is in.
        boundary: where freezing ends.
        dataset: whose photos are seen, as it was before they were checked; never a part of another.
        views: how they are seen.
        dtype: float32 or float16, of the features.
        engine: what computes them.
    """

    pixels: keras.KerasTensor
    boundary: Boundary
    dataset: Dataset
    views: Views
    dtype: str
    engine: Engine = dataclasses.field(default_factory=make_engine)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one photo's features."""
        return tuple(self.boundary.tensor.shape[1:])

    @property
    def row_bytes(self) -> int:
        """Size of one view's features."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """Disk space of the features of photos that are all different, bytes."""
        return sum(len(split) * self.views.of(split) for split in self.dataset.splits) * self.row_bytes

    @functools.cached_property
    def key(self) -> str:
        """32 hexadecimal digits that differ when anything does that a photo's features depend on, but for the photo and
        the view: the graph and its weights, their type, and the code and the versions of all that computes."""
        prefix = keras.Model(self.pixels, self.boundary.tensor, name="prefix")
        digest = hashlib.sha256(json.dumps(_without_trainable(json.loads(prefix.to_json())), sort_keys=True).encode())
        for variable in prefix.weights:  # without the seeds of dropout, which the prefix does not use
            digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).view("uint8").data)
        identity = {"dtype": self.dtype, "batch": self.engine.batch, **self.engine.identity, **code_identity()}
        digest.update(json.dumps(identity, sort_keys=True).encode())
        return digest.hexdigest()[:32]

    def entry(self, store: FeatureStore) -> Entry:
        """Where the store keeps them."""
        about = {
            "layers": self.boundary.name,
            "cost_share": round(self.boundary.cost_share, 4),
            "image_size": self.views.image_size,
            "machine": self.engine.identity,
        }
        return store.entry(self.key, shape=self.shape, dtype=self.dtype, about=about)

    def ids(self, split: Split, digests: Digests) -> np.ndarray:
        """The ids of a split's rows, [photos * views], without those of photos that cannot be read."""
        known = [digest for digest in map(digests.__getitem__, split.photos) if digest is not None]
        return row_ids(known, self.views.codes(split))


def _without_trainable(config: Any) -> Any:
    """A configuration without its `trainable` flags: what is frozen gives the same as what is not."""
    if isinstance(config, dict):
        return {name: _without_trainable(value) for name, value in config.items() if name != "trainable"}
    return [_without_trainable(value) for value in config] if isinstance(config, list) else config


def extract(
    store: FeatureStore,
    extractions: Sequence[Extraction],
    dataset: Dataset,
    digests: Digests,
    *,
    photo_cache: PhotoCache,
    shard_rows: int = filling.SHARD_ROWS,
    progress: Callable[[int], None] = lambda done: None,
    waiting: Callable[[], None] = lambda: None,
) -> None:
    """Computes what the store does not have, all of it in one forward pass, together with other processes.

    Args:
        store: where the features go.
        extractions: of one graph and one data set, seen in one way by one engine.
        dataset: theirs without its bad photos.
        digests: of its photos.
        photo_cache: holds decoded photos.
        shard_rows: rows a shard, at most.
        progress: called with the number of rows that were missing and are there.
        waiting: called once if other processes compute all that is missing.

    Raises:
        UserError: a photo is no longer what it was when its digest was computed.
        OSError: the disk is full; whole shards stay.
    """
    passes = _Pass(extractions, dataset, digests, photo_cache)
    entries = [extraction.entry(store) for extraction in extractions]
    ids = np.concatenate([extractions[0].ids(split, digests) for split in dataset.splits])
    filling.fill(store, entries, ids, passes.compute, shard_rows=shard_rows, progress=progress, waiting=waiting)


def open_features(
    store: FeatureStore,
    extraction: Extraction,
    dataset: Dataset,
    digests: Digests,
    *,
    mend: Callable[[], bool] = lambda: False,
) -> dict[str, Features] | None:
    """The features of each split of a data set, by its name; None where a row is missing.

    Args:
        store: where they are; what is at its URL and not on this disk is read there, row by row.
        extraction: what they are of.
        dataset: the extraction's, or a part of it; without bad photos.
        digests: of its photos.
        mend: computes again what turns out to be damaged; False where that cannot be.
    """
    entry = extraction.entry(store)
    ids = {split.name: extraction.ids(split, digests) for split in dataset.splits}
    everything = np.concatenate(list(ids.values()))
    if entry.lacks(everything).any():
        return None
    store.use(entry, everything, of=dataset.name)
    return {
        split.name: Features(
            labels=split.labels, ids=ids[split.name], views=extraction.views.of(split), entry=entry, mend=mend
        )
        for split in dataset.splits
    }


class _Pass:
    """Computes rows: photos are seen by several threads, ahead of the network."""

    def __init__(self, extractions: Sequence[Extraction], dataset: Dataset, digests: Digests, photo_cache: PhotoCache):
        self._extractions = {extraction.key: extraction for extraction in extractions}
        self._views, self._dataset, self._digests = extractions[0].views, dataset, digests
        self._photo_cache, self._engine = photo_cache, extractions[0].engine
        self._functions: dict[tuple[str, ...], Callable] = {}
        self._places = self._where()

    def compute(self, entries: Sequence[Entry], ids: np.ndarray) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """The rows of some ids for some entries, a batch at a time; see `ktl.features.filling.Compute`."""
        forward = self._forward(tuple(entry.key for entry in entries))
        size, calls = self._engine.batch, self._engine.calls
        parts = [ids[start : start + size] for start in range(0, len(ids), size)]
        threads = readers_of(split.source for split in self._dataset.splits)
        with contextlib.ExitStack() as stack:
            seen = stack.enter_context(contextlib.closing(made_ahead(self._pixels, parts, threads=threads)))
            given: Iterable[list[np.ndarray]] = map(forward, seen)
            if calls > 1:
                given = stack.enter_context(contextlib.closing(made_ahead(forward, seen, threads=calls, waiting=0)))
            for part, values in zip(parts, given, strict=True):
                pairs = zip(entries, values, strict=True)
                yield part, [value[: len(part)].astype(entry.dtype, copy=False) for entry, value in pairs]

    def _forward(self, keys: tuple[str, ...]) -> Callable[[np.ndarray], list[np.ndarray]]:
        if keys not in self._functions:
            first = self._extractions[keys[0]]
            outputs = [self._extractions[key].boundary.tensor for key in keys]
            self._functions[keys] = self._engine.compile(first.pixels, outputs)
        return self._functions[keys]

    def _pixels(self, ids: np.ndarray) -> np.ndarray:
        """The views of these ids, always a whole batch: in another a photo's features would differ by rounding."""
        size = self._views.image_size
        pixels = np.zeros((self._engine.batch, size, size, 3), np.uint8)
        for number, row in enumerate(ids):
            make, index, view, photo = self._places[row]
            try:
                pixels[number] = make(index, view)
            except BadPhoto as error:  # it was good when it was checked
                raise UserError(
                    f"Expected photos that stay as they are while the frozen layers are computed. Received: {photo} "
                    f"({error}). Repeat the command"
                ) from error
        return pixels

    def _where(self) -> dict[bytes, tuple[Callable[[int, int], np.ndarray], int, int, str]]:
        """Row id -> what makes its view, of which photo and which view; one of those with the same bytes."""
        places = {}
        for split in self._dataset.splits:
            count = self._views.of(split)
            make = view_maker(
                split,
                image_size=self._views.image_size,
                augmentation=self._views.augmentation if split.name == "train" else "none",
                flip=self._views.flip,
                cache=self._photo_cache,
                expected=self._digests,
            )
            ids = next(iter(self._extractions.values())).ids(split, self._digests)
            readable = [index for index, photo in enumerate(split.photos) if self._digests[photo] is not None]
            for number, row in enumerate(ids):
                index = readable[number // count]
                places[row] = (make, index, number % count, split.photos[index])
        return places
