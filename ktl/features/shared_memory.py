"""What one machine remembers of photos at URLs, for all of them: in files at a URL, named by their content."""

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ktl.data.split import FileVersion
from ktl.errors import UserError
from ktl.features.digests import DigestMemory
from ktl.features.names import NAME
from ktl.names import is_url
from ktl.remote import READERS, files_in, joined_url, read_bytes, scratch_folder, upload

END = ".jsonl.gz"

LEARNED = b"learned"
"""What is remembered of such a file."""


class SharedMemory:
    """A `DigestMemory`, and what others have written at a URL; either gets what is learned.

    Args:
        local: what this machine remembers.
        url: of a folder.
        tell: is given a line where a file there is damaged.
    """

    def __init__(self, local: DigestMemory, url: str, *, tell: Callable[[str], None] = lambda text: None):
        self._local, self._url, self._tell = local, url, tell

    def find(self, versions: Sequence[FileVersion | None]) -> list[bytes | None]:
        """As `DigestMemory.find`; where a photo at a URL is not known here, what others know is learned first.

        Raises:
            Unreachable: the URL cannot be asked.
        """
        found = self._local.find(versions)
        pairs = zip(versions, found, strict=True)
        if any(content is None and version and is_url(version.path) for version, content in pairs) and self._learn():
            return self._local.find(versions)
        return found

    def keep(self, digests: Mapping[FileVersion, bytes]) -> None:
        """As `DigestMemory.keep`; what is of photos at URLs is written for others too. Raises Unreachable."""
        self._local.keep(digests)
        rows = [(file.path, file.stamp, digest.hex()) for file, digest in digests.items() if is_url(file.path)]
        if rows:
            content = gzip.compress("".join(f"{json.dumps(row)}\n" for row in rows).encode(), mtime=0)
            name = f"{hashlib.sha256(content).hexdigest()[:32]}{END}"
            with scratch_folder() as folder:
                (folder / name).write_bytes(content)
                upload(folder / name, joined_url(self._url, name))

    def _learn(self) -> bool:
        """Whether there was anything new to learn."""
        files = [FileVersion(file.url, file.stamp, 0) for file in files_in(self._url) if _is_ours(file.name)]
        known = self._local.find(files)
        new = [file for file, content in zip(files, known, strict=True) if content is None]
        with ThreadPoolExecutor(READERS) as pool:
            for file, rows in zip(new, pool.map(self._read, new), strict=True):
                self._local.keep({**rows, file: LEARNED})
        return bool(new)

    def _read(self, file: FileVersion) -> dict[FileVersion, bytes]:
        try:
            lines = gzip.decompress(read_bytes(file.path)).decode().splitlines()
            rows = [json.loads(line) for line in lines]
            return {FileVersion(str(path), str(stamp), 0): bytes.fromhex(digest) for path, stamp, digest in rows}
        except FileNotFoundError:  # removed just now
            return {}
        except UserError:
            raise
        except (OSError, EOFError, zlib.error, ValueError, TypeError):
            self._tell(f"cache: {file.path} is damaged; photos are read again for what it had. Remove it")
            return {}


def _is_ours(name: str) -> bool:
    return name.endswith(END) and NAME.fullmatch(name.removesuffix(END)) is not None
