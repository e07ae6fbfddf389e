"""The search space: which settings of a run a search varies, and over which values. Imports nothing heavy.

A new dimension is a new row of DIMENSIONS: any setting of `ktl.config.settings.RunConfig` may be one.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence

from ktl.config.fields import DEPTH, FORMS, Form
from ktl.errors import UserError, reason_of, shown, unknown_name
from ktl.models.heads import AUTO, HEADS
from ktl.texts import read_text

DIMENSIONS = {
    "freeze_depth": None,  # from the backbone's boundaries, see `ktl.models.boundaries.spread_depths`
    "scale": (1.0, 3.0, 10.0, 30.0, 100.0),
    "learning_rate": (3e-4, 1e-3, 3e-3),
    "head_multiplier": (1.0, 3.0, 10.0, 30.0),
    "head": tuple(HEADS),
    "hidden_units": (0, 256, 1024),
    "label_smoothing": (0.0, 0.1, 0.2),
    "weight_decay": (0.0, 0.1, 0.5),
}
"""Name -> the values that are tried where none are given; a factor of three apart where the scale is logarithmic."""

Space = Mapping[str, tuple | None]
"""Name -> values, in the order of DIMENSIONS; None stands for the backbone's own boundaries."""


def parse_space(given: str | os.PathLike | Mapping[str, Iterable | None]) -> Space:
    """The space that names and values, a text or a file stand for.

    Args:
        given: name -> values, or None for the default ones; or a text of names separated by commas or blanks, each with
            `=value,value,...` or without; or the path of a `.json` file with an object of name -> list of values, or
            null for the default ones.

    Raises:
        UserError: an unknown name, a value of the wrong type, a name without values, or an unreadable file.
    """
    entries = given if isinstance(given, Mapping) else _from_text_or_file(os.fspath(given))
    if not entries:
        raise UserError(f"Expected `space` to have some of: {', '.join(DIMENSIONS)}. Received: none of them")
    for name in entries:
        if name not in DIMENSIONS:
            raise unknown_name("each name in `space`", name, DIMENSIONS)
    return {name: _values(name, entries[name]) for name in DIMENSIONS if name in entries}


def write_space(space: Mapping[str, Sequence | None]) -> str:
    """The text that `parse_space` reads as this space."""
    return " ".join(name if v is None else f"{name}={','.join(map(str, v))}" for name, v in space.items())


def size(space: Mapping[str, Sequence]) -> int:
    """The number of combinations."""
    return math.prod(len(values) for values in space.values())


def _from_text_or_file(given: str) -> dict:
    return _from_file(given) if given.endswith(".json") else _from_text(given)


def _from_text(text: str) -> dict:
    entries, last = {}, None
    for word in text.replace(",", " ").split():
        name, equals, value = word.partition("=")
        if equals:
            last = entries.setdefault(name, [])
            name = value
        if last is not None and (equals or name not in DIMENSIONS):
            last.append(name)
        else:
            entries[name], last = None, None
    return entries


def _from_file(path: str) -> dict:
    try:
        entries = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:  # the last of brackets in brackets
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise UserError(f"Expected `space` to be a readable JSON file. Received: {path} ({reason})") from error
    if not isinstance(entries, dict):
        raise UserError(f"Expected `space` to map names to lists of values. Received: {shown(entries)} in {path}")
    return entries


def _values(name: str, given) -> tuple | None:
    if given is None:
        return DIMENSIONS[name]
    values = None if isinstance(given, str | Mapping) or not isinstance(given, Iterable) else list(given)
    if not values:
        raise UserError(f"Expected a list of values for {name} in `space`. Received: {shown(given)}")
    form = DEPTH if name == "freeze_depth" else FORMS[type(DIMENSIONS[name][0])]
    kind = type(DIMENSIONS[name][0]) if DIMENSIONS[name] else str
    try:
        read = tuple(dict.fromkeys(kind(v) if isinstance(v, str) else form.read(v) for v in values))
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"Expected {kind.__name__} values for {name} in `space`. Received: {shown(given)}") from error
    if name == "head" and AUTO in read:
        raise UserError("Expected heads by name in `space`. Received: auto, which `head` takes where it is not varied")
    text = write_space({name: read})
    if "" in read or text.endswith(".json") or _from_text(text) != {name: [str(value) for value in read]}:
        raise UserError(
            f"Expected values for {name} in `space` that a text can list: not empty, without commas, blanks or "
            f"`=`, no name of a setting or of a .json file. Received: {shown(given)}"
        )
    return read


SPACE = Form(
    "a search space",
    parse_space,
    text=write_space,
    json=lambda space: {name: list(values) if values else None for name, values in space.items()},
)
"""The form of a search space as a setting."""
