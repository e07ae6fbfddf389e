"""What a setting is: a dataclass field with a group, a help text and limits, and one form for its values.

Imports nothing heavy.
"""

import dataclasses
import math
import numbers
import os
import typing
from collections.abc import Callable, Mapping
from typing import Any

from ktl.errors import MOST_WHOLE, UserError, shown, unknown_name


@dataclasses.dataclass(frozen=True)
class Form:
    """The one form of a setting's values. Values that mean the same are equal in it.

    Attributes:
        name: what an error says was expected.
        read: a value from Python, a flag or a file to this form. Raises TypeError, ValueError or OverflowError.
        text: this form to what the setting's flag takes.
        json: this form to what a JSON file holds.
    """

    name: str
    read: Callable[[Any], Any]
    text: Callable[[Any], str] = str
    json: Callable[[Any], Any] = lambda value: value


def setting(
    default: Any, group: str, help: str, *, form: Form | None = None, choices=None, least=None, most=None, decisive=True
) -> Any:
    """A dataclass field that is also a flag of that group, with its allowed values or its (inclusive) limits.

    Args:
        default: as a flag gives it, or `dataclasses.MISSING`.
        form: of its values; that of the field's type if None.
        decisive: False for a setting that changes where or how fast things happen, and no number.
    """
    metadata = {
        "group": group,
        "help": help,
        "form": form,
        "choices": choices,
        "least": least,
        "most": most,
        "decisive": decisive,
    }
    # A value in a form of its own may be a dict, which has no hash.
    return dataclasses.field(default=default, metadata=metadata, hash=False if form else None)


def flag_of(name: str) -> str:
    """The command line's flag of the argument of that name."""
    return "--" + name.replace("_", "-")


def type_of(field: dataclasses.Field) -> type:
    """What a setting's flag takes: `int` of a field of `int | None`, and a text where the form is the setting's own."""
    return str if field.metadata["form"] else _type_and_none(field)[0]


def form_of(field: dataclasses.Field) -> Form:
    return field.metadata["form"] or FORMS[type_of(field)]


def json_of(field: dataclasses.Field, value: Any) -> Any:
    """What a JSON file has for a setting's value, which is in its form."""
    return None if value is None else form_of(field).json(value)


def checked(field: dataclasses.Field, value: Any) -> Any:
    """A setting's value in its form.

    Raises:
        UserError: a value of another type, outside of the setting's choices or limits.
    """
    rules, name, form = field.metadata, f"`{field.name}`", form_of(field)
    if value is None and _type_and_none(field)[1]:
        return None
    if isinstance(value, bool) and "on" in (rules["choices"] or ()):
        value = "on" if value else "off"
    try:
        read = form.read(value)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        if rules["choices"]:
            raise unknown_name(name, value, rules["choices"]) from error
        raise UserError(f"Expected {name} to be {form.name}. Received: {shown(value)}") from error
    if rules["choices"] and read not in rules["choices"]:
        raise unknown_name(name, read, rules["choices"])
    if isinstance(read, int) and abs(read) >= MOST_WHOLE:
        raise UserError(f"Expected {name} to be below 2**63. Received: {shown(read)}")
    if isinstance(read, float) and not math.isfinite(read):
        raise UserError(f"Expected {name} to be a finite number. Received: {read}")
    if rules["least"] is not None and read < rules["least"]:
        raise UserError(f"Expected {name} to be at least {rules['least']}. Received: {shown(read)}")
    if rules["most"] is not None and read > rules["most"]:
        raise UserError(f"Expected {name} to be at most {rules['most']}. Received: {shown(read)}")
    return read


def _type_and_none(field: dataclasses.Field) -> tuple[type, bool]:
    """`int` and True of a field of `int | None`."""
    kinds: tuple = typing.get_args(field.type) or (field.type,)
    return next(kind for kind in kinds if kind is not type(None)), type(None) in kinds


def _whole(value) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError
    return int(value)


def _number(value) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError
    return float(value)


def _text(value) -> str:
    if not isinstance(value := os.fspath(value), str):
        raise TypeError
    if not value.strip() or "\0" in value:  # an empty path is the folder here to the system, and nobody means that
        raise ValueError
    return value


def _truth(value) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _depth(value) -> str:
    return str(_whole(value)) if isinstance(value, numbers.Integral) else _text(value)


def _several(read: Callable[[Any], Any]) -> Callable[[Any], tuple]:
    """Reads several values, each once: those of an iterable, or the words between commas or blanks of a text."""

    def read_all(value) -> tuple:
        if isinstance(value, bytes | Mapping):  # whose numbers or names are not what somebody means
            raise TypeError
        return tuple(dict.fromkeys(map(read, value.replace(",", " ").split() if isinstance(value, str) else value)))

    return read_all


def _heads(value) -> tuple[str, ...]:
    heads = _several(_text)(value)
    if not heads:
        raise ValueError
    return heads


def _numbers_or_none(read: Callable[[Any], Any], written: Callable[[str], Any], allowed: Callable[[Any], bool]):
    """Reads several numbers, or none of them from the word none."""

    def read_all(value) -> tuple:
        if isinstance(value, str):
            return read_all([] if value == "none" else list(map(written, _several(str)(value))))
        numbers_read = _several(read)(value)
        if not all(map(allowed, numbers_read)):
            raise ValueError
        return numbers_read

    return read_all


def _listed_or_none(values: tuple) -> str:
    return ",".join(map(str, values)) or "none"


FORMS = {
    int: Form("a whole number", _whole),
    float: Form("a number", _number),
    str: Form("a text that is not empty", _text),
    bool: Form("True or False", _truth),
}
"""Type of a field -> the form of its values. NumPy's numbers are numbers, and paths are texts."""

DEPTH = Form("a number or a name that `ktl boundaries` lists, none, all or auto", _depth)
HEAD_LIST = Form("at least one head", _heads, text=",".join, json=",".join)
DEPTH_LIST = Form("freeze depths", lambda value: _several(_depth)(value) or None, text=",".join, json=",".join)
SHARE_LIST = Form(
    "numbers between 0 and 1, or none",
    _numbers_or_none(_number, float, lambda share: 0 < share < 1),
    text=_listed_or_none,
    json=_listed_or_none,
)
SHOT_LIST = Form(
    "whole numbers above 0, or none",
    _numbers_or_none(_whole, int, lambda shots: shots > 0),
    text=_listed_or_none,
    json=_listed_or_none,
)
