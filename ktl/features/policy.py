"""Whether computing the frozen layers once pays."""

from ktl.features.extraction import Extraction
from ktl.memory import size_in_words

LEAST_SPEEDUP = 1.2
"""Less than this is not worth the disk."""


def worth_caching(asked: str, extraction: Extraction, *, passes: float, limit_bytes: float) -> tuple[bool, str]:
    """Whether to compute the frozen layers once, and the reason in a few words.

    By multiply-adds, with a backward pass at twice the cost of a forward one, and c the share of the forward pass that
    is frozen: a pass of a training over the photos costs 1 + 2 (1 - c) without the cache and 3 (1 - c) with it, and a
    view in the cache costs c, once for all trainings.

    Args:
        asked: `auto`, `on` or `off`.
        extraction: what would be computed.
        passes: over the data set's training photos, of all trainings that share what is computed, about.
        limit_bytes: the most that the store may take.
    """
    size, frozen = extraction.nbytes, extraction.boundary.cost_share
    speedup = passes * (1 + 2 * (1 - frozen)) / (extraction.views.count * frozen + passes * 3 * (1 - frozen))
    gain = f"{size_in_words(size)} for about {speedup:.1f} times less arithmetic"
    if asked == "off":
        return False, "as asked"
    if extraction.boundary.depth == 0:
        return False, "nothing is frozen"
    if size > limit_bytes:
        return False, f"it would take {size_in_words(size)}, more than the limit of {size_in_words(limit_bytes)}"
    if asked == "auto" and speedup < LEAST_SPEEDUP:
        return False, f"it would not pay: {gain}"
    return True, gain
