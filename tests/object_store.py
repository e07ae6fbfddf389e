"""Places at URLs for tests: real servers of object stores on the loopback address, and this disk by `file://`.

Either is written and read here without ktl's code.
"""

import contextlib
import importlib.util
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support import free_port, until

S3, GS = "s3", "gs"

PACKAGES = {S3: ("s3fs", "moto", "flask"), GS: ("gcsfs", "gcp_storage_emulator")}
"""Kind of store -> the client that ktl uses, and a server."""


def _needs(kind: str) -> pytest.MarkDecorator:
    lacking = [name for name in PACKAGES[kind] if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(lacking), reason=f"needs more packages: no {' and no '.join(lacking)}")


with_s3, with_gs = _needs(S3), _needs(GS)


@contextlib.contextmanager
def _server(*program: str, address: str, variables: Mapping[str, str]) -> Iterator[None]:
    """A Python program that answers at an address; inside, this process and those that it starts have the variables."""
    server = subprocess.Popen([sys.executable, "-m", *program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(address), limit=60)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            yield
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def s3_server() -> Iterator[None]:
    """moto's S3 server, found by the environment."""
    port = f"{free_port()}"
    address = f"http://127.0.0.1:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    variables = {**keys, "AWS_ENDPOINT_URL": address}
    with _server("moto.server", "-H", "127.0.0.1", "-p", port, address=address, variables=variables):
        yield


@contextlib.contextmanager
def gs_server() -> Iterator[None]:
    """An emulator of Google's Cloud Storage, found by the environment."""
    port = f"{free_port()}"
    address = f"http://127.0.0.1:{port}"
    program = ("gcp_storage_emulator", "start", "--host", "127.0.0.1", "--port", port, "--in-memory")
    variables = {"STORAGE_EMULATOR_HOST": address, "GOOGLE_CLOUD_PROJECT": "tests"}
    with _server(*program, address=f"{address}/storage/v1/b?project=tests", variables=variables):
        yield


SERVERS = {S3: s3_server, GS: gs_server}


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


class S3Bucket(Place):
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


class GsBucket(Place):
    """A new bucket, as Google's own client sees it."""

    def __init__(self):
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        client = storage.Client(project="tests", credentials=AnonymousCredentials())
        self._bucket = client.create_bucket(f"bucket-{uuid.uuid4()}")
        self.url = f"gs://{self._bucket.name}"

    def put(self, name, content):
        self._bucket.blob(name).upload_from_string(content)
        return f"{self.url}/{name}"

    def get(self, name):
        return self._bucket.blob(name).download_as_bytes()

    def delete(self, name):
        self._bucket.blob(name).delete()

    def names(self, beginning=""):
        return [blob.name for blob in self._bucket.list_blobs(prefix=beginning)]


BUCKETS = {S3: S3Bucket, GS: GsBucket}


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
