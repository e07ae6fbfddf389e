"""What photos are recognised by, remembered as their digests are: by their files, in the same file."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ktl.data.digest import DIGEST_BYTES
from ktl.data.duplicates import DECODED_SIDE, HASHED_SIDE, Print
from ktl.data.split import FileVersion
from ktl.features.digests import DigestMemory, settled
from ktl.features.shared_memory import SharedMemory
from ktl.folders import cache_folder
from ktl.names import is_url
from ktl.remote import joined_url


class RememberedPrints:
    """The prints of photos, in a cache folder; see `ktl.data.duplicates.PrintMemory`.

    Args:
        folder: the cache folder, or None or its URL as a `FeatureStore` takes it.
        tell: is given a line where the file was damaged.
    """

    def __init__(self, folder: str | Path | None, *, tell: Callable[[str], None] = lambda text: None):
        here = cache_folder() if folder is None or is_url(folder) else Path(folder)
        local = DigestMemory(here, tell=tell, table="prints")
        self._memory = SharedMemory(local, joined_url(folder, "prints"), tell=tell) if is_url(folder) else local
        # Another version of these packages may give other pixels.
        packages = (f"{name} {version(name)}" for name in ("pillow", "imagehash"))
        self._by = " ".join([*packages, f"{HASHED_SIDE} {DECODED_SIDE}"])

    def find(self, versions: Sequence[FileVersion | None]) -> list[Print | None]:
        contents = self._memory.find([self._stamped(file) for file in versions])
        return [None if content is None else _read(content) for content in contents]

    def keep(self, prints: Mapping[FileVersion, Print]) -> None:
        written = {self._stamped(file): _written(found) for file, found in prints.items() if settled(file)}
        self._memory.keep({file: content for file, content in written.items() if file})

    def _stamped(self, file: FileVersion | None) -> FileVersion | None:
        return file and file._replace(stamp=f"{file.stamp} {self._by}")


def _written(found: Print) -> bytes:
    return found.digest + (b"" if found.bits is None else found.bits.tobytes())


def _read(content: bytes) -> Print:
    bits = content[DIGEST_BYTES:]
    return Print(content[:DIGEST_BYTES], np.frombuffer(bits, np.uint64)[0] if bits else None)
