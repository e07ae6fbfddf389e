"""`ktl cache`: lists and removes what ktl made."""

import json
import subprocess
import sys

import pytest
from made_up_rows import KEY, entry_of, filled, ids_of

from ktl.cli.main import main
from ktl.features.folder import OLD_FILES, own_entries
from ktl.features.store import FeatureStore

OTHER = KEY[::-1]
IDS = ids_of(range(30))


@pytest.fixture
def cache(tmp_path):
    """A cache of two entries, a folder of version 0.1's, and somebody's own."""
    store = FeatureStore(tmp_path)
    for key in (KEY, OTHER):
        store.use(filled(store, IDS, key), IDS, of="flowers")
    old = tmp_path / ("f" * 32)
    old.mkdir()
    for name in OLD_FILES:
        (old / name).write_bytes(b"0" * 100)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "data.bin").write_bytes(b"mine")
    return tmp_path


def kib(cache) -> tuple[str, str]:
    """The sizes of an entry and of all three, as they are told; those of version 0.1 have 100 bytes a file."""
    first, second = (entry.size for entry in own_entries(cache))
    assert first == second > 1024
    return f"{first / 1024:.2f} KiB", f"{(2 * first + 100 * len(OLD_FILES)) / 1024:.2f} KiB"


def run(capsys, *arguments):
    code = main(["cache", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_list_shows_what_is_there_and_what_used_it(cache, capsys):
    size, whole = kib(cache)
    code, out, _ = run(capsys, "list", "--cache-dir", cache)
    assert code == 0
    (line,) = [line for line in out.splitlines() if OTHER[:12] in line]
    for part in ("made_up", "2 x 5 float32", "flowers", size):
        assert part in line
    assert "of version 0.1" in out
    assert out.splitlines()[-1] == f"3 entries, {whole}, in {cache}"


def test_list_as_json(cache, capsys):
    _, out, _ = run(capsys, "list", "--cache-dir", cache, "--json")
    found = json.loads(out)
    sizes = {entry.path.name: entry.size for entry in own_entries(cache)}
    assert {entry["name"]: entry["bytes"] for entry in found["entries"]} == sizes
    assert found["entries"][0]["datasets"] == ["flowers"]
    assert found["version_0_1"] == [{"name": "f" * 32, "bytes": 400}]
    assert found["bytes"] == sum(sizes.values()) + 400


def test_clear_removes_what_ktl_made_and_nothing_else(cache, capsys):
    _, whole = kib(cache)
    code, out, _ = run(capsys, "clear", "--cache-dir", cache)
    assert (code, out) == (0, f"removed 3 entries, {whole}, from {cache}\n")
    assert {path.name for path in cache.iterdir()} == {"thesis", ".claims"}
    assert (cache / "thesis" / "data.bin").read_bytes() == b"mine"


def test_clear_of_one_entry(cache, capsys):
    code, out, _ = run(capsys, "clear", OTHER[:6], "--cache-dir", cache)
    assert code == 0
    assert out.startswith("removed 1 entry, ")
    assert [entry.path.name for entry in own_entries(cache)] == [KEY]
    assert (cache / ("f" * 32)).exists()
    assert not entry_of(FeatureStore(cache)).lacks(IDS).any()


def test_an_empty_name_is_refused_as_every_flag_does(cache, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(capsys, "clear", "", "--cache-dir", cache)
    assert stopped.value.code == 2
    assert "expected a path or a name, received ''" in capsys.readouterr().err
    assert len(own_entries(cache)) == 2


@pytest.mark.parametrize("name", ["0", KEY[:5], "abcdef", "*"])
def test_a_name_that_is_none_is_refused(cache, capsys, name):
    code, out, err = run(capsys, "clear", name, "--cache-dir", cache)
    assert (code, out) == (2, "")
    assert err == f"ktl: Expected each entry to be one of: {KEY[:12]}, {OTHER[:12]}. Received: {name!r}\n" or (
        err == f"ktl: Expected each entry to be one of: {OTHER[:12]}, {KEY[:12]}. Received: {name!r}\n"
    )
    assert len(own_entries(cache)) == 2


def test_a_folder_that_is_not_there(tmp_path, capsys, monkeypatch):
    code, _, err = run(capsys, "list", "--cache-dir", tmp_path / "nowhere")
    assert (code, err) == (
        2,
        f"ktl: Expected --cache-dir to be a folder. Received: {tmp_path / 'nowhere'}, which is none\n",
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new"))
    for action in ("list", "clear"):
        assert run(capsys, action)[0] == 0
    assert not (tmp_path / "new" / "ktl").exists()


def test_it_does_not_load_tensorflow():
    code = "import sys, ktl.cli.cache; print({'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
