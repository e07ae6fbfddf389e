import dataclasses
import json

import numpy as np
import pytest

from ktl.errors import UserError
from ktl.studies.conclusions import conclude
from ktl.studies.evidence import Evidence, read_evidence, recompute, write_evidence
from ktl.studies.records import Cell, CellRun

CLASSES = ("daisy", "rose")


@pytest.fixture
def evidence() -> Evidence:
    generator = np.random.default_rng(0)
    runs = [
        CellRun(
            Cell(head, "all", 1e-3, 3.0, share, seed, shots=shots),
            validation_top1=0.5 + 0.1 * seed,
            validation_loss=None if seed else 0.25,
            validation_correct=generator.integers(2, size=5).tolist(),
            epochs=7,
            history=[0.25, 0.5],
            correct=generator.integers(2, size=12).tolist(),
        )
        for head in ("kept", "replaced")
        for share, shots in ((1.0, None), (0.5, None), (1.0, 4))
        for seed in range(2)
    ]
    return Evidence([f"test/{n}.jpg" for n in range(12)], [CLASSES[n % 2] for n in range(12)], runs)


def test_it_survives_its_file(evidence, tmp_path):
    write_evidence(tmp_path, evidence)
    found = read_evidence(tmp_path)
    assert (found.photos, found.labels) == (evidence.photos, evidence.labels)
    for there, here in zip(found.runs, evidence.runs, strict=True):
        assert there.cell == here.cell
        assert (there.validation_top1, there.validation_loss) == (here.validation_top1, here.validation_loss)
        assert (there.correct, there.validation_correct) == (here.correct, here.validation_correct)


def test_the_best_depth_follows_from_it_whatever_it_was_chosen_by(tmp_path):
    """By log loss the depth with the lower accuracy."""
    runs = [
        CellRun(
            Cell("kept", depth, 1e-3, 3.0, 1.0, 0),
            objective="log_loss",
            validation_top1=top1,
            validation_loss=loss,
            validation_score=loss,
            correct=[1, 0],
        )
        for depth, top1, loss in (("a", 0.9, 0.5), ("b", 0.8, 0.3))
    ]
    write_evidence(tmp_path, Evidence(["1.jpg", "2.jpg"], CLASSES, runs))
    assert recompute(tmp_path).best["kept"].freeze_depth == "b"


def test_a_file_of_an_earlier_version_says_that_the_choice_is_not_counted(evidence, tmp_path):
    """Two freeze depths to choose from, and nothing about the validation photos."""
    elsewhere = [
        dataclasses.replace(run, cell=dataclasses.replace(run.cell, freeze_depth="b")) for run in evidence.runs
    ]
    both = dataclasses.replace(evidence, runs=[*evidence.runs, *elsewhere])
    write_evidence(tmp_path, both)
    assert "is not counted" not in recompute(tmp_path).answers["kept"].sentence
    values = json.loads((tmp_path / "correct.json").read_text())
    for row in values["runs"]:
        del row["validation_correct"], row["objective"], row["validation_score"]
    (tmp_path / "correct.json").write_text(json.dumps(values))
    found = recompute(tmp_path).answers["kept"]
    assert found.choice is None
    assert found.sentence.endswith("that other validation photos may choose other freeze depths is not counted")


def test_the_same_follows_from_it(evidence, tmp_path):
    write_evidence(tmp_path, evidence)
    found, expected = recompute(tmp_path), conclude(evidence.runs)
    assert (found.answers, found.comparisons, found.tests) == (
        expected.answers,
        expected.comparisons,
        expected.tests,
    )


def test_a_line_a_run_of_ones_and_zeros(evidence, tmp_path):
    write_evidence(tmp_path, evidence)
    lines = (tmp_path / "correct.json").read_text().splitlines()
    rows = [line for line in lines if '"head"' in line]
    assert len(rows) == len(evidence.runs)
    row = json.loads(rows[0].rstrip(","))
    assert row["correct"] == "".join(map(str, evidence.runs[0].correct))
    assert row["validation_correct"] == "".join(map(str, evidence.runs[0].validation_correct))
    assert "history" not in row
    assert len(lines) == len(rows) + 7
    assert json.loads((tmp_path / "correct.json").read_text())["format_version"] == 1


def test_photos_of_some_classes(evidence):
    assert evidence.photos_of({"rose": ...}).tolist() == [1, 3, 5, 7, 9, 11]


def test_a_folder_without_it_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"Expected a study that has ended, .*no .*correct\.json"):
        recompute(tmp_path)
