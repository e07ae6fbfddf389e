"""Whose photos are whose: a function of the name alone, and every photo has one portion."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktl.distributed.portions import Portion, portion_of
from ktl.errors import UserError

NAMES = [f"class{number % 7}/photo {number}.jpg" for number in range(3000)]


@given(st.text(st.characters(codec=None)), st.integers(1, 1000))
def test_every_photo_is_in_one_portion(name, count):
    assert sum(Portion(number, count).has(name) for number in range(1, count + 1)) == 1


def test_portions_have_about_as_many_photos():
    sizes = [sum(map(Portion(number, 10).has, NAMES)) for number in range(1, 11)]
    assert sum(sizes) == len(NAMES)
    assert min(sizes) > 250
    assert max(sizes) < 350


def test_which_portion_it_is_stays_for_ever():
    """Machines of other versions of Python and of ktl may work on one data set."""
    numbers = [number for number, name in enumerate(NAMES) if Portion(3, 500).has(name)]
    assert numbers == [31, 619, 665, 929, 1118, 1539, 2694]


def test_a_portion_is_read_and_written():
    for text in ("1/1", "3/64", "64/64", "000001/7"):
        assert str(portion_of(text)) == text.lstrip("0")


@pytest.mark.parametrize(
    "text", ["", "3", "3/", "/3", "0/0", "0/4", "5/4", "-1/4", "1/4/2", "a/b", "1.0/2", "¹/2", "1/9999999"]
)
def test_what_names_no_portion_is_refused(text):
    with pytest.raises(UserError, match=f"^Expected `shard` as NUMBER/COUNT, .* Received: {re.escape(repr(text))}$"):
        portion_of(text)
