"""What is said of heads that a linear probe outdoes."""

import pytest

from ktl.studies.conclusions import conclude
from ktl.studies.probes import ProbeRow, behind_probes
from ktl.studies.records import Cell, CellRun


def row(source: str, heads: list[str], top1: float, **part) -> ProbeRow:
    return {
        "source": source,
        "heads": heads,
        "share": 1.0,
        "shots": None,
        "penalties": [1.0],
        "converged": True,
        "validation_top1": 0.5,
        "test_top1": {"estimate": top1, "low": 0.0, "high": 1.0},
        **part,
    }


@pytest.fixture(scope="module")
def conclusions():
    """Of 100 test photos `kept` recognises 80 at its best depth and 10 at the other one; with 4 photos a class 60."""
    rights = {("kept", "a", None): 80, ("kept", "b", None): 10, ("kept", "a", 4): 60, ("replaced", "a", None): 50}
    rights |= {("replaced", "a", 4): 50}
    runs = [
        CellRun(
            Cell(head, depth, 1e-3, 3.0, 1.0, seed, shots=shots),
            validation_top1=0.9 if depth == "a" else 0.1,
            validation_loss=1.0,
            correct=[1] * right + [0] * (100 - right),
        )
        for (head, depth, shots), right in rights.items()
        for seed in range(2)
    ]
    return conclude(runs)


def test_a_head_whose_interval_ends_below_its_probe_is_told(conclusions):
    rows = [row("logits", ["kept"], 0.75), row("features", ["replaced"], 0.65), row("logits", ["kept"], 0.75, shots=4)]
    of_replaced, with_few = behind_probes(rows, conclusions)
    test = conclusions.tests[conclusions.best["replaced"]]
    assert of_replaced.startswith(
        f"WARNING: replaced with all photos is at 50.0 % ({100 * test.low:.1f} to {100 * test.high:.1f}), "
        "a linear probe of the same input at 65.0 %. "
    )
    assert with_few.startswith("WARNING: kept with 4 photos a class is at 60.0 % (")


def test_one_that_may_be_as_good_as_its_probe_is_not(conclusions):
    assert behind_probes([row("logits", ["kept", "replaced"], 0.55)], conclusions) == []
    assert behind_probes([], conclusions) == []
