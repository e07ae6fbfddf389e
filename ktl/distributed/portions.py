"""Portions: which photos are whose, where several processes or machines divide a data set without talking.

A photo's portion is a function of its name and of the number of portions alone. So each finds its own without reading a
photo of another, however photos are listed, and a photo that comes or goes moves no other. By the bytes of the photos
each would have to read all of them.
"""

import dataclasses
import hashlib
import re

from ktl.errors import UserError, shown

MOST_PORTIONS = 10**6
"""More than that would be typing errors."""


@dataclasses.dataclass(frozen=True)
class Portion:
    """One of several parts of a list of photos, which have about as many photos each.

    Attributes:
        number: which, counted from 1.
        count: how many parts there are.

    Raises:
        UserError: there is no such portion.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self):
        if not 1 <= self.number <= self.count <= MOST_PORTIONS:
            raise _no_portion(f"{self}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has(self, photo: str) -> bool:
        """Whether the photo of that name is in it."""
        if self.count == 1:
            return True
        name = photo.encode(errors="surrogatepass")  # a file's name may be bytes in no encoding
        return int.from_bytes(hashlib.sha256(name).digest()[:8]) % self.count == self.number - 1


def portion_of(text: str) -> Portion:
    """The portion that a text such as `3/64` names.

    Raises:
        UserError: it names none.
    """
    found = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None:
        raise _no_portion(text)
    return Portion(int(found[1]), int(found[2]))


def all_portions(count: int) -> list[Portion]:
    """All portions of so many.

    Raises:
        UserError: there cannot be so many.
    """
    if not 1 <= count <= MOST_PORTIONS:
        raise UserError(f"Expected `shards` from 1 to {MOST_PORTIONS:,}. Received: {count}")
    return [Portion(number, count) for number in range(1, count + 1)]


def _no_portion(text: str) -> UserError:
    form = f"NUMBER/COUNT, counted from 1, as 1/64 to 64/64, with a count of {MOST_PORTIONS:,} at most"
    return UserError(f"Expected `shard` as {form}. Received: {shown(text)}")
