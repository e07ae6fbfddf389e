"""fsspec's file systems, asked for what lies at URLs, and what their errors mean.

fsspec is imported when something at a URL is first asked for. Of what a server says about one file an OSError is
raised, as of a file here; a server that cannot be reached, or asks for other credentials, is `Unreachable`, which ends
the work: else each photo of a million would be one that cannot be read.
"""

import contextlib
import errno
import functools
import importlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ktl.errors import UserError, reason_of

PACKAGES = 'pip install "ktl[cloud]"'
"""Brings what reads and writes `s3://`, `gs://` and `https://`."""

WAITS = (0.5, 2.0)
"""Seconds before the second and the third try over HTTP; the others' own clients try again themselves."""

HTTP = ("http", "https")
"""Files can be read there, and neither listed nor written."""

S3 = ("s3", "s3a")
"""Of s3fs."""

CONNECTIONS = 64
"""The most that are open to an S3 server at a time."""

for _package in ("fsspec", "s3fs", "gcsfs"):
    # Whoever has set up logging sees what they say, tracebacks too; nobody else, as Python would have it.
    logging.getLogger(_package).addHandler(logging.NullHandler())

_OUR_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

_Read = TypeVar("_Read")


class Unreachable(UserError):
    """What lies at a URL cannot be asked for or written now."""


def protocol_of(url: str) -> str:
    """What a URL begins with, as `s3`."""
    return url.partition("://")[0]


def asked(url: str, ask: Callable[[Any], _Read]) -> _Read:
    """What a file system answers; over HTTP it is asked again where it could not be reached."""
    for wait in WAITS if protocol_of(url) in HTTP else ():
        try:
            with reaching(url):
                return ask(_file_system(url))
        except Unreachable:
            time.sleep(wait)
    with reaching(url):
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
        options: dict[str, Any] = {}
        if protocol in S3:  # ten by default: a batch of rows would be read ten at a time
            options = {"config_kwargs": {"max_pool_connections": CONNECTIONS}}
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
def reaching(url: str) -> Iterator[None]:
    """Errors of a file system inside are ours, see `meaning_of_error`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each file system has types of its own
        raise meaning_of_error(url, error) from error


def meaning_of_error(url: str, error: Exception) -> Exception:
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
