"""The order of training: every photo as often as any other, full batches, and a floor on the steps of an epoch."""

import numpy as np
import pytest

from ktl.data.order import TrainingOrder, epoch_photos, evaluation_order, shown_views, steps_per_epoch


@pytest.mark.parametrize(
    ("photos", "batch_size", "least_steps", "steps"),
    [(68, 32, 1, 3), (68, 32, 32, 32), (64, 32, 1, 2), (1, 32, 1, 1), (1024, 32, 32, 32), (1025, 32, 32, 33)],
)
def test_an_epoch_has_enough_steps_to_show_every_photo_and_no_fewer_than_the_floor(
    photos, batch_size, least_steps, steps
):
    assert steps_per_epoch(photos, batch_size=batch_size, least_steps=least_steps) == steps


def shown(count=7, *, size=4, epochs=14, seed=3):
    """Photos and passes, one epoch after another."""
    parts = [epoch_photos(count, size=size, seed=seed, epoch=epoch) for epoch in range(epochs)]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


@pytest.mark.parametrize(("count", "size"), [(7, 4), (7, 7), (7, 16), (1, 3)])
def test_every_photo_is_shown_once_before_any_is_shown_again(count, size):
    photos, passes = shown(count, size=size, epochs=14)
    for number in range(len(photos) // count):
        part = slice(number * count, (number + 1) * count)
        assert sorted(photos[part]) == list(range(count))
        assert (passes[part] == number).all()
    assert len(photos) == 14 * size


def test_the_order_is_another_one_in_each_pass_and_for_each_seed():
    photos, _ = shown(count=9, size=9, epochs=5)
    others, _ = shown(count=9, size=9, epochs=5, seed=4)
    orders = {tuple(row) for row in [*photos.reshape(5, 9), *others.reshape(5, 9)]}
    assert len(orders) == 10
    assert tuple(range(9)) not in orders


def test_the_epochs_of_another_length_show_the_same_row_of_photos():
    (short, _), (long, _) = shown(size=4, epochs=15), shown(size=10, epochs=6)
    np.testing.assert_array_equal(short, long)


def test_each_view_is_shown_once_before_any_is_shown_again_and_photos_are_not_in_step():
    photos, passes = shown(count=40, size=40, epochs=6)
    views = shown_views(photos, passes, count=40, views=3, seed=5)
    of_photo = np.array([views[photos == photo] for photo in range(40)])
    assert (np.sort(of_photo[:, :3], axis=1) == np.arange(3)).all()
    np.testing.assert_array_equal(of_photo[:, 3:], of_photo[:, :3])
    assert set(of_photo[:, 0]) == {0, 1, 2}


def order(**settings):
    return TrainingOrder(**{"count": 7, "batch_size": 3, "steps": 4, "epochs": 5, "seed": 3, "views": 2, **settings})


def test_batches_are_full_and_their_number_is_known():
    batches = order()
    assert len(batches) == 20
    found = list(batches)
    assert {len(photos) for photos, _ in found} == {len(views) for _, views in found} == {3}
    photos, passes = shown(size=12, epochs=5)
    np.testing.assert_array_equal(np.concatenate([photos for photos, _ in found]), photos)
    expected = shown_views(photos, passes, count=7, views=2, seed=3)
    np.testing.assert_array_equal(np.concatenate([views for _, views in found]), expected)


def test_continuing_at_an_epoch_gives_the_rest():
    whole, rest = (list(order(first_epoch=first)) for first in (0, 3))
    assert len(rest) == 8
    for found, expected in zip(rest, whole[12:], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_no_epochs_left_gives_no_batches():
    assert list(order(first_epoch=5)) == []


def test_a_batch_is_the_same_whenever_it_is_asked_for():
    batches = order()
    for number in (19, 0, 7, 19, 4):
        np.testing.assert_array_equal(batches[number], list(order())[number])
    for number in (20, -1):
        with pytest.raises(IndexError):
            batches[number]


def test_two_epochs_are_remembered_and_no_more(monkeypatch):
    """The first batches of an epoch are made while others still make the last ones of the epoch before."""
    computed = []

    def counted(*arguments, epoch, **settings):
        computed.append(epoch)
        return epoch_photos(*arguments, epoch=epoch, **settings)

    monkeypatch.setattr("ktl.data.order.epoch_photos", counted)
    batches = order(steps=4)
    for number in (3, 4, 3, 5, 3, 8, 3):  # of epochs 0, 1, 0, 1, 0, 2, 0
        batches[number]
    assert computed == [0, 1, 2]
    batches[4]
    assert computed == [0, 1, 2, 1]


def test_evaluation_shows_the_first_view_of_every_photo_once():
    found = evaluation_order(7, batch_size=3)
    assert [photos.tolist() for photos, _ in found] == [[0, 1, 2], [3, 4, 5], [6]]
    assert all((views == 0).all() and views.shape == photos.shape for photos, views in found)
    assert evaluation_order(0, batch_size=3) == []
