"""Photos at URLs: those of a folder of class folders, and those that a table names."""

import dataclasses
from collections.abc import Iterable, Mapping

from ktl.data.images import WORKERS
from ktl.data.split import FileSource, FileVersion, Source
from ktl.remote import READERS, RemoteFile, read_bytes


def readers_of(sources: Iterable[Source]) -> int:
    """How many photos are read at a time: of those at URLs more, most of whose time is waiting."""
    return READERS if any(isinstance(source, UrlSource | PlacedSource) for source in sources) else WORKERS


@dataclasses.dataclass(frozen=True, eq=False)
class UrlSource:
    """Photos at URLs, as their servers told of them when they were listed.

    Attributes:
        files: photo's id -> its file.
    """

    files: Mapping[str, RemoteFile]

    def read(self, photo: str) -> bytes:
        return read_bytes(self.files[photo].url)

    def stamp(self, photo: str) -> str:
        return self.files[photo].stamp or "unknown"

    def version(self, photo: str) -> FileVersion | None:
        # Of the listing: where a photo was changed after it, the next listing has another stamp. It has the time of the
        # change and a mark of the content, so that nothing has to settle.
        file = self.files[photo]
        return FileVersion(file.url, file.stamp, 0) if file.stamp else None


@dataclasses.dataclass(frozen=True, eq=False)
class PlacedSource:
    """Photos of which some are files here and some are at URLs."""

    local: FileSource
    at_urls: UrlSource

    def read(self, photo: str) -> bytes:
        return self._of(photo).read(photo)

    def stamp(self, photo: str) -> str:
        return self._of(photo).stamp(photo)

    def version(self, photo: str) -> FileVersion | None:
        return self._of(photo).version(photo)

    def _of(self, photo: str) -> Source:
        return self.at_urls if photo in self.at_urls.files else self.local
