"""experiments/guide_table.py: its cells from made-up measurements, and that the docs have those of the stored ones."""

import json
import statistics

import numpy as np
import pytest
from support import REPOSITORY, run_script, script

from ktl.evaluation.differences import paired_difference

STORED = sorted((REPOSITORY / "experiments" / "results" / "guide").glob("*.json"))


@pytest.fixture(scope="module")
def guide_table():
    return script("guide_table")


def rows_of(way: str, hits: np.ndarray, **more) -> list[dict]:
    """Measurements of a seed a row of bool [seeds, photos]."""
    return [
        {
            "section": "guide",
            "way": way,
            "round": seed,
            "test_top1": float(row.mean()),
            "correct": "".join(map(str, row.astype(int))),
            "cpu_seconds": 10.0 + seed,
            "note": "kept",
            **more,
        }
        for seed, row in enumerate(hits)
    ]


def write(path, *rows) -> str:
    settings = {"dataset": "/photos/birds"}
    path.write_text(json.dumps({"settings": settings, "measured": [row for each in rows for row in each]}))
    return str(path)


def test_the_cells_are_means_spreads_and_paired_differences(guide_table, tmp_path):
    generator = np.random.default_rng(0)
    guide, run = (generator.random((3, 200)) < share for share in (0.7, 0.8))
    skipped = {"section": "guide", "way": "timm_fine_tuning", "round": 0, "note": "skipped"}
    measured = [rows_of("keras_guide", guide), rows_of("default_run", run, validation_top1=0.5), [skipped]]
    code, out, err = run_script(guide_table, write(tmp_path / "one.json", *measured))
    assert (code, err) == (0, "")
    header, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines()]
    assert len({len(header), *map(len, lines)}) == 1
    baseline, found = lines
    assert baseline[:2] == ["birds", "Keras guide"]
    assert baseline[3:] == ["", "", "11"]
    scores = 100 * run.mean(axis=1)
    assert found[2] == f"{scores.mean():.1f} ± {statistics.stdev(scores):.1f}"
    interval = paired_difference(run, guide).interval()
    estimate = 100 * (run.mean() - guide.mean())
    assert found[3] == f"{estimate:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
    assert found[4] == "50.0 ± 0.0"


def test_seeds_that_one_way_lacks_are_not_compared(guide_table, tmp_path):
    """Nor is a single one, nor what has no photos written down."""
    hits = np.random.default_rng(0).random((3, 100)) < 0.5
    without = [
        {name: value for name, value in row.items() if name != "correct"} for row in rows_of("chosen_head", hits)
    ]
    path = write(tmp_path / "one.json", rows_of("keras_guide", hits), rows_of("default_run", ~hits[:2]), without)
    _, _, _, run, chosen = run_script(guide_table, path)[1].splitlines()
    interval = paired_difference(~hits[:2], hits[:2]).interval()
    assert f" ({100 * interval.low:+.1f} to {100 * interval.high:+.1f}) |" in run
    assert "| birds | `--head auto`: `kept` 3 of 3 |" in chosen
    assert " to " not in chosen
    path = write(tmp_path / "two.json", rows_of("keras_guide", hits), rows_of("default_run", hits[:1]))
    assert " to " not in run_script(guide_table, path)[1].splitlines()[-1]


ROW = {"section": "guide", "way": "default_run", "round": 0, "test_top1": 0.5, "cpu_seconds": 1.0, "correct": "01"}


def file_of(*rows: dict) -> str:
    return json.dumps({"settings": {"dataset": "birds"}, "measured": rows})


OTHERS = {
    "empty": "",
    "a list": "[]",
    "an empty object": "{}",
    "no data set": '{"settings": {}, "measured": []}',
    "nothing of the guide": file_of({**ROW, "section": "start"}),
    "no seconds": file_of({name: value for name, value in ROW.items() if name != "cpu_seconds"}),
    "a text for a number": file_of({**ROW, "test_top1": "0.5"}),
    "other test photos": file_of(ROW, {**ROW, "way": "keras_guide", "correct": "010"}),
    "no file": None,
}


def test_the_least_that_a_file_has_to_have(guide_table, tmp_path):
    """Else the cases below would be refused for another reason."""
    (tmp_path / "one.json").write_text(file_of(ROW))
    assert run_script(guide_table, str(tmp_path / "one.json"))[0] == 0


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_another_file_is_one_line(guide_table, tmp_path, content):
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    code, out, err = run_script(guide_table, str(path))
    assert (code, out) == (2, "")
    assert err == f"guide_table.py: Expected a file that benchmark.py --sections guide --json wrote. Received: {path}\n"


def test_the_docs_have_the_table_of_what_is_stored(guide_table):
    assert STORED
    _, out, _ = run_script(guide_table, *map(str, STORED))
    assert out in (REPOSITORY / "docs" / "evidence.md").read_text()
