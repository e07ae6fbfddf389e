"""What is said where photos are few, with numbers by their formulas, and which are few."""

import numpy as np
import pytest
from made_up_folders import wilson

from ktl.config.settings import RunConfig, SearchConfig, StudyConfig
from ktl.data.dataset import Dataset
from ktl.training.few_photos import has_few_photos, warnings_of


def dataset(validation: int) -> Dataset:
    def photos(count):
        return np.zeros([count, 4, 4, 3], np.uint8), np.arange(count) % 2

    return Dataset.from_arrays(*photos(4), validation=photos(validation), test=photos(2))


@pytest.mark.parametrize(
    ("photos", "right", "points"),
    [(2, 2, "50 points"), (10, 9, "10 points"), (30, 27, "3.3 points"), (99, 89, "1 point")],
)
@pytest.mark.parametrize(
    ("kind", "chosen"),
    [
        (RunConfig, "the epoch"),
        (SearchConfig, "the epochs and the settings"),
        (StudyConfig, "the epochs, rates, scales and freeze depths"),
    ],
)
def test_fewer_than_a_hundred_are_told_with_the_numbers(kind, chosen, photos, right, points):
    low, high = (f"{100 * end:.0f}" for end in wilson(right, photos))
    ways = "more photos or --folds" if kind is RunConfig else "more photos"
    assert warnings_of(kind.SCRIPT, dataset(photos)) == [
        f"WARNING: few photos choose {chosen}: {photos} for validation. One photo is {points}, and at {right} "
        f"right the 95 % interval is {low} to {high} %; {ways} help"
    ]


def test_ten_photos_say_60_to_98_percent():
    assert "at 9 right the 95 % interval is 60 to 98 %" in warnings_of("run", dataset(10))[0]


def test_with_folds_the_training_photos_choose_too():
    (told,) = warnings_of("run", dataset(10), folds=2)
    low, high = (f"{100 * end:.0f}" for end in wilson(13, 14))
    assert "14 for validation. One photo is 7.1 points, and at 13 right" in told
    assert told.endswith(f"is {low} to {high} %; more photos help")
    assert warnings_of("run", dataset(96), folds=2) == []


def test_a_hundred_are_enough():
    assert warnings_of("run", dataset(100)) == []


def test_of_a_run_that_has_all_epochs_it_is_not_said_that_they_choose_one():
    (chosen,), (told,) = (warnings_of(kind, dataset(10)) for kind in ("run", "refit"))
    assert told == chosen.replace("choose the epoch", "give the validation scores")
    assert warnings_of("refit", dataset(100)) == []


@pytest.mark.parametrize(("counts", "few"), [((5, 5), True), ((6, 6), False), ((1, 10), True), ((1, 11), False)])
def test_few_are_less_than_six_training_photos_a_class_on_average(counts, few):
    labels = np.repeat(np.arange(2), counts)
    photos = np.zeros([len(labels), 4, 4, 3], np.uint8)
    both = np.arange(2)
    whole = Dataset.from_arrays(photos, labels, validation=(photos[:2], both), test=(photos[:2], both))
    assert has_few_photos(whole) == few


@pytest.mark.parametrize(("validation", "few"), [(1, True), (4, True), (5, False), (100, False)])
def test_where_more_are_for_validation_these_can_choose(validation, few):
    assert has_few_photos(dataset(validation)) == few
