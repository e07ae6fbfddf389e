"""What the readers of folders, tables, arrays and TFDS give: the splits that exist, before any is set aside."""

import collections
import dataclasses
from collections.abc import Mapping

import numpy as np

from ktl.data.found import Found
from ktl.data.split import Source, Split
from ktl.errors import UserError
from ktl.names import check_classes, check_names, composed


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
        found: what was passed over, and what is to be told.
    """

    name: str
    splits: Mapping[str, Split]
    class_names: tuple[str, ...]
    flip: bool = True
    notice: str | None = None
    origin: str = ""
    found: Found = dataclasses.field(default_factory=Found)


def list_rows(
    name: str, rows: Mapping[str, list[tuple[str, str]]], source: Source, *, place: object, found: Found | None = None
) -> Listing:
    """The listing of rows (photo's id, class).

    Args:
        name: what reports call the data set.
        rows: the rows of each split. The class names are those of all splits, sorted.
        source: gives the photos' bytes.
        place: what errors name.
        found: what the reader passed over.

    Raises:
        UserError: there is no train split, a name that no file of results could hold, or class names that look alike.
    """
    if "train" not in rows:
        raise UserError(f"Expected training photos in {place}. Received: {', '.join(rows) or 'nothing'} only")
    rows = {split: [(photo, composed(label)) for photo, label in part] for split, part in rows.items()}
    photos = collections.Counter(label for part in rows.values() for _, label in part)
    class_names = tuple(sorted(photos))
    check_names((*class_names, *(photo for part in rows.values() for photo, _ in part)), place=place)
    remarks = check_classes(photos, place=place)
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
    return Listing(name, splits, class_names, found=dataclasses.replace(found or Found(), remarks=remarks))
