"""Names of classes, photos and places: what is one name, a URL, and what no file of results could hold."""

import collections
import re
import unicodedata
from collections.abc import Iterable, Mapping, Set
from typing import TypeGuard

from ktl.errors import UserError, shown

INVISIBLE = "\u034f\u115f\u1160\u2800\u3164\uffa0" + "".join(map(chr, range(0xFE00, 0xFE10)))
"""Signs that show nothing, besides those that Unicode calls controls and formats."""


def is_url(name: object) -> TypeGuard[str]:
    """Whether a name is a URL, as `s3://bucket/photos` is, and no path."""
    return isinstance(name, str) and re.match(r"[a-z][a-z0-9+.-]*://.", name) is not None


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC): macOS may write é as an e and an accent, other systems as one sign."""
    return unicodedata.normalize("NFC", name)


def check_names(names: Iterable[str], *, place: object) -> None:
    """Refuses names that no file of results could hold.

    Raises:
        UserError: a name has several lines, or cannot be written in UTF-8.
    """
    for name in names:
        if {"\n", "\r"} & set(name) or name != name.encode(errors="replace").decode():
            raise UserError(f"Expected names in UTF-8, of one line each. Received: {name!r} in {place}. Rename it")


def distinct_names(class_names: Iterable[str]) -> tuple[str, ...]:
    """The names that a caller gave, composed.

    Raises:
        UserError: they are fewer than two, have no order, one is there twice or shows nothing, or no file of results
            could hold it.
    """
    names = () if isinstance(class_names, str | Mapping | Set) else tuple(class_names)
    if len(names) < 2 or not all(isinstance(name, str) and name.strip() for name in names):
        raise UserError(
            f"Expected `class_names` to be two or more strings, in an order. Received: {shown(class_names)}"
        )
    check_names(names, place="`class_names`")
    names = tuple(composed(str(name)) for name in names)
    counts = collections.Counter(names)
    twice = next((name for name in names if counts[name] > 1), None)
    if twice is not None:
        raise UserError(f"Expected `class_names` to name each class once. Received: {twice!r} twice")
    _check_seen(names, place="`class_names`")
    return names


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that differ in nothing but letter case, white space or signs that show nothing."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_looks(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def check_classes(photos: Mapping[str, int], *, place: object) -> tuple[str, ...]:
    """Refuses class names of which nobody can say whether they are one class or two.

    Letters are classes of their own in either case, as of handwriting; that is told and not refused.

    Args:
        photos: name of a class -> how many photos it has.
        place: what errors name.

    Returns:
        What is to be told, in lines.

    Raises:
        UserError: names differ in letter case, white space or invisible signs alone, or one shows nothing.
    """
    told = []
    _check_seen(photos, place=place)
    for group in alike(photos):
        listed = " and ".join(f"{name!r} ({photos[name]:,} photos)" for name in group)
        if any(len(name) > 1 for name in group):
            raise UserError(
                "Expected class names that differ in more than letter case, white space or invisible signs. Received: "
                f"{listed} in {place}. Write them alike if they are one class, else rename one"
            )
        told.append(f"{listed} are two classes")
    return tuple(told)


def _check_seen(names: Iterable[str], *, place: object) -> None:
    for name in names:
        if not _looks(name):
            raise UserError(f"Expected class names that can be seen. Received: {name!r} in {place}")


def _looks(name: str) -> str:
    """What is left of a name when letter case, white space and invisible signs do not count."""
    # Not `casefold`: it makes one word of Maße and Masse.
    shown = (sign for sign in composed(name).lower() if sign not in INVISIBLE and _is_shown(sign))
    return composed(" ".join("".join(shown).split()))


def _is_shown(sign: str) -> bool:
    return sign.isspace() or unicodedata.category(sign) not in ("Cc", "Cf")
