"""How much memory is free, the refusal of settings that need more, and numbers of bytes; no TensorFlow is loaded."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from rich.filesize import pick_unit_and_suffix

from ktl.errors import UserError

GIB = 2**30

UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB"]


def free_memory() -> int | None:
    """Bytes that this process may still take without the system ending it; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = sum(int(facts[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))
        return min(free, *_left_in_groups(), free)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def check_memory(needed: float, *, setting: str) -> None:
    """Refuses a setting before the memory that it needs is taken.

    Args:
        needed: bytes at least.
        setting: its name in backticks and its value, and what else it depends on.

    Raises:
        UserError: there is less.
    """
    free = free_memory()
    if free is not None and needed > free:
        raise UserError(
            f"Expected settings that fit in memory, of which {free / GIB:,.1f} GiB are free. Received: {setting}, "
            f"which takes {needed / GIB:,.1f} GiB at least. Lower it"
        )


def size_in_words(size: float) -> str:
    """A number of bytes with three digits or more: `712 bytes`, `5.91 MiB`, `1,023 GiB`."""
    unit, suffix = pick_unit_and_suffix(int(size), UNITS, 1024)
    amount = size / unit
    places = 0 if unit == 1 else max(0, 3 - len(f"{amount:.0f}"))
    return f"{amount:,.{places}f} {suffix}"


def _left_in_groups() -> Iterator[int]:
    """What limits of control groups, as of containers, leave."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
            yield int(Path(limit).read_text()) - int(Path(used).read_text()) + _reclaimable(Path(used).parent)


def _reclaimable(group: Path) -> int:
    """Bytes of files that the system would give back: what is used counts them too."""
    facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(facts.get("inactive_file", 0)) + int(facts.get("active_file", 0))
