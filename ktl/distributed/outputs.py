"""Where portions write to: a folder, or a URL to which each file is copied once it is whole."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ktl.arguments import path_of
from ktl.folders import make_folder
from ktl.names import is_url
from ktl.remote import download, files_in, joined_url, require_writable, scratch_folder, upload


class Output(Protocol):
    """Files by their names."""

    def names(self) -> set[str]:
        """Those that are there."""
        ...

    def place(self, name: str) -> Path | str:
        """What people call a file."""
        ...

    def reading(self, name: str) -> AbstractContextManager[Path]:
        """A file that is there, to be read in the block."""
        ...

    def writing(self, *names: str) -> AbstractContextManager[list[Path]]:
        """Where files are to be written in the block. When it has ended well they are there, the last one last."""
        ...


class FolderOutput:
    """A folder, which is made."""

    def __init__(self, folder: Path):
        make_folder(folder)
        self._folder = folder

    def names(self) -> set[str]:
        return set(os.listdir(self._folder))

    def place(self, name: str) -> Path:
        return self._folder / name

    def reading(self, name: str) -> AbstractContextManager[Path]:
        return contextlib.nullcontext(self.place(name))

    def writing(self, *names: str) -> AbstractContextManager[list[Path]]:
        return contextlib.nullcontext([self.place(name) for name in names])


class UrlOutput:
    """A folder at a URL; its files are read and written on this disk, and copied."""

    def __init__(self, url: str):
        require_writable(url)
        self._url = url

    def names(self) -> set[str]:
        return {file.name for file in files_in(self._url)}

    def place(self, name: str) -> str:
        return joined_url(self._url, name)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        with scratch_folder() as folder:
            download(self.place(name), folder / name)
            yield folder / name

    @contextlib.contextmanager
    def writing(self, *names: str) -> Iterator[list[Path]]:
        with scratch_folder() as folder:
            yield [folder / name for name in names]
            for name in names:
                upload(folder / name, self.place(name))


def open_output(output: str | os.PathLike) -> Output:
    """Where an `output` leads.

    Raises:
        UserError: nothing can be written there.
    """
    return UrlOutput(output) if is_url(output) else FolderOutput(path_of(output, argument="output"))
