"""What lies at URLs: `s3://`, `gs://`, `hdfs://`, `https://` and all else that fsspec knows.

For the errors see `ktl.file_systems`.
"""

import contextlib
import datetime
import errno
import io
import os
import re
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ktl.errors import UserError
from ktl.file_systems import HTTP, S3, Unreachable, asked, meaning_of_error, protocol_of, reaching
from ktl.names import is_url

READERS = 16
"""How many files are read at the same time: most of the time of each is waiting."""

FLAT = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
"""Object stores: there are no folders to make, and to ask for one would make a bucket."""

BLOCK = 2**22
"""Bytes that are fetched at a time of a file that is read in a stream."""

_AT_ONCE = {protocol: {"max_concurrency": 1} for protocol in S3}
"""How a photo is read in one request: s3fs would ask for its size before."""

_ETAGS = ("ETag", "generation", "etag", "Content-MD5", "Digest")
_TIMES = ("LastModified", "updated", "mtime", "modified", "Last-Modified", "created")
"""What file systems call the mark of a file's content, and the time of its change."""


class RemoteFile(NamedTuple):
    """A file at a URL, as its server tells of it.

    Attributes:
        name: relative to the folder that was listed; empty of a file that was asked for by itself.
        url: where it is.
        size: bytes; None if the server does not say.
        stamp: its size, the mark of its content and the time of its change; empty if the server says neither.
    """

    name: str
    url: str
    size: int | None
    stamp: str


def joined(place: str | Path, name: str) -> str | Path:
    """What a name in a file or folder at a place means: a URL or an absolute path is itself."""
    if is_url(name) or os.path.isabs(name):
        return name if is_url(name) else Path(name)
    return f"{place.rstrip('/')}/{name}" if isinstance(place, str) else place / name


def parent_of(url: str) -> str:
    """The URL of the folder that a file is in."""
    return _path_of(url).rpartition("/")[0]


def name_of(url: str) -> str:
    """The last part of a URL's path."""
    return _path_of(url).rstrip("/").rpartition("/")[2]


