"""Places at URLs for tests: a real S3 server on the loopback address, and this disk by `file://`.

Either is written and read here without ktl's code.
"""

import contextlib
import importlib.util
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import free_port, until

LACKING = [name for name in ("s3fs", "moto", "flask") if importlib.util.find_spec(name) is None]

with_s3 = pytest.mark.skipif(
    bool(LACKING), reason=f"needs the extra cloud and moto's server: no {' and no '.join(LACKING)}"
)

VARIABLES = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The server's address; inside, this process and those that it starts find it in their environment."""
    address = f"http://127.0.0.1:{free_port()}"
    host, _, port = address.removeprefix("http://").partition(":")
    program = [sys.executable, "-m", "moto.server", "-H", host, "-p", port]
    server = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(address), limit=60)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**VARIABLES, "AWS_ENDPOINT_URL": address}.items():
                patch.setenv(name, value)
            yield address
    finally:
        server.kill()
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2):
            return True
    except OSError:
        return False


class Place:
    """A folder at a URL, by the names of its files."""

    url: str

    def put(self, name: str, content: bytes) -> str:
        """Writes a file; its URL."""
        raise NotImplementedError

    def get(self, name: str) -> bytes:
        raise NotImplementedError

    def delete(self, name: str) -> None:
        raise NotImplementedError

    def names(self, beginning: str = "") -> list[str]:
        raise NotImplementedError

    def put_folder(self, folder: Path, name: str) -> str:
        """Copies a folder of this disk; its URL."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"{self.url}/{name}"


class Bucket(Place):
    """A new bucket, as boto's own client sees it."""

    def __init__(self):
        import boto3

        self._name, self._client = f"bucket-{uuid.uuid4()}", boto3.client("s3")
        self.url = f"s3://{self._name}"
        self._client.create_bucket(Bucket=self._name)

    def put(self, name, content):
        self._client.put_object(Bucket=self._name, Key=name, Body=content)
        return f"{self.url}/{name}"

    def get(self, name):
        return self._client.get_object(Bucket=self._name, Key=name)["Body"].read()

    def delete(self, name):
        self._client.delete_object(Bucket=self._name, Key=name)

    def names(self, beginning=""):
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=beginning)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]


class Disk(Place):
    """A folder of this disk."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.url = f"file://{folder}"

    def put(self, name, content):
        (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self._folder / name).write_bytes(content)
        return f"{self.url}/{name}"

    def get(self, name):
        return (self._folder / name).read_bytes()

    def delete(self, name):
        (self._folder / name).unlink()

    def names(self, beginning=""):
        names = (path.relative_to(self._folder).as_posix() for path in self._folder.rglob("*") if path.is_file())
        return sorted(name for name in names if name.startswith(beginning))
