"""Files that ktl reads back as what it wrote: records of a known type, arrays. What is damaged is named."""

import contextlib
import dataclasses
import math
import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ktl.errors import MOST_WHOLE, shown
from ktl.files import check_file, damaged, open_regular, read_json, reading

_PLAIN = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}
"""Type -> what an error calls it."""


def read_record(path: str | os.PathLike, kind: type) -> dict[str, Any]:
    """The object in a JSON file, which has the type of a TypedDict or dataclass; further keys are left in it.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged, or a value is of another type.
    """
    value = read_json(path)
    check_type(value, kind, path=path)
    return value


def check_type(value: Any, kind: Any, *, path: str | os.PathLike, place: str = "") -> None:
    """Checks what JSON gave against a type: TypedDicts, dataclasses, lists, dicts, unions, plain types.

    Args:
        value: what was read.
        kind: the type. Numbers of it are finite; a whole number is a number, too.
        path: the file that an error names.
        place: where in the file the value is, as in `test.top1`.

    Raises:
        UserError: it is of another type.
    """
    wrong = next(_mismatches(value, kind, place), None)
    if wrong:
        place, expected, received = wrong
        found = "nothing" if received is _MISSING else shown(received)
        raise damaged(path, f"{found} in the place of {expected}, at {place or 'the top'}")


_MISSING = object()


def _mismatches(value: Any, kind: Any, place: str) -> Iterator[tuple[str, str, Any]]:
    """(place, what is expected, what is there) of all that has not its type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return
    if origin in (types.UnionType, typing.Union):
        if all(any(True for _ in _mismatches(value, option, place)) for option in inner):
            options = [option for option in inner if option is not types.NoneType]
            # Of an object that may be null, what is wrong inside it says more.
            yield from _mismatches(value, options[0], place) if len(options) == 1 else [(place, f"{kind}", value)]
    elif typing.is_typeddict(kind) or dataclasses.is_dataclass(kind):
        yield from _wrong_fields(value, kind, place)
    elif origin in (dict, Mapping):
        yield from _wrong_items(value, inner[1], place)
    elif origin in (list, tuple, Sequence) or kind is list:
        if not isinstance(value, list):
            yield place, "a list", value
        elif inner:
            for index, item in enumerate(value):
                yield from _mismatches(item, inner[0], f"{place}[{index}]")
    elif not _is_plain(value, kind):
        yield place, _PLAIN[kind], value


def _is_plain(value: Any, kind: type) -> bool:
    if kind is float:
        return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)
    return type(value) is kind and (kind is not int or abs(value) < MOST_WHOLE)


def _wrong_items(value: Any, kind: Any, place: str) -> Iterator[tuple[str, str, Any]]:
    if not isinstance(value, dict):
        yield place, "an object", value
        return
    for name, item in value.items():
        yield from _mismatches(item, kind, f"{place}.{name}".lstrip("."))


def _wrong_fields(value: Any, kind: Any, place: str) -> Iterator[tuple[str, str, Any]]:
    if not isinstance(value, dict):
        yield place, "an object", value
        return
    hints = typing.get_type_hints(kind)
    if typing.is_typeddict(kind):
        required = kind.__required_keys__
    else:
        missing = dataclasses.MISSING
        fields = dataclasses.fields(kind)
        required = {field.name for field in fields if field.default is missing and field.default_factory is missing}
    for name, expected in hints.items():
        if name in value:
            yield from _mismatches(value[name], expected, f"{place}.{name}".lstrip("."))
        elif name in required:
            yield f"{place}.{name}".lstrip("."), "a value", _MISSING


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays in an `.npz` file, whose own checksums are compared.

    Raises:
        UserError: it is not there, damaged, or holds other things than arrays of numbers and texts.
    """
    try:
        with reading(path), open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError as error:
        raise damaged(path, "no such file") from error


@contextlib.contextmanager
def opening(path: str | os.PathLike) -> Iterator[None]:
    """Opens a model's file with another package, which may raise anything; the file is compared with its checksum.

    Raises:
        UserError: it is damaged, or the package does not open it.
    """
    try:
        with reading(path):
            open_regular(path).close()  # the package would wait for a pipe
        check_file(path)
        with reading(path):
            yield
    except FileNotFoundError as error:
        raise damaged(path, "no such file") from error
