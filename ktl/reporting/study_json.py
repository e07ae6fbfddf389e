"""Types of a study's JSON files, as far as a page shows them."""

from typing import Any, NotRequired, TypedDict


class StudyRunJson(TypedDict):
    """What a file run.json holds, as far as a page shows it."""

    head: str
    freeze_depth: str
    learning_rate: float
    scale: float
    share: float
    seed: int
    head_multiplier: NotRequired[float]
    shots: NotRequired[int | None]
    failed: str
    history: list[float]
    converged: int
    epochs: int
    validation_top1: float


class EstimateJson(TypedDict):
    """An estimate in result.json; version 0.1 wrote NaN in the place of null."""

    estimate: float | None
    low: Any
    high: Any


class BestJson(TypedDict):
    """A row of `best` in a study's result.json."""

    head: str
    freeze_depth: str
    test_top1: EstimateJson
    difference: EstimateJson | None
    verdict: str


class StudyJson(TypedDict):
    """What a study's result.json holds, as far as a page shows it."""

    best: list[BestJson]
    tuned: list[dict[str, Any]]
    settings: dict[str, Any]
    command: NotRequired[str]
    seconds: float
