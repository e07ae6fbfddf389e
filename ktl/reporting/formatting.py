"""How a report writes numbers and names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def percent(fraction: float) -> str:
    """With a space that no line breaks at."""
    return f"{100 * fraction:.1f}\u00a0%"


def interval(ends: tuple[float, float]) -> str:
    """From a fraction to a fraction, in percent."""
    return f"{100 * ends[0]:.1f} to {percent(ends[1])}"


def points(fraction: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{round(100 * fraction, 1) + 0.0:+.1f}"  # zero has no minus


def setting(value: Any) -> str:
    """A value of a setting in words: the command line has flags for some of them."""
    if value is None or isinstance(value, bool):
        return {None: "not given", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def short_name(text: str) -> str:
    """The last part of a path; a name as it is."""
    return Path(text).name or text


def short_names(texts: Sequence[str]) -> dict[str, str]:
    """Path or name -> its short name, or itself where another one has the same short name."""
    last = {text: short_name(text) for text in texts}
    return {text: short if list(last.values()).count(short) == 1 else text for text, short in last.items()}


FILTERS = {"percent": percent, "interval": interval, "points": points, "setting": setting}
"""Name in a template -> function."""
