"""Arguments of public functions, checked against their annotations: what is wrong is one line, as of a flag."""

import collections.abc
import dataclasses
import errno
import functools
import inspect
import math
import numbers
import os
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, cast

import numpy as np

from ktl.errors import MOST_WHOLE, UserError, shown
from ktl.names import is_url

Given = ParamSpec("Given")
Returned = TypeVar("Returned")

PLAIN: dict[Any, tuple[str, tuple[type, ...]]] = {
    int: ("a whole number", (numbers.Integral,)),
    float: ("a number", (numbers.Real,)),
    bool: ("True or False", (bool, np.bool_)),
    str: ("a text", (str,)),
    types.NoneType: ("None", (types.NoneType,)),
}
"""Annotation -> what an error calls it, and the types that are welcome: NumPy's numbers are numbers."""


def checked_arguments(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """A function that raises UserError for an argument which its annotation does not allow, and gets Python's numbers
    for those of NumPy; what goes with no parameter is a TypeError, as ever."""
    signature = inspect.signature(function)
    hints = functools.cache(lambda: typing.get_type_hints(function))

    @functools.wraps(function)
    def checked(*arguments: Given.args, **named: Given.kwargs) -> Returned:
        bound = signature.bind(*arguments, **named)
        for name, value in bound.arguments.items():
            if signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = _checked(name, value, hints().get(name, Any))
        return function(*bound.args, **bound.kwargs)

    cast(Any, checked).__signature__ = signature  # Keras looks for it here, to tell how a model can be made again
    return checked


def check_fields(values: Any) -> None:
    """Raises UserError for a field of a dataclass whose annotation does not allow its value; makes NumPy's numbers
    Python's."""
    hints = typing.get_type_hints(type(values))
    for field in dataclasses.fields(values):
        value = _checked(field.name, getattr(values, field.name), hints[field.name])
        object.__setattr__(values, field.name, value)  # also of one that is frozen


def check_number(name: str, value: float, *, least: float, below: float = math.inf) -> None:
    """Raises UserError for a number outside of its limits, and for what is no finite one; `name` is the argument's."""
    limits = f"at least {least:g}" if below == math.inf else f"from {least:g} to below {below:g}"
    try:
        within = least <= float(value) < below
        if below == math.inf and not math.isfinite(value):
            limits = "a finite number"
    except OverflowError:  # of a whole number beyond all floats
        within = False
    if not within:
        raise UserError(f"Expected `{name}` to be {limits}. Received: {shown(value)}")


def _checked(name: str, value: Any, kind: Any) -> Any:
    if isinstance(value, numbers.Integral) and abs(int(value)) >= MOST_WHOLE:
        raise UserError(f"Expected `{name}` to be below 2**63. Received: {shown(value)}")
    if not fits(value, kind):
        raise UserError(f"Expected `{name}` to be {described(kind)}. Received: {shown(value)}")
    return value.item() if isinstance(value, np.generic) else value


def fits(value: Any, kind: Any) -> bool:
    """Whether an annotation allows a value; of what it cannot tell, as of what a function takes, it allows all."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if kind in PLAIN:
        # To Python, True is a whole number.
        return isinstance(value, PLAIN[kind][1]) and (kind is bool or not isinstance(value, bool | np.bool_))
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, option) for option in inner)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in inner)
    if origin in (collections.abc.Sequence, collections.abc.Collection, collections.abc.Iterable):
        if isinstance(value, str | bytes) or not isinstance(value, origin):
            return False
        return origin is collections.abc.Iterable or all(fits(item, inner[0]) for item in value)
    if isinstance(origin or kind, type):
        return isinstance(value, origin or kind)
    return True


def described(kind: Any) -> str:
    """What an error calls an annotation."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in PLAIN:
        return PLAIN[kind][0]
    if origin in (types.UnionType, typing.Union):
        return " or ".join(dict.fromkeys(map(described, inner)))
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (collections.abc.Sequence, collections.abc.Collection, collections.abc.Iterable) and inner:
        return f"several, each {described(inner[0])}"
    if origin is collections.abc.Callable:
        return "a function"
    name = getattr(origin or kind, "__name__", str(kind))
    return "a path" if name == "PathLike" else f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def path_of(value: Any, *, argument: str) -> Path:
    """A path that a caller gave.

    Raises:
        UserError: it is of another type, empty, which would be the folder here, or no name that the file system takes;
            `argument` has given it.
    """
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        # `Path("")` can't be told from `Path(".")`, which is a way to say the folder here.
        if is_url(text):
            raise UserError(f"Expected `{argument}` on this machine. Received: {text}, a URL. Copy or mount it")
        if isinstance(text, str) and text.strip() and _is_taken(text):
            return Path(text)
    raise UserError(f"Expected `{argument}` to be a path. Received: {shown(value)}")


def home_path_of(value: Any, *, argument: str) -> Path:
    """As `path_of`, with the home of a user for `~` and `~name` at its beginning; it stays where nobody has one."""
    return Path(os.path.expanduser(path_of(value, argument=argument)))


def check_in_utf8(path: str | os.PathLike, *, argument: str) -> None:
    """Refuses a path whose bytes are not UTF-8, which the system takes, and TensorFlow, LiteRT and ONNX Runtime do not.

    Raises:
        UserError: it is one; `argument` has given it.
    """
    text = os.fspath(path)
    if text != text.encode(errors="replace").decode():
        raise UserError(f"Expected `{argument}` to be a path in UTF-8. Received: {shown(text)}. Rename the folder")


def _is_taken(path: str) -> bool:
    """Whether there could be a file of that name."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    except ValueError:  # of a zero byte, or of signs that are in no encoding
        return False
    return True
