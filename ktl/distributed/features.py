"""The features of a portion of a data set's photos, computed without a training: what `ktl features` does."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from ktl.backends.engines import Engine
from ktl.distributed.portions import Portion
from ktl.runs.run import depths_of
from ktl.runs.session import Session
from ktl.training.caching import Filled, extractions_of, fill_store


@dataclasses.dataclass(frozen=True)
class Computed:
    """What computing a portion found.

    Attributes:
        dataset: its name.
        portion: which.
        filled: what the store has now.
        seconds: that it took, without loading the data set and building the network.
    """

    dataset: str
    portion: Portion
    filled: Filled
    seconds: float

    @property
    def photos(self) -> int:
        """That were computed, by this process or by another one meanwhile."""
        return self.filled.photos - self.filled.there - len(self.filled.bad_photos)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        filled = self.filled
        return {
            "dataset": self.dataset,
            "shard": str(self.portion),
            "photos": filled.photos,
            "there": filled.there,
            "computed": self.photos,
            "bad_photos": [{"photo": photo, "reason": reason} for photo, reason in filled.bad_photos],
            "features": {name: list(shape) for name, shape in filled.features.items()},
            "dtype": filled.dtype,
            "bytes": filled.nbytes,
            "seconds": round(self.seconds, 3),
            "cache_dir": str(filled.folder),
        }


class _CompiledOnce:
    """An engine that compiles each graph once, however many portions are computed."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._known: dict[tuple[int, ...], Callable[[np.ndarray], list[np.ndarray]]] = {}

    @property
    def batch(self) -> int:
        return self._engine.batch

    @property
    def calls(self) -> int:
        return self._engine.calls

    @property
    def identity(self) -> dict[str, str]:
        return self._engine.identity

    def compile(self, pixels, outputs):
        key = tuple(map(id, outputs))  # of the boundaries' tensors, which live as long as the pass
        if key not in self._known:
            self._known[key] = self._engine.compile(pixels, outputs)
        return self._known[key]


class FeaturePass:
    """A data set and the frozen layers of a network, ready to compute any portion of the photos.

    Args:
        session: of `ktl.runs.run.session_for_features`.
    """

    def __init__(self, session: Session):
        self.dataset, self.reporter = session.dataset, session.reporter
        self._options = session.input_options(session.config)
        jit_compile = session.set_up_machine().xla
        depths = depths_of(cast(Any, session.config))  # a run's, as the session was made
        classifier = session.build({"freeze_depth": depths[0]})
        places = [(classifier, depth) for depth in depths]
        found = extractions_of(places, self.dataset, self._options, jit_compile=jit_compile)
        engine = _CompiledOnce(found[0].engine)
        self._extractions = [dataclasses.replace(extraction, engine=engine) for extraction in found]

    def compute(self, portion: Portion) -> Computed:
        """Computes what the store lacks of a portion's photos.

        Raises:
            UserError: see `ktl.training.caching.fill_store`.
            OSError: the disk is full; what is complete is kept.
        """
        started = time.perf_counter()
        filled = fill_store(
            self._extractions, self.dataset, self._options, of_portion=portion.has, reporter=self.reporter
        )
        return Computed(self.dataset.name, portion, filled, time.perf_counter() - started)
