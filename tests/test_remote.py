"""What servers say, as the errors that ktl's callers know; a real S3 server, and Python's own for HTTP."""

import functools
import http.server
import os
import subprocess
import sys
import threading

import pytest
from support import REPOSITORY

from ktl import file_systems, remote
from ktl.data.loading import meaning_of
from ktl.errors import UserError
from ktl.names import is_url
from ktl.remote import Unreachable

pytest.importorskip("fsspec", reason="needs fsspec")
ASKED = {
    "bytes": remote.read_bytes,
    "part": lambda url: remote.read_part(url, 0, 3),
    "lines": lambda url: list(remote.read_lines(url)),
    "file": remote.file_at,
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s3://bucket/photos", True),
        ("https://example.org/a.jpg", True),
        ("file:///photos", True),
        ("s3:/bucket", False),
        ("s3://", False),
        ("photos/a://b", False),
        ("C://photos", False),
        (3, False),
        (None, False),
    ],
)
def test_is_url(name, expected):
    assert is_url(name) is expected


def test_a_name_in_a_list_means_what_it_says(tmp_path):
    assert remote.joined("s3://b/lists", "a/1.jpg") == "s3://b/lists/a/1.jpg"
    assert remote.joined("s3://b/lists", "gs://c/1.jpg") == "gs://c/1.jpg"
    assert remote.joined("s3://b/lists", "/photos/1.jpg") == remote.joined(tmp_path, "/photos/1.jpg")
    assert remote.joined(tmp_path, "a/1.jpg") == tmp_path / "a/1.jpg"


def test_the_question_of_a_signed_url_is_no_part_of_its_path():
    signed = "https://host/lists/photos.csv?token=a/b#c/d"
    assert (remote.parent_of(signed), remote.name_of(signed)) == ("https://host/lists", "photos.csv")
    assert remote.parent_of("s3://bucket/what?/photos.csv") == "s3://bucket/what?"
    assert meaning_of(signed).kind == "csv"
    assert meaning_of("s3://bucket/photos.csv?").kind == "folder"


def test_unknown_kinds_of_urls_are_one_line():
    with pytest.raises(UserError, match=r"^Expected a URL of a kind that fsspec knows\. Received: nokind://host \("):
        remote.read_bytes("nokind://host/a")


def test_a_missing_package_is_one_line(monkeypatch):
    def import_module(name):
        raise ModuleNotFoundError("No module named 'fsspec'")

    monkeypatch.setattr(file_systems.importlib, "import_module", import_module)
    with pytest.raises(UserError, match=r'^Expected the packages for sftp://\. .*pip install "ktl\[cloud\]"$'):
        remote.read_bytes("sftp://nowhere/a")


