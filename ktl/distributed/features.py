"""The features of a portion of a data set's photos, computed without a training: what `ktl features` does."""

import dataclasses
import time
from typing import Any

from ktl.config.settings import RunConfig
from ktl.data.loading import load_dataset
from ktl.distributed.portions import Portion
from ktl.errors import UserError
from ktl.models.heads import AUTO
from ktl.progress import Reporter
from ktl.runs.run import check_places, told_dataset
from ktl.runs.session import Session
from ktl.training.caching import Filled, fill_store


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


class FeaturePass:
    """A data set and the frozen layers of a network, ready to compute any portion of the photos.

    Args:
        config: the settings of the run that is to find the features; `freeze_depth` may be several, with commas.
        reporter: is told of the progress.

    Raises:
        UserError: bad settings, or there is no such data set.
    """

    def __init__(self, config: RunConfig, *, reporter: Reporter | None = None):
        if config.cache == "off":
            raise UserError("Expected `cache` auto or on: features are what it keeps. Received: off")
        if config.head == AUTO:
            raise UserError("Expected a `head` by name: where all is frozen, what it reads differs. Received: auto")
        depths = config.freeze_depth.replace(",", " ").split()
        if not depths:
            raise UserError(f"Expected at least one `freeze_depth`. Received: {config.freeze_depth}")
        check_places(config)
        self.reporter = reporter or Reporter()
        dataset = load_dataset(config.dataset, data_dir=config.data_dir)
        self.dataset = told_dataset(dataset, config, self.reporter)
        session = Session(config, self.dataset, reporter=self.reporter)
        self._options = session.input_options(config)
        self._jit_compile = session.set_up_machine().xla
        classifier = session.build({"freeze_depth": depths[0]})
        self._places = [(classifier, depth) for depth in depths]

    def compute(self, portion: Portion) -> Computed:
        """Computes what the store lacks of a portion's photos.

        Raises:
            UserError: see `ktl.training.caching.fill_store`.
            OSError: the disk is full; what is complete is kept.
        """
        started = time.perf_counter()
        filled = fill_store(
            self._places,
            self.dataset,
            self._options,
            of_portion=portion.has,
            jit_compile=self._jit_compile,
            reporter=self.reporter,
        )
        return Computed(self.dataset.name, portion, filled, time.perf_counter() - started)