def read_bytes(url: str) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: there is no such file.
        Unreachable: the server cannot be reached.
    """
    return asked(url, lambda files: files.cat_file(url, **_AT_ONCE.get(protocol_of(url), {})))


def read_part(url: str, start: int, end: int) -> bytes:
    """The bytes of a file from one offset to another. Raises what `read_bytes` does."""
    return asked(url, lambda files: files.cat_file(url, start=start, end=end))


def read_parts(parts: Sequence[tuple[str, int, int]]) -> list[bytes | OSError]:
    """Parts of files on one server, asked for at the same time; see `read_part`.

    Args:
        parts: URL, and from which offset to which.

    Returns:
        The bytes of each part, or why they cannot be had. Those of a file that ends before are fewer.

    Raises:
        Unreachable: the server cannot be reached.
    """
    if not parts:
        return []
    urls, starts, ends = map(list, zip(*parts, strict=True))
    answers = asked(urls[0], lambda files: files.cat_ranges(urls, starts, ends, on_error="return"))
    return [_part(url, answer) for url, answer in zip(urls, answers, strict=True)]


def _part(url: str, answer: bytes | Exception) -> bytes | OSError:
    if not isinstance(answer, Exception):
        return answer
    error = meaning_of_error(url, answer)
    if not isinstance(error, OSError):
        raise error from answer
    return error


def read_lines(url: str) -> Iterator[bytes]:
    """The lines of a file with their ends, read in a stream. Raises what `read_bytes` does."""
    block = 0 if protocol_of(url) in HTTP else BLOCK  # many web servers give no parts of a file
    if can_be_listed(url):
        file_at(url)  # a folder would be read as an empty file
    opened: BinaryIO = asked(url, lambda files: files.open(url, "rb", block_size=block))
    with reaching(url), contextlib.closing(io.BufferedReader(opened, BLOCK)) as file:  # pyright: ignore[reportArgumentType]
        yield from file


def file_at(url: str) -> RemoteFile:
    """What the server says of a file. Raises what `read_bytes` does."""
    info = asked(url, lambda files: files.info(url))
    if info["type"] == "directory":
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    return RemoteFile("", url, info.get("size"), _stamp(info))


def can_be_listed(url: str) -> bool:
    """Whether there may be folders at a URL."""
    return protocol_of(url) not in HTTP


def files_at(urls: Sequence[str]) -> list[RemoteFile | None]:
    """What servers say of files, several at the same time; None of one that is not there. Raises Unreachable."""

    def found(url: str) -> RemoteFile | None:
        try:
            return file_at(url)
        except OSError:
            return None

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(found, urls))


def files_in(url: str) -> list[RemoteFile]:
    """The files at any depth of a folder; none of one that is not there.

    Raises:
        Unreachable: the server cannot be reached, or lists no files.
    """
    if not can_be_listed(url):
        raise Unreachable(f"Expected a URL whose files can be listed, as of s3:// or gs://. Received: {url}")
    try:
        found = asked(url, lambda files: (files._strip_protocol(url), files.find(url, detail=True)))
    except FileNotFoundError:  # no such bucket
        return []
    root, files = found
    return [
        RemoteFile(name, joined_url(url, name), info.get("size"), _stamp(info))
        for path, info in files.items()
        if (name := path.removeprefix(root.rstrip("/")).lstrip("/")) and not path.endswith("/")
    ]


def joined_url(url: str, name: str) -> str:
    """The URL of what has a name in a folder."""
    return f"{url.rstrip('/')}/{name}"


def download(url: str, path: Path) -> None:
    """Copies a file to this disk; a kill leaves it half. Raises what `read_bytes` does, and OSError of a full disk."""
    asked(url, lambda files: files.get_file(url, str(path)))


def upload(path: Path, url: str) -> None:
    """Copies a file of this disk to a URL, where it is seen once it is whole.

    Raises:
        Unreachable: it cannot be written there.
    """
    require_writable(url)
    try:
        if protocol_of(url) in FLAT:
            asked(url, lambda files: files.put_file(str(path), url))
        else:
            _put_in_folder(path, url)
    except FileNotFoundError as error:
        raise Unreachable(f"Expected {url} to be written to. Received: no such bucket or folder") from error


def _put_in_folder(path: Path, url: str) -> None:
    """Copies a file to where a kill would leave it half: under another name first."""
    partial = joined_url(parent_of(url), f".{name_of(url)}-{uuid.uuid4().hex[:8]}")
    asked(url, lambda files: files.makedirs(parent_of(url), exist_ok=True))
    asked(url, lambda files: files.put_file(str(path), partial))
    remove(url)  # not everywhere does a file that is moved take another's place
    asked(url, lambda files: files.mv(partial, url))


def remove(url: str) -> None:
    """Removes a file, if it is there. Raises Unreachable."""
    with contextlib.suppress(FileNotFoundError):
        asked(url, lambda files: files.rm_file(url))


def require_writable(url: str, *, argument: str = "output") -> None:
    """Raises UserError for a URL that files can only be read from."""
    if protocol_of(url) in HTTP:
        raise UserError(
            f"Expected `{argument}` as a folder, or a URL that files can be written to, as of s3:// or gs://. "
            f"Received: {url}"
        )


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder on this disk, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="ktl-") as folder:
        yield Path(folder)


def _path_of(url: str) -> str:
    """A URL without the question that is part of it, as of a signed one: elsewhere `?` is a sign like others."""
    return re.split("[?#]", url, maxsplit=1)[0] if protocol_of(url) in HTTP else url


def _stamp(info: dict[str, Any]) -> str:
    marks = [next((info[name] for name in names if info.get(name)), None) for names in (_ETAGS, _TIMES)]
    if marks == [None, None]:
        return ""
    mark, changed = marks
    if isinstance(changed, datetime.datetime):
        changed = int(changed.timestamp())  # some tell of more digits in lists than of one file
    return f"{info.get('size')} {mark} {changed}"
