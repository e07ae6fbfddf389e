"""One run of a study: what it is to be, and what it gave."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np

from ktl.evaluation.objectives import OBJECTIVES

VARIED = ("head", "freeze_depth", "learning_rate", "scale", "head_multiplier")
"""Settings of a run that a study varies, beside the seed."""


class Part(NamedTuple):
    """A part of the training photos.

    Attributes:
        share: of each class's photos, 0 to 1.
        shots: photos of each class, or all that it has if these are fewer; None for a share of them.
    """

    share: float = 1.0
    shots: int | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        if self.shots is not None:
            return f"{self.shots} photo{'' if self.shots == 1 else 's'} a class"
        return "all photos" if self.share == 1 else f"share {self.share:g}"


WHOLE = Part()
"""All training photos."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one run of a study is to be.

    Attributes:
        head: a name in `ktl.models.heads.HEADS`.
        freeze_depth: see `ktl.models.boundaries.find_boundary`.
        learning_rate: of the pre-trained layers, as of a run.
        scale: as of a run.
        share: of each class's training photos, 0 to 1.
        seed: as of a run; of a part of the training photos, also of the draw.
        head_multiplier: as of a run.
        shots: training photos of each class, or all that it has if these are fewer; None for a share of them.
    """

    head: str
    freeze_depth: str
    learning_rate: float
    scale: float
    share: float
    seed: int
    head_multiplier: float = 10.0
    shots: int | None = None

    @property
    def name(self) -> str:
        """Name of the folder of its run."""
        values = dataclasses.astuple(self)[:-1]
        words = [f"{value:g}" if isinstance(value, float) else f"{value}" for value in values]
        return "-".join([*words, *([] if self.shots is None else [f"{self.shots}-shot"])])

    @property
    def part(self) -> Part:
        """The training photos that it sees."""
        return Part(self.share, self.shots)

    @property
    def values(self) -> dict[str, Any]:
        """The settings of a run that a study varies, without the seed."""
        return {name: getattr(self, name) for name in VARIED}


class CellRecord(TypedDict):
    """What the file of a run holds: the fields of `CellRun`, those of its cell among them. Version 0.1 wrote fewer."""

    head: str
    freeze_depth: str
    learning_rate: float
    scale: float
    share: float
    seed: int
    head_multiplier: NotRequired[float]
    shots: NotRequired[int | None]
    validation_top1: float
    validation_loss: float | None
    objective: NotRequired[str]
    validation_score: NotRequired[float | None]
    epochs: int
    converged: int
    seconds: float
    failed: str
    history: list[float]
    cache: NotRequired[str]
    bad_photos: NotRequired[list[str]]
    correct: NotRequired[list[int]]
    validation_correct: NotRequired[list[int]]


@dataclasses.dataclass(frozen=True)
class CellRun:
    """What one run of a study gave: the content of its run.json, or of a try's file.

    Attributes:
        cell: what was trained.
        validation_top1: at the best epoch, 0 to 1; 0 of a run that failed.
        validation_loss: at the best epoch; None of a run that failed.
        objective: what the best epoch is by, a name in `ktl.evaluation.objectives.OBJECTIVES`.
        validation_score: its score at the best epoch; None of a run that failed, and in version 0.1.
        epochs: how many were trained.
        converged: see `ktl.evaluation.metrics.converged`; 0 of a run that failed.
        seconds: that its epochs took.
        failed: why the run failed; empty if it did not.
        history: validation top-1 of each epoch.
        cache: the setting with which a run of its own computes the same numbers.
        bad_photos: ids of the photos that were left out because they cannot be read.
        correct: for each test photo 1 if it was recognised, else 0; None where the test photos were not scored.
        validation_correct: the same of the validation photos, at the best epoch; None where that was not written down,
            as by earlier versions.
    """

    cell: Cell
    validation_top1: float = 0.0
    validation_loss: float | None = None
    objective: str = "top1"
    validation_score: float | None = None
    epochs: int = 0
    converged: int = 0
    seconds: float = 0.0
    failed: str = ""
    history: Sequence[float] = (0.0,)
    cache: str = "auto"
    bad_photos: Sequence[str] = ()
    correct: Sequence[int] | None = None
    validation_correct: Sequence[int] | None = None

    @property
    def goodness(self) -> float:
        """The objective's score, turned so that more is better."""
        row = OBJECTIVES[self.objective]
        score = self.validation_top1 if self.objective == "top1" else self.validation_score
        return row.worst if score is None else row.goodness({row.column: score})

    @functools.cached_property
    def hits(self) -> np.ndarray:
        """bool [photos]: which test photos were recognised."""
        if self.correct is None:
            raise ValueError(f"Expected a run with scored test photos. Received: a try, {self.cell.name}")
        return np.array(self.correct, bool)

    @functools.cached_property
    def validation_hits(self) -> np.ndarray:
        """bool [photos]: which validation photos were recognised; of no photo where that was not written down."""
        return np.array([] if self.validation_correct is None else self.validation_correct, bool)

    @property
    def test_top1(self) -> float:
        """Share of the test photos that was recognised, 0 to 1."""
        return float(np.mean(self.hits))

    def to_json(self) -> dict[str, Any]:
        """What its file holds; which photos were recognised is left out where it is None."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[1:]}
        for name in ("correct", "validation_correct"):
            if values[name] is None:
                del values[name]
        return {**dataclasses.asdict(self.cell), **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "CellRun":
        """The run of which `to_json` gave these values."""
        names = [field.name for field in dataclasses.fields(Cell)]
        cell = Cell(**{name: values[name] for name in names if name in values})  # version 0.1 has fewer
        return cls(cell, **{name: value for name, value in values.items() if name not in names})
