"""A file at a URL for those who read paths."""

from pathlib import Path

import pytest

from ktl import copies
from ktl.copies import local_file
from ktl.errors import UserError
from ktl.remote import RemoteFile


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def copied(url):
    """The path, and what is there."""
    with local_file(url, argument="weights") as path:
        return path, Path(path).read_bytes()


def read_badly(url):
    with local_file(url, argument="x") as path:
        raise UserError(f"Expected {path} to be good")


def test_it_is_copied_once_and_again_where_it_has_changed(place, monkeypatch):
    url = place.put("files/net_0.75.weights.h5", b"one")
    copy, content = copied(url)
    assert content == b"one"
    assert copy.endswith(".weights.h5")
    with monkeypatch.context() as patch:
        patch.setattr(copies, "download", None)
        assert copied(url) == (copy, b"one")
    place.put("files/net_0.75.weights.h5", b"other")
    assert copied(url)[1] == b"other"
    assert not Path(copy).exists()


def test_a_path_is_itself():
    with local_file("no/../such.h5", argument="weights") as path:
        assert path == "no/../such.h5"


def test_errors_name_the_url(place):
    url = place.put("net.h5", b"")
    with pytest.raises(UserError, match=f"^Expected {url} to be good"):
        read_badly(url)
    with pytest.raises(UserError, match=rf"^Expected `x` to be a file\. Received: {place.url}/none\.h5 \(No such"):
        read_badly(f"{place.url}/none.h5")


def test_where_a_server_does_not_tell_of_a_change_it_is_copied_each_time(place, monkeypatch):
    url = place.put("net.h5", b"one")
    told = copies.file_at
    monkeypatch.setattr(copies, "file_at", lambda url: RemoteFile(*told(url)[:3], ""))
    copy, content = copied(url)
    assert (content, copied(url)[0]) == (b"one", copy)
    place.put("net.h5", b"two")
    assert copied(url)[1] == b"two"