def test_what_packages_log_is_shown_to_nobody_who_has_not_asked():
    """gcsfs logs a traceback of each try."""
    program = "import logging, ktl.remote; logging.getLogger('gcsfs.retry').error('lost')"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    asking = program.replace("ktl.remote;", "ktl.remote; logging.basicConfig();")
    done = subprocess.run([sys.executable, "-c", asking], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.stderr == "ERROR:gcsfs.retry:lost\n"


@pytest.mark.parametrize("ask", ASKED)
def test_what_is_not_there_is_an_error_of_files(tmp_path, ask):
    with pytest.raises(FileNotFoundError):
        ASKED[ask](f"file://{tmp_path}/none.jpg")


@pytest.mark.parametrize("ask", ASKED)
def test_a_pipe_or_a_device_of_this_machine_is_not_read(tmp_path, ask):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(OSError, match="no regular file"):
            ASKED[ask](f"file://{path}")


class TestObjectStores:
    @pytest.mark.parametrize("ask", ASKED)
    @pytest.mark.parametrize("key", ["none.jpg", "a folder"])
    def test_what_is_not_there(self, bucket, ask, key):
        bucket.put("a folder/file", b"content")
        with pytest.raises(FileNotFoundError):
            ASKED[ask](f"{bucket.url}/{key}")
        with pytest.raises(FileNotFoundError):
            ASKED[ask](f"{bucket.url}-not/{key}")

    def test_files_are_listed_with_what_tells_of_a_change(self, bucket):
        url = bucket.put("listed/a b/ü.jpg", b"one")
        bucket.put("listed/folder/", b"")
        (found,) = remote.files_in(f"{bucket.url}/listed")
        assert (found.name, found.url, found.size) == ("a b/ü.jpg", url, 3)
        assert remote.file_at(url).stamp == found.stamp
        bucket.put("listed/a b/ü.jpg", b"two")
        assert remote.file_at(url).stamp != found.stamp
        assert remote.read_bytes(url) == b"two"
        assert remote.files_in(f"{bucket.url}-not/x") == remote.files_in(f"{bucket.url}/nothing") == []

    def test_upload(self, bucket, tmp_path):
        (tmp_path / "file").write_bytes(b"x" * 2**20)
        remote.upload(tmp_path / "file", f"{bucket.url}/up/file")
        assert bucket.get("up/file") == b"x" * 2**20
        with pytest.raises(Unreachable, match=rf"^Expected {bucket.url}-not/x to be written to\. Received: no such"):
            remote.upload(tmp_path / "file", f"{bucket.url}-not/x")

    def test_parts_of_several_files(self, bucket):
        urls = [bucket.put(name, content) for name, content in (("one", b"0123456789"), ("two", b"abcdefghij"))]
        *found, missing = remote.read_parts(
            [(urls[0], 2, 5), (urls[1], 0, 10), (urls[0], 8, 12), (f"{urls[0]}-", 0, 1)]
        )
        assert found == [b"234", b"abcdefghij", b"89"]
        assert isinstance(missing, FileNotFoundError)

    def test_a_long_list_is_read_in_a_stream(self, bucket):
        bucket.put("list.txt", b"".join(b"line %d\n" % number for number in range(10**6)))
        lines = remote.read_lines(f"{bucket.url}/list.txt")
        assert [next(lines) for _ in range(3)] == [b"line 0\n", b"line 1\n", b"line 2\n"]
        assert sum(1 for _ in lines) == 10**6 - 3


class Server(http.server.SimpleHTTPRequestHandler):
    """Python's own server of files, with answers of other kinds for names that ask for them."""

    def send_head(self):
        status = self.path.strip("/")
        if status.isdigit():
            self.send_error(int(status))
            return None
        return super().send_head()

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    pytest.importorskip("aiohttp", reason="needs the extra cloud: no aiohttp")
    folder = tmp_path_factory.mktemp("web")
    (folder / "a b.jpg").write_bytes(b"a photo")
    (folder / "list.txt").write_bytes(b"".join(b"line %d\n" % number for number in range(30_000)))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
class TestHttp:
    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch):
        monkeypatch.setattr(file_systems, "WAITS", (0.0,))

    def test_a_file(self, web):
        assert remote.read_bytes(f"{web}/a b.jpg") == b"a photo"
        assert remote.file_at(f"{web}/a b.jpg").size == 7

    @pytest.mark.parametrize("status", [400, 403, 404, 410])
    @pytest.mark.parametrize("ask", ASKED)
    def test_a_file_that_the_server_does_not_give(self, web, ask, status):
        with pytest.raises(OSError, match=r"No such file|the server's answer is"):
            ASKED[ask](f"{web}/{status}")

    @pytest.mark.parametrize("status", [401, 429, 500, 503])
    @pytest.mark.parametrize("ask", ASKED)
    def test_a_server_that_gives_nothing_now(self, web, ask, status):
        with pytest.raises(Unreachable, match=rf"^Expected {web}/{status} to be reached\. Received: {status}"):
            ASKED[ask](f"{web}/{status}")

    def test_lines_of_a_file_of_several_blocks(self, web, tmp_path, monkeypatch):
        """The server knows no ranges, as Python's does not."""
        monkeypatch.setattr(remote, "BLOCK", 2**16)
        lines = list(remote.read_lines(f"{web}/list.txt"))
        assert lines == [b"line %d\n" % number for number in range(30_000)]

    def test_nobody_is_there(self, web):
        with pytest.raises(Unreachable, match=r"^Expected http://127\.0\.0\.1:9/a\.jpg to be reached\. .* repeat the"):
            remote.read_bytes("http://127.0.0.1:9/a.jpg")

    def test_nothing_is_listed_or_written(self, web, tmp_path):
        with pytest.raises(UserError, match=r"^Expected a URL whose files can be listed"):
            remote.files_in(web)
        with pytest.raises(UserError, match=r"^Expected `output` as a folder, or a URL that files can be written to"):
            remote.upload(tmp_path, f"{web}/x")
