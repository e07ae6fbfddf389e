"""Values that nobody is glad to get, for Hypothesis: texts, numbers, JSON, and what is no JSON at all."""

import string
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from ktl.errors import UserError

WORDS = (
    "- -- -1 0 None null true nan -inf 1e999 0x10 1_000 . .. / ~ ~nobody ./a/../b a/ /dev/null a.json a.keras a.csv "
    "http://x %s {0} `epochs`"
)
SIGNS = ("", " ", "\0", "a\nb", "\r", "\x1b[31mred", "\u202eabc", "\u2028", "\u0663", "\udc80", "\ud800", "e\u0301")
ODD_TEXTS = (*WORDS.split(), *SIGNS, "9" * 5000, "x" * 300)
TEXTS = st.sampled_from(ODD_TEXTS) | st.text(string.printable, max_size=12) | st.text(max_size=12)
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([0, -1, 1.5, 2**31, 2**63, 10**30, 10**400, -(10**400), 1e308, 5e-324, -0.0])
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
"""Any value that JSON or TOML has."""


VALUES = JSON | st.sampled_from([b"bytes", 1j, {1, 2}, (), (None,), range(3), object(), int, len, 10**5000, {None: 1}])
"""Any value that Python has."""


def share(part: float) -> settings:
    """As many examples as a part of those that Hypothesis' profile says."""
    return settings(max_examples=max(1, int(part * settings().max_examples)))


def made_or_refused(make: Callable[[], Any]) -> tuple[Any, str]:
    """What it makes, and nothing; or None, and what the refusal says, in one line that a person reads."""
    try:
        return make(), ""
    except UserError as error:
        text = f"{error}"
    assert_one_line(text)
    assert len(text) < 3000
    return None, text


def assert_one_line(text: str) -> None:
    """Of a message: what a terminal shows in one line, and no traceback."""
    assert text.isprintable(), text
    assert text
    assert "Traceback" not in text
