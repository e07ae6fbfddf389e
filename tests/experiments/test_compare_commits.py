"""experiments/compare_commits.py: it finds every kind of difference, and no other."""

import shutil

import numpy as np
import pytest
from support import REPOSITORY


@pytest.fixture
def differences(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "experiments")
    from compare_commits import differences

    return differences


@pytest.fixture
def works(tmp_path):
    """The folders of two commits that gave the same."""
    before, after = tmp_path / "before", tmp_path / "after"
    for folder in ("cache/entry", "run"):
        (before / folder).mkdir(parents=True)
    (before / "cache" / "entry" / "train.bin").write_bytes(b"features")
    (before / "run" / "history.csv").write_text("epoch,loss,seconds\n1,0.5,3\n2,0.25,3\n")
    np.savez(before / "run" / "probabilities.npz", test=np.array([[0.25, 0.75]]))
    shutil.copytree(before, after)
    return before, after


def test_nothing_differs_but_seconds_and_places_in_the_cache(differences, works):
    _, after = works
    (after / "run" / "history.csv").write_text("epoch,loss,seconds\n1,0.5,4\n2,0.25,5\n")
    (after / "cache" / "entry").rename(after / "cache" / "another")
    assert list(differences(*works)) == []


def test_a_number_of_a_table(differences, works):
    (works[1] / "run" / "history.csv").write_text("epoch,loss,seconds\n1,0.5,3\n2,0.2500001,3\n")
    assert list(differences(*works)) == ["run/history.csv: row 2, loss: 0.25 before, 0.2500001 after"]


def test_a_missing_row(differences, works):
    (works[1] / "run" / "history.csv").write_text("epoch,loss,seconds\n1,0.5,3\n")
    assert list(differences(*works)) == ["run/history.csv: 2 rows before, 1 after"]


def test_the_last_bit_of_a_probability(differences, works):
    changed = np.nextafter(np.array([[0.25, 0.75]]), 1)
    np.savez(works[1] / "run" / "probabilities.npz", test=changed)
    assert [line.split(":")[0] for line in differences(*works)] == ["run/probabilities.npz"]


def test_features_and_files_of_one_side(differences, works):
    (works[1] / "cache" / "entry" / "train.bin").write_bytes(b"others")
    (works[0] / "run" / "history.csv").unlink()
    found = list(differences(*works))
    assert [line.rsplit(" ", 1)[1] for line in found[:2]] in (["before", "after"], ["after", "before"])
    assert all(line.startswith("cache: features with digest ") for line in found[:2])
    assert found[2:] == ["run/history.csv: only after"]
