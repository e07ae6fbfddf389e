"""What a report says about photos that are in an earlier split too."""

from collections.abc import Mapping, Sequence
from typing import Any

from ktl.data.duplicates import NEAR, Duplicate, count

LISTED = 200
"""Rows of the table of duplicates."""


def shown(found: Sequence[Duplicate], without: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The values of the section's template.

    Args:
        found: all of them.
        without: what result.json of a study has on the other test photos.
    """
    counts = {split: count(found, split=split) for split in ("test", "validation")}
    return {"counts": counts, "rows": found[:LISTED], "all": len(found), "most": NEAR, "without": without}
