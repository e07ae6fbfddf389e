"""`ktl features`: settings as every command reads them, what it prints, and what it refuses in one line."""

import json

import pytest
from stored_features import rows_in

from ktl.cli.main import main


@pytest.fixture
def features(tiny_backbone, photo_folder, tmp_path, capsys):
    def features(*arguments):
        given = ("--dataset", photo_folder, "--backbone", tiny_backbone, "--cache-dir", tmp_path / "cache")
        code = main(["features", *map(str, (*given, *arguments))])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return features


def test_all_photos_and_what_was_done(features, tmp_path):
    (tmp_path / "run.toml").write_text('freeze_depth = "block_relu"\nviews = 2\nlearning_rate = 0.5\n')
    code, out, err = features("--config", tmp_path / "run.toml")
    assert code == 0
    first, *rest = out.splitlines()
    assert first.startswith("stripes: 72 photos, 0 were there, 72 computed, ")
    size = f"{(54 * 2 + 18) * 11 * 11 * 16 * 4 / 1024:.0f} KiB"  # two views of each training photo
    assert rest == ["block_relu: 11 x 11 x 16 float32", f"{size} in {tmp_path / 'cache'}"]
    assert f"features take {size}" in err
    code, out, err = features("--config", tmp_path / "run.toml")
    assert (code, out.splitlines()[0]) == (0, "stripes: 72 photos, 72 were there, 0 computed")
    assert "72 of 72 photos are there" in err


def test_a_portion_as_json(features, tmp_path):
    found = []
    for portion in ("1/2", "2/2"):
        code, out, _ = features("--freeze-depth", "all", "--augmentation", "none", "--shard", portion, "--json")
        assert code == 0
        found.append(json.loads(out))
    assert [one["shard"] for one in found] == ["1/2", "2/2"]
    assert sum(one["computed"] for one in found) == sum(one["photos"] for one in found) == 72
    (rows,) = rows_in(tmp_path / "cache").values()
    assert (len(rows), found[1]["bytes"]) == (72, 72 * 20 * 4)
    assert (found[0]["features"], found[0]["dtype"], found[0]["bad_photos"]) == ({"predictions": [20]}, "float32", [])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--shard", "0/0"], "Expected --shard as NUMBER/COUNT, counted from 1"),
        (["--shard", "5/4"], "Expected --shard as NUMBER/COUNT, counted from 1"),
        (["--freeze-depth", "none"], "Expected --freeze-depth to freeze something"),
        (["--cache", "off"], "Expected --cache auto or on"),
        (["--cache-limit", "0.0001"], "Expected --cache-limit of 0.002 GiB or more"),
    ],
)
def test_bad_input_is_one_line(features, arguments, line):
    code, out, err = features(*arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"ktl: {line}")
