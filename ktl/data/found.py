"""What was found where a data set was looked for: photos, classes and splits, and what was passed over."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

HIDDEN = "hidden photos"
LOOSE = "photos in no class folder"
NESTED = "photos in folders within a class folder"
BESIDE = "photos in folders that are no split"
UNREAD = "photos of formats that are not read"
MISNAMED = "photos whose names do not end as a photo's"
SPECIAL = "pipes, sockets or devices"
OTHER = "other files"
UNREADABLE = "folders that cannot be read"


def is_shown(name: str) -> bool:
    """Whether file managers show a file or folder of that name: it is neither hidden nor a `__MACOSX` folder."""
    return not name.startswith(".") and name != "__MACOSX"


class PassedOver(NamedTuple):
    """What is there and in no split."""

    what: str
    count: int
    example: str


class Tally:
    """Counts what is passed over, and keeps an example of each kind."""

    def __init__(self):
        self._kinds: dict[str, PassedOver] = {}

    def add(self, what: str | None, example: str) -> None:
        """One more of a kind; None counts as nothing."""
        if what is not None:
            _, count, first = self._kinds.get(what, (what, 0, example))
            self._kinds[what] = PassedOver(what, count + 1, first)

    @property
    def counts(self) -> tuple[PassedOver, ...]:
        return tuple(self._kinds.values())


@dataclasses.dataclass(frozen=True)
class Found:
    """What a reader of a data set saw besides its photos.

    Attributes:
        passed_over: what is there and is not used, with how many there are and the path of one.
        set_aside: the splits that were set aside from train.
        remarks: lines about how a name was understood.
    """

    passed_over: tuple[PassedOver, ...] = ()
    set_aside: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def lines(self, name: str, *, classes: int, photos: Mapping[str, int]) -> list[str]:
        """What is told at the beginning of a run.

        Args:
            name: of the data set.
            classes: how many it has.
            photos: split -> how many photos it has.
        """
        splits = ", ".join(f"{count:,} {split}" for split, count in photos.items())
        aside = f" ({' and '.join(self.set_aside)} set aside from train)" if self.set_aside else ""
        first = f"{name}: {sum(photos.values()):,} photos of {classes:,} classes: {splits}{aside}"
        return [*self.remarks, first, *lines_of(self.passed_over)]


def lines_of(passed_over: Sequence[PassedOver]) -> list[str]:
    """A line that tells what was passed over; none where nothing was."""
    parts = (f"{count:,} {what}, such as {example}" for what, count, example in passed_over)
    return [f"passed over: {'; '.join(parts)}"] if passed_over else []
