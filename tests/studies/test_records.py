import dataclasses
import json

import pytest

from ktl.studies.records import Cell, CellRun, Part

CELL = Cell("kept", "block_relu", learning_rate=3e-4, scale=10.0, share=0.25, seed=4)


@pytest.mark.parametrize("correct", [None, [1, 0, 1]])
def test_a_record_survives_its_file(correct):
    run = CellRun(
        CELL,
        validation_top1=0.5,
        validation_loss=1.25,
        epochs=2,
        converged=1,
        seconds=3.5,
        history=[0.4, 0.5],
        cache="on",
        bad_photos=["a.jpg"],
        correct=correct,
    )
    values = json.loads(json.dumps(run.to_json()))
    assert CellRun.from_json(values) == run
    assert ("correct" in values) == (correct is not None)
    assert values["learning_rate"] == 3e-4


def test_a_cell_is_named_by_all_that_it_is():
    assert CELL.name == "kept-block_relu-0.0003-10-0.25-4-10"
    few = dataclasses.replace(CELL, share=1.0, shots=16, head_multiplier=30.0)
    assert few.name == "kept-block_relu-0.0003-10-1-4-30-16-shot"
    settings = {"head": "kept", "freeze_depth": "block_relu", "learning_rate": 3e-4, "scale": 10.0}
    assert CELL.values == {**settings, "head_multiplier": 10.0}


def test_a_record_of_version_0_1_has_neither_multiplier_nor_shots():
    values = CellRun(CELL).to_json()
    del values["head_multiplier"], values["shots"]
    assert CellRun.from_json(values).cell == CELL


def test_the_test_score_is_the_share_of_photos_that_were_recognised():
    assert CellRun(CELL, correct=[1, 0, 0, 1]).test_top1 == 0.5


def test_parts_are_named_as_people_do():
    parts = (Part(), Part(0.25), Part(shots=1), Part(shots=4))
    assert [part.name for part in parts] == ["all photos", "share 0.25", "1 photo a class", "4 photos a class"]


def test_a_try_has_no_test_score():
    with pytest.raises(ValueError, match=r"scored test photos\. Received: a try, kept-block_relu"):
        CellRun(CELL).test_top1  # noqa: B018
