"""What lies at URLs: `s3://`, `gs://`, `hdfs://`, `https://` and all else that fsspec knows.

The one module that knows fsspec, which is imported when something at a URL is first asked for. Of what a server says
about one file an OSError is raised, as of a file here; a server that cannot be reached, or asks for other credentials,
is `Unreachable`, which ends the work: else each photo of a million would be one that cannot be read.
"""

import contextlib
import datetime
import errno
import functools
import importlib
import io
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from ktl.errors import UserError, reason_of
from ktl.names import is_url

PACKAGES = 'pip install "ktl[cloud]"'
"""Brings what reads and writes `s3://`, `gs://` and `https://`."""

READERS = 16
"""How many files are read at the same time: most of the time of each is waiting."""

WAITS = (0.5, 2.0)
"""Seconds before the second and the third try over HTTP; the others' own clients try again themselves."""

HTTP = ("http", "https")
"""Files can be read there, and neither listed nor written."""

FLAT = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
"""Object stores: there are no folders to make, and to ask for one would make a bucket."""

BLOCK = 2**22
"""Bytes that are fetched at a time of a file that is read in a stream."""

_AT_ONCE = {"s3": {"max_concurrency": 1}, "s3a": {"max_concurrency": 1}}
"""How a photo is read in one request: s3fs would ask for its size before."""

_ETAGS = ("ETag", "generation", "etag", "Content-MD5", "Digest")
_TIMES = ("LastModified", "updated", "mtime", "modified", "Last-Modified", "created")
"""What file systems call the mark of a file's content, and the time of its change."""

for _package in ("fsspec", "s3fs", "gcsfs"):
    # Whoever has set up logging sees what they say, tracebacks too; nobody else, as Python would have it.
    logging.getLogger(_package).addHandler(logging.NullHandler())

_OUR_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

_Read = TypeVar("_Read")


class Unreachable(UserError):
    """What lies at a URL cannot be asked for or written now."""


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
    return _asked(url, lambda files: files.cat_file(url, **_AT_ONCE.get(_protocol(url), {})))


def read_part(url: str, start: int, end: int) -> bytes:
    """The bytes of a file from one offset to another. Raises what `read_bytes` does."""
    return _asked(url, lambda files: files.cat_file(url, start=start, end=end))


def read_lines(url: str) -> Iterator[bytes]:
    """The lines of a file with their ends, read in a stream. Raises what `read_bytes` does."""
    block = 0 if _protocol(url) in HTTP else BLOCK  # many web servers give no parts of a file
    opened: BinaryIO = _asked(url, lambda files: files.open(url, "rb", block_size=block))
    with _reaching(url), contextlib.closing(io.BufferedReader(opened, BLOCK)) as file:  # pyright: ignore[reportArgumentType]
        yield from file


def file_at(url: str) -> RemoteFile:
    """What the server says of a file. Raises what `read_bytes` does."""
    info = _asked(url, lambda files: files.info(url))
    if info["type"] == "directory":
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    return RemoteFile("", url, info.get("size"), _stamp(info))


def can_be_listed(url: str) -> bool:
    """Whether there may be folders at a URL."""
    return _protocol(url) not in HTTP


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
        found = _asked(url, lambda files: (files._strip_protocol(url), files.find(url, detail=True)))
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
    _asked(url, lambda files: files.get_file(url, str(path)))


def upload(path: Path, url: str) -> None:
    """Copies a file of this disk to a URL; object stores show it once it is whole.

    Raises:
        Unreachable: it cannot be written there.
    """
    require_writable(url)
    if _protocol(url) not in FLAT:
        _asked(url, lambda files: files.makedirs(parent_of(url), exist_ok=True))
    try:
        _asked(url, lambda files: files.put_file(str(path), url))
    except FileNotFoundError as error:
        raise Unreachable(f"Expected {url} to be written to. Received: no such bucket or folder") from error


def remove(url: str) -> None:
    """Removes a file, if it is there. Raises Unreachable."""
    with contextlib.suppress(FileNotFoundError):
        _asked(url, lambda files: files.rm_file(url))


def require_writable(url: str, *, argument: str = "output") -> None:
    """Raises UserError for a URL that files can only be read from."""
    if _protocol(url) in HTTP:
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
    return re.split("[?#]", url, maxsplit=1)[0] if _protocol(url) in HTTP else url


def _protocol(url: str) -> str:
    return url.partition("://")[0]


def _asked(url: str, ask: Callable[[Any], _Read]) -> _Read:
    """What a file system answers; over HTTP it is asked again where it could not be reached."""
    for wait in WAITS if _protocol(url) in HTTP else ():
        try:
            with _reaching(url):
                return ask(_file_system(url))
        except Unreachable:
            time.sleep(wait)
    with _reaching(url):
        return ask(_file_system(url))


def _file_system(url: str) -> Any:
    protocol, _, rest = url.partition("://")
    # Over HTTP one serves all hosts.
    files = _opened(protocol, "" if protocol in HTTP else rest.partition("/")[0], os.getpid())
    if getattr(files, "local_file", False) and files.exists(url) and files.info(url)["type"] == "other":
        raise OSError(errno.EINVAL, "it is no regular file", url)  # of a pipe or a device one might wait without end
    return files


@functools.lru_cache(maxsize=64)
def _opened(protocol: str, host: str, process: int) -> Any:
    """fsspec's file system, for all threads of a process; its own memory of listings would hide what others write."""
    url = f"{protocol}://{host}"
    try:
        options = {}
        if protocol in HTTP:  # by default five minutes are the most that a file may take, however long
            timeout = importlib.import_module("aiohttp").ClientTimeout(total=None, sock_connect=30, sock_read=60)
            options = {"client_kwargs": {"timeout": timeout}}
        return importlib.import_module("fsspec").url_to_fs(url, use_listings_cache=False, **options)[0]
    except ImportError as error:
        raise UserError(
            f"Expected the packages for {protocol}://. Received: {reason_of(error)}. Install them: {PACKAGES}"
        ) from error
    except ValueError as error:
        raise UserError(f"Expected a URL of a kind that fsspec knows. Received: {url} ({reason_of(error)})") from error


@contextlib.contextmanager
def _reaching(url: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each file system has types of its own
        raise _meaning(url, error) from error


def _meaning(url: str, error: Exception) -> Exception:
    """An error of a file system as one of ours."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and type(cause).__module__.startswith("aiohttp"):
        error = cause if isinstance(cause, Exception) else error  # as fsspec says it of all that HTTP can end with
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError) or status in (404, 410):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    if isinstance(status, int) and 400 <= status < 500 and status not in (401, 407, 408, 425, 429):
        return OSError(errno.EACCES, f"the server's answer is {status}", url)
    if isinstance(error, OSError) and error.errno in (*_OUR_DISK, errno.EINVAL):
        return error
    reason = reason_of(error).rstrip(".")
    return Unreachable(
        f"Expected {url} to be reached. Received: {reason}. See to the network and the credentials, and repeat the "
        "command; what is complete is kept"
    )


def _stamp(info: dict[str, Any]) -> str:
    marks = [next((info[name] for name in names if info.get(name)), None) for names in (_ETAGS, _TIMES)]
    if marks == [None, None]:
        return ""
    mark, changed = marks
    if isinstance(changed, datetime.datetime):
        changed = int(changed.timestamp())  # some tell of more digits in lists than of one file
    return f"{info.get('size')} {mark} {changed}"
