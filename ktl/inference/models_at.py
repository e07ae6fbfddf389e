"""Models at URLs: copied to the user's cache folder, and copied again where they have changed."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ktl.arguments import path_of
from ktl.errors import UserError
from ktl.folders import cache_folder, make_folder
from ktl.names import is_url
from ktl.remote import RemoteFile, download, files_in

PARTS = ("", "assets", "variables", "best", "best/assets", "best/variables")
"""Folders that a model's files are in: of a run or an export, or of a search's best run. A run has more, for itself."""


def model_folder(path: str | os.PathLike) -> Path:
    """The folder of a model, or a copy of what is at its URL.

    Raises:
        UserError: there is nothing, or its server cannot be reached.
    """
    if not is_url(path):
        return path_of(path, argument="model")
    files = [file for file in files_in(path) if file.name.rpartition("/")[0] in PARTS]
    if not files:
        raise UserError(f"Expected the folder of a run that has ended, or of an export. Received: {path}, with no file")
    return _copied(path, files)


def _copied(url: str, files: Sequence[RemoteFile]) -> Path:
    models = cache_folder() / "models"
    make_folder(models, argument="model")
    name = _digest(url)
    copy = models / f"{name}-{_digest(repr(sorted((file.name, file.stamp) for file in files)))}"
    if copy.is_dir():
        return copy
    earlier = list(models.glob(f"{name}-*"))
    with tempfile.TemporaryDirectory(dir=models, prefix=".copying-") as partial:
        whole = Path(partial, "model")
        for file in files:
            target = whole / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            download(file.url, target)
        with contextlib.suppress(OSError):  # another process was quicker
            whole.rename(copy)
    for folder in earlier:
        shutil.rmtree(folder, ignore_errors=True)
    return copy


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
