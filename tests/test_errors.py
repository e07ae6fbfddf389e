"""Messages: one line whatever they quote, and never too long."""

import pickle

import numpy as np
import pytest

from ktl.errors import UserError, shown, unknown_name


@pytest.mark.parametrize("sign", ["\n", "\r", "\x1b", "\u2028", "\u202e", "\udc80", "\0"])
def test_a_message_is_one_line_whatever_it_quotes(sign):
    error = unknown_name("`head`", f"a{sign}b", ["kept"])
    assert f"{error}".isprintable()
    assert f"{error}".endswith(repr(f"a{sign}b")[1:-1])
    assert f"{pickle.loads(pickle.dumps(error))}" == f"{error}"


def test_a_message_that_can_be_read_stays_as_it_is():
    message = "Expected Maße or 日本 in C:\\n. Received: é"
    assert f"{UserError(message)}" == message


def test_a_long_value_is_shown_by_its_ends():
    for value in ("x" * 10**6, 10**5000, [[1] * 99] * 99, np.zeros((99, 99)), {"a": "b" * 999}):
        assert len(shown(value)) < 300


def test_a_long_name_is_shortened_too():
    assert len(f"{unknown_name('`head`', 'x' * 9999, ['kept'])}") < 300


class Silent:
    def __repr__(self):
        raise RuntimeError("nothing to see")


def test_what_cannot_be_shown_is_named_by_its_type():
    assert "Silent" in shown(Silent())
    assert "Silent" in shown([{"a": Silent()}])


def test_a_short_value_is_shown_as_python_writes_it():
    for value in ("runs/a", 7, 1.5, None, float("nan"), [1, "b"], {"a": 1}):
        assert shown(value) == repr(value)


def test_the_middle_of_a_very_long_message_is_left_out():
    error = UserError(f"Expected {'a' * 9999}. Received: b. Do this")
    assert len(f"{error}") == 2500
    assert f"{error}".startswith("Expected aaa")
    assert f"{error}".endswith("aaa. Received: b. Do this")
    assert f"{pickle.loads(pickle.dumps(error))}" == f"{error}"
