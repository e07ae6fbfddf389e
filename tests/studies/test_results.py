"""result.json, from made-up runs."""

import dataclasses

import numpy as np
import pytest

from ktl.config.settings import StudyConfig
from ktl.data.dataset import Dataset
from ktl.data.imagenet_classes import synsets
from ktl.evaluation.intervals import accuracy_interval, wilson_interval
from ktl.studies.comparison import noises_of
from ktl.studies.conclusions import Conclusions, conclude
from ktl.studies.design import Place, Tuned, tuned_settings
from ktl.studies.records import Cell, CellRun, Part
from ktl.studies.results import best_rows, chosen_of, chosen_run, tuned_row, values_of, zero_shot_result
from ktl.studies.zero_shot import ZeroShot

PHOTOS = 20


@pytest.fixture
def at_best() -> dict[str, list[CellRun]]:
    generator = np.random.default_rng(0)
    return {
        head: [
            CellRun(
                Cell(head, "all", 1e-3, 3.0, 1.0, seed),
                validation_top1=top1 + 0.01 * seed,
                validation_loss=1.0,
                cache="on",
                correct=generator.integers(2, size=PHOTOS).tolist(),
            )
            for seed in range(3)
        ]
        for head, top1 in (("kept", 0.5), ("replaced", 0.6))
    }


@pytest.fixture
def conclusions(at_best) -> Conclusions:
    return conclude([run for runs in at_best.values() for run in runs])


def test_the_heads_are_compared_with_the_replaced_layer(at_best, conclusions):
    kept, replaced = best_rows(conclusions)
    found = conclusions.answers["kept"]
    hits = {head: np.array([run.correct for run in runs], bool) for head, runs in at_best.items()}
    assert kept["difference"]["estimate"] == pytest.approx(hits["kept"].mean() - hits["replaced"].mean())
    assert kept["difference"] == dataclasses.asdict(found.difference)
    assert {name: kept[name] for name in ("p_value", "smallest", "photos_needed", "verdict", "limits", "choice")} == {
        name: getattr(found, name) for name in ("p_value", "smallest", "photos_needed", "verdict", "limits", "choice")
    }
    assert kept["test_top1"] == dataclasses.asdict(conclusions.tests[conclusions.best["kept"]])
    assert (replaced["difference"], replaced["verdict"]) == (None, "the baseline")
    assert (kept["head"], kept["freeze_depth"], kept["learning_rate"], kept["scale"]) == ("kept", "all", 1e-3, 3.0)


def test_without_the_replaced_layer_nothing_is_compared(at_best):
    (row,) = best_rows(conclude(at_best["kept"]))
    assert (row["difference"], row["verdict"]) == (None, "not compared")


def test_of_one_seed_the_interval_is_that_of_its_photos(at_best):
    row = best_rows(conclude([runs[0] for runs in at_best.values()]))[0]
    low, high = wilson_interval(np.mean(at_best["kept"][0].correct), PHOTOS)
    assert (row["test_top1"]["low"], row["test_top1"]["high"]) == pytest.approx((low, high))
    assert (row["difference"], row["verdict"]) == (None, "nothing can be said of one seed")


def test_the_best_head_by_validation_is_chosen(at_best, conclusions):
    best = chosen_run(conclusions)
    assert best is at_best["replaced"][0]
    assert chosen_of(best, command="train") == {
        "head": "replaced",
        "freeze_depth": "all",
        "learning_rate": 1e-3,
        "scale": 3.0,
        "head_multiplier": 10.0,
        "cache": "on",
        "command": "train",
    }


@pytest.mark.parametrize(("each", "refit"), [(5, " --refit off"), (6, "")])
def test_the_command_trains_without_the_refit_of_few_photos(at_best, each, refit):
    """What a study trains is never refitted; a run of few photos is."""
    photos, labels = np.zeros([2 * each, 4, 4, 3], np.uint8), np.arange(2 * each) % 2
    dataset = Dataset.from_arrays(photos, labels, validation=(photos[:2], labels[:2]), test=(photos[:2], labels[:2]))
    command = StudyConfig(dataset="photos").run_config(values_of(at_best["kept"][1], dataset)).command()
    assert command == f"python experiments/run.py --dataset photos --cache on --freeze-depth all{refit}"


def test_tuned_settings_say_where_and_whether_they_are_on_an_edge():
    lowest, *_ = tuned_settings("kept", pretrained=True)["learning_rate"]
    row = tuned_row(Part(shots=4), Place("kept", "a"), Tuned(lowest, 3.0), pretrained=True)
    assert row == {
        "head": "kept",
        "freeze_depth": "a",
        "learning_rate": lowest,
        "scale": 3.0,
        "head_multiplier": 10.0,
        "share": 1.0,
        "shots": 4,
        "edges": ["learning_rate"],
    }


def test_heads_are_scored_on_the_photos_that_the_untouched_layer_is_scored_on(at_best, conclusions):
    scores = ZeroShot(np.array([1, 4, 7]), 0.5, 0.75)
    known = {"boxer": (synsets()[5], synsets()[6])}
    result = zero_shot_result(scores, known, conclusions, dataset_classes=9)
    assert (result["classes"], result["dataset_classes"], result["photos"]) == (1, 9, 3)
    assert (result["top1"], result["restricted_top1"]) == (0.5, 0.75)
    for head, runs in at_best.items():
        hits = np.array([[run.correct[index] for index in (1, 4, 7)] for run in runs], bool)
        noise = noises_of(conclusions.groups, scores.chosen)[conclusions.best[head]]
        expected = accuracy_interval(hits, noise=noise)
        assert result["heads"][head] == pytest.approx(dataclasses.asdict(expected))
    assert result["synsets"] == {"boxer": [{"id": one.id, "name": one.name} for one in known["boxer"]]}
    assert zero_shot_result(None, known, conclusions, dataset_classes=9) is None
