"""export.json: by this file an export is known, and it says what the export is of."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from ktl import stored
from ktl.evaluation.metrics import shown_scores
from ktl.files import write_json
from ktl.runs.finished_run import FinishedRun

EXPORT_JSON = "export.json"

DIGITS = 4
"""Of the scores that tell one training from another; the same training on another machine may differ in later ones."""


class Calibration(TypedDict):
    """The temperature that fits the validation photos, and the expected calibration error (ECE) on the test photos.

    `low` and `high` bound the temperature's 95 % interval, see `ktl.evaluation.calibration.fit_temperature`; `photos`
    are those that it was fitted to; `warning` is None where these are enough.
    """

    temperature: float
    low: float
    high: float
    photos: int
    warning: str | None
    ece_before: float
    ece_after: float


class Verification(TypedDict):
    """What a fresh process found when it gave photos to the export.

    `photos` were compared; `undecoded` ones were left out because TensorFlow cannot decode them, and
    `decoded_otherwise` because it gives other pixels than Pillow. The first of each are named. `top1` is the share of
    correct answers of the export, `run_top1` that of the model that was exported, on the same photos; None where the
    true classes are not known. `largest_difference` is that of a probability, of the photo `most_different`.
    """

    photos: int
    undecoded: int
    undecoded_photos: NotRequired[list[str]]  # as are the next three, from version 0.2 on
    decoded_otherwise: NotRequired[int]
    decoded_otherwise_photos: NotRequired[list[str]]
    most_different: NotRequired[str]
    top1: float | None
    run_top1: float | None
    largest_difference: float
    labels_changed: int


def left_out(found: Verification) -> list[str]:
    """A line for each kind of photos that were not compared: how many, why, and the names of the first."""
    kinds = (
        (found["undecoded"], "the SavedModel refuses", found.get("undecoded_photos", [])),
        (
            found.get("decoded_otherwise", 0),
            "the SavedModel decodes to other pixels than Pillow, so that its answers may differ",
            found.get("decoded_otherwise_photos", []),
        ),
    )
    total = found["photos"] + sum(count for count, _, _ in kinds)
    return [
        f"not compared: {count} of {total} photos, which {what}" + (f": {listed(names, count)}" if names else "")
        for count, what, names in kinds
        if count
    ]


def listed(names: Sequence[str], count: int) -> str:
    """The first names of `count`, and how many more there are."""
    more = count - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


class RunIdentity(TypedDict):
    """Which run a model is from: its settings, and its scores."""

    settings: dict[str, Any]
    validation: dict[str, float]
    test: dict[str, float]


@dataclasses.dataclass(frozen=True)
class ExportRecord:
    """What export.json holds.

    Attributes:
        format: of the export, such as `savedmodel`.
        quantization: how its numbers are stored; `none` for float32.
        class_names: in the order of the probabilities.
        image_size: side of what the network sees of a photo, pixels.
        temperature: by which the logits are divided; 1 if it is not calibrated.
        verified_on: which photos the export was verified on.
        verification: what was found on them.
        run: which run the model is from; None for a classifier that was in memory.
    """

    format: str
    quantization: str
    class_names: tuple[str, ...]
    image_size: int
    temperature: float
    verified_on: str
    verification: Verification
    run: RunIdentity | None


def identity_of(run: FinishedRun) -> RunIdentity:
    """What tells a run from others, those with the same settings on other photos too."""
    return {
        "settings": dict(run.settings),
        "validation": _rounded(run.result["validation"]),
        "test": _rounded(run.result["test"]),
    }


def is_of(record: ExportRecord, settings: Mapping[str, Any]) -> bool:
    """Whether an export is of a run with these settings; one that was not there when it was written is left out."""
    recorded = record.run["settings"] if record.run else None
    return recorded is not None and all(settings[name] == recorded[name] for name in settings if name in recorded)


def is_of_run(record: ExportRecord, run: FinishedRun) -> bool:
    """Whether an export is of this run: of its settings and its scores, as far as both have them."""
    identity = identity_of(run)
    if record.run is None or not is_of(record, identity["settings"]):
        return False
    pairs = [(record.run[split], identity[split]) for split in ("validation", "test")]
    return all(there[name] == here[name] for there, here in pairs for name in shown_scores(there, here))


def write_record(folder: Path, record: ExportRecord) -> None:
    """Writes export.json."""
    write_json(folder / EXPORT_JSON, dataclasses.asdict(record))


def read_record(folder: str | os.PathLike) -> ExportRecord | None:
    """What export.json holds; None if there is none.

    Raises:
        UserError: it is that of something else, or a later version of ktl wrote it.
    """
    path = Path(folder) / EXPORT_JSON
    if not path.exists():
        return None
    found = stored.read_record(path, ExportRecord)
    values = {field.name: found[field.name] for field in dataclasses.fields(ExportRecord)}
    return ExportRecord(**{**values, "class_names": tuple(values["class_names"])})


def _rounded(scores: Mapping[str, Any]) -> dict[str, float]:
    return {name: round(scores[name], DIGITS) for name in shown_scores(scores)}
