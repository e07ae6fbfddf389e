"""What the readers of folders, tables, arrays and TFDS give: the splits that exist, before any is set aside."""

import dataclasses
import unicodedata
from collections.abc import Iterable, Mapping

import numpy as np

from ktl.data.split import Source, Split
from ktl.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
    """The photos that a folder, a table, arrays or a TFDS data set have.

    Readers give this and no `Dataset`, so that `Dataset`'s constructors can call them without a circle of imports.

    Attributes:
        name: what reports call the data set.
        splits: `train`, and `validation` and `test` where they exist.
        class_names: a label is an index into these.
        flip: whether a mirrored photo still shows its class.
        notice: what a reader of the results must know, or None.
        origin: what the photos' own stamps do not say, such as a version; part of the data set's fingerprint.
    """

    name: str
    splits: Mapping[str, Split]
    class_names: tuple[str, ...]
    flip: bool = True
    notice: str | None = None
    origin: str = ""


def list_rows(name: str, rows: Mapping[str, list[tuple[str, str]]], source: Source, *, place: object) -> Listing:
    """The listing of rows (photo's id, class).

    Args:
        name: what reports call the data set.
        rows: the rows of each split. The class names are those of all splits, sorted.
        source: gives the photos' bytes.
        place: what errors name.

    Raises:
        UserError: there is no train split, or a name that no file of results could hold.
    """
    if "train" not in rows:
        raise UserError(f"Expected training photos in {place}. Received: {', '.join(rows) or 'nothing'} only")
    rows = {split: [(photo, composed(label)) for photo, label in part] for split, part in rows.items()}
    class_names = tuple(sorted({label for part in rows.values() for _, label in part}))
    check_names((*class_names, *(photo for part in rows.values() for photo, _ in part)), place=place)
    numbers = {label: number for number, label in enumerate(class_names)}
    splits = {
        split: Split(
            split,
            tuple(photo for photo, _ in part),
            np.array([numbers[label] for _, label in part], np.int32),
            source,
        )
        for split, part in rows.items()
    }
    return Listing(name, splits, class_names)


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
