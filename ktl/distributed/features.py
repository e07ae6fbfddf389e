"""The features of a portion of a data set's photos, computed without a training: what `ktl features` does."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ktl.backends.engines import Engine
from ktl.config.settings import RunConfig
from ktl.data.loading import load_dataset
from ktl.distributed.portions import Portion
from ktl.errors import UserError
from ktl.models.heads import AUTO
from ktl.progress import Reporter
from ktl.runs.run import check_places, told_dataset
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
        config: the settings of the run that is to find the features; `freeze_depth` may be several, with commas.
        reporter: is told of the progress.

    Raises:
        UserError: bad settings, or there is no such data set.
    """

    def __init__(self, config: RunConfig, *, reporter: Reporter | None = None):
        depths = self.check(config)
        check_places(config)
        self.reporter = reporter or Reporter()
        dataset = load_dataset(config.dataset, data_dir=config.data_dir)
        self.dataset = told_dataset(dataset, config, self.reporter)
        session = Session(config, self.dataset, reporter=self.reporter)
        self._options = session.input_options(config)
        jit_compile = session.set_up_machine().xla
        classifier = session.build({"freeze_depth": depths[0]})
        places = [(classifier, depth) for depth in depths]
        found = extractions_of(places, self.dataset, self._options, jit_compile=jit_compile)
        engine = _CompiledOnce(found[0].engine)
        self._extractions = [dataclasses.replace(extraction, engine=engine) for extraction in found]

    @staticmethod
    def check(config: RunConfig) -> list[str]:
        """The freeze depths of settings. Raises UserError where they leave nothing to compute."""
        if config.cache == "off":
            raise UserError("Expected `cache` auto or on: features are what it keeps. Received: off")
        if config.head == AUTO:
            raise UserError("Expected a `head` by name: where all is frozen, what it reads differs. Received: auto")
        depths = config.freeze_depth.replace(",", " ").split()
        if not depths:
            raise UserError(f"Expected at least one `freeze_depth`. Received: {config.freeze_depth}")
        return depths

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


def pass_of(settings: Mapping[str, Any]) -> FeaturePass:
    """The pass of settings as keywords, as they travel to other machines."""
    return FeaturePass(RunConfig(**settings))
