"""Who computes what: processes that fill one cache claim the rows that each computes, and none is their master.

A claim is a lock that its process holds, and a file of row ids for each entry. What a dead process had claimed is free
again, since the system lets go of its lock.
"""

import contextlib
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import filelock
import numpy as np

from ktl.errors import UserError
from ktl.features.folder import files_of, own_entries, remove_file, remove_temporary
from ktl.features.names import CLAIM, LOCK, PARTIAL, new_name
from ktl.features.shards import ID
from ktl.files import write_atomically

PLAN = "plan.lock"
CLAIMS = ".claims"


class Claims:
    """The claims in a cache folder; look at them and take one inside of `planning` alone.

    Args:
        folder: the cache folder.

    Raises:
        UserError: a link or a file is where they go.
    """

    def __init__(self, folder: Path):
        self.cache, self.folder = folder, folder / CLAIMS
        with contextlib.suppress(FileExistsError):
            self.folder.mkdir()
        for path, is_own in ((self.folder, stat.S_ISDIR), (self.folder / PLAN, stat.S_ISREG)):
            # A lock file is emptied when it is locked: never one that a link leads to.
            if os.path.lexists(path) and not is_own(os.lstat(path).st_mode):
                raise UserError(f"Expected no link or other file in `cache_dir` of this name. Received: {path}")

    @contextlib.contextmanager
    def planning(self) -> Iterator[None]:
        """One process at a time decides what it computes, in an instant."""
        with filelock.FileLock(self.folder / PLAN):
            yield

    def living(self) -> dict[str, dict[str, np.ndarray]]:
        """The claims of living processes: name -> entry's key -> row ids. What the dead have left is removed."""
        claims = {}
        for file in list(files_of(self.folder, LOCK)):
            name = file.path.name.removesuffix(LOCK)
            try:
                with filelock.FileLock(file.path, blocking=False):
                    self._remove(name)
                    remove_file(file.path)
            except filelock.Timeout:
                claims[name] = {key: ids for key, path in self._files(name).items() if (ids := _read(path)) is not None}
        for entry in own_entries(self.cache):
            for file in files_of(entry.path, PARTIAL):
                if file.path.name.removesuffix(PARTIAL) not in claims:
                    remove_file(file.path)
            remove_temporary(entry.path)
        remove_temporary(self.folder)
        return claims

    def busy(self) -> set[str]:
        """The entries that living processes write to."""
        return {key for rows in self.living().values() for key in rows}

    @contextlib.contextmanager
    def taken(self, rows: Mapping[str, np.ndarray], planned: Callable[[], None]) -> Iterator[str]:
        """Claims rows, by the entries' keys; gives the name of the claim, that of the shards that are written.

        `planned` is called when the claim is there, for planning to end.
        """
        name = new_name()
        with filelock.FileLock(self.folder / f"{name}{LOCK}") as lock:
            try:
                for key, ids in rows.items():
                    content = np.ascontiguousarray(ids).tobytes()
                    content += zlib.crc32(content).to_bytes(4, "little")
                    write_atomically(self.folder / f"{name}-{key}{CLAIM}", partial(_write, content=content))
                planned()
                yield name
            finally:
                self._remove(name)
                remove_file(Path(lock.lock_file))

    def wait(self, name: str) -> None:
        """Waits until a claim's process is done or dead."""
        path = self.folder / f"{name}{LOCK}"
        if path.exists():
            with filelock.FileLock(path):
                remove_file(path)

    def _files(self, name: str) -> dict[str, Path]:
        """Entry's key -> the file of a claim's rows."""
        paths = [file.path for file in files_of(self.folder, CLAIM) if file.path.name.startswith(name)]
        return {path.name.removesuffix(CLAIM).partition("-")[2]: path for path in paths}

    def _remove(self, name: str) -> None:
        for path in self._files(name).values():
            remove_file(path)


def _write(file: BinaryIO, *, content: bytes) -> None:
    file.write(content)


def _read(path: Path) -> np.ndarray | None:
    """The ids in a claim's file; None of one that is damaged or gone: at worst its rows are computed twice."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if zlib.crc32(content[:-4]) != int.from_bytes(content[-4:], "little") or len(content) % np.dtype(ID).itemsize != 4:
        return None
    return np.frombuffer(content[:-4], ID)
