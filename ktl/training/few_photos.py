"""What is said, and done otherwise, where photos are few."""

from ktl.data.dataset import Dataset
from ktl.evaluation.intervals import wilson_interval

FEW_VALIDATION = 100
"""Of fewer validation photos a warning is given: at 90 of 100 right the 95 % interval is 83 to 94 %, more points than
heads and settings differ by."""

USES = {
    "fit": "choose the epoch",
    "run": "choose the epoch",
    "refit": "give the validation scores",
    "search": "choose the epochs and the settings",
    "study": "choose the epochs, rates, scales and freeze depths",
}
"""Kind of work -> what validation photos do in it; a refit is a run whose model has all epochs, whatever they say."""


FEW_TRAINING = 6
"""Of fewer training photos a class, on average, validation photos are trained on too, and choose no epoch. With three
and one for validation that gains 4 points, with seven and one nothing: docs/evidence.md."""


def has_few_photos(dataset: Dataset) -> bool:
    """Whether classes have few training photos, see `FEW_TRAINING`, and no more for validation, which could choose."""
    return len(dataset.validation) <= len(dataset.train) < FEW_TRAINING * len(dataset.class_names)


def warnings_of(kind: str, dataset: Dataset, *, folds: int = 0) -> list[str]:
    """A line with the numbers where the validation photos are few; else nothing.

    Args:
        kind: of `USES`.
        dataset: whose validation photos these are.
        folds: in which training photos are validation photos too; 0 for none.
    """
    photos = len(dataset.validation) + (len(dataset.train) if folds else 0)
    if photos >= FEW_VALIDATION:
        return []
    right = round(0.9 * photos)
    low, high = (f"{100 * end:.0f}" for end in wilson_interval(right / photos, photos))
    points = f"{round(100 / photos, 1):g}"
    points += " point" if points == "1" else " points"
    ways = "more photos or --folds" if kind in ("run", "refit") and not folds else "more photos"
    return [
        f"WARNING: few photos {USES[kind]}: {photos} for validation. One photo is {points}, "
        f"and at {right} right the 95 % interval is {low} to {high} %; {ways} help"
    ]
