"""Single runs of a study: those that fail, and those that are there already."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from support import Heard

from ktl.config.settings import StudyConfig
from ktl.data.loading import load_dataset
from ktl.errors import UserError
from ktl.runs.session import Session, Training
from ktl.studies.design import Rung
from ktl.studies.records import Cell, CellRun
from ktl.studies.study_folder import StudyFolder
from ktl.studies.trainer import CellTrainer

DIVERGES = Cell("replaced", "block_relu", learning_rate=1e30, scale=10.0, share=1.0, seed=3)
LEARNS = Cell("replaced", "all", learning_rate=1e-3, scale=3.0, share=1.0, seed=3)


@pytest.fixture
def trainer(photo_folder, tiny_backbone, tmp_path) -> CellTrainer:
    return make_trainer(photo_folder, tiny_backbone, tmp_path)


def make_trainer(photo_folder, tiny_backbone, tmp_path, *, name="out", at_once=True, **settings) -> CellTrainer:
    config = StudyConfig(
        dataset=str(photo_folder),
        backbone=str(tiny_backbone),
        epochs=2,
        batch_size=8,
        least_steps=1,
        cache_dir=str(tmp_path / "cache"),
        **settings,
    )
    session = Session(config, load_dataset(config.dataset))
    return CellTrainer(
        session,
        StudyFolder(tmp_path / name, config),
        cost_of=lambda cell: 1.0,
        trains_head_alone=lambda cell: at_once and cell.freeze_depth == "all",
        reporter=Heard(),
    )


def test_a_run_that_diverges_is_wrong_on_every_photo_and_stays_so(trainer):
    run = trainer.train(DIVERGES)
    assert run.failed.startswith("Expected a finite loss.")
    assert (run.validation_top1, run.validation_loss, run.epochs, list(run.history)) == (0, None, 0, [0])
    assert list(run.correct) == [0] * 12
    assert set(run.validation_correct) == {0}
    heard = len(trainer.reporter.heard)
    assert trainer.train(DIVERGES).to_json() == {**run.to_json(), "history": [0.0], "bad_photos": []}
    assert len(trainer.reporter.heard) == heard, "it is tried again"


def test_a_run_has_what_its_epochs_gave(trainer):
    (run,) = trainer.train_all([LEARNS])
    assert (run.epochs, len(run.history), len(run.correct)) == (2, 2, 12)
    assert run.validation_top1 == max(run.history)
    assert len(run.validation_correct) == len(trainer.session.dataset.validation)
    assert np.mean(run.validation_correct) == pytest.approx(run.validation_top1)
    assert np.isfinite(run.validation_loss)
    assert run.seconds > 0
    (line,) = trainer.reporter.heard
    assert line.startswith("1/1  replaced  all  rate 0.001  scale 3  multiplier 10  all photos  seed 3  validation ")
    assert line.endswith("about 0 min of runs left")


def test_tries_are_halved_by_validation_and_go_on_where_they_were(trainer, monkeypatch):
    monkeypatch.setattr("ktl.studies.trainer.RUNGS", (Rung(3, 1 / 2), Rung(1, 1)))
    tries = [dataclasses.replace(LEARNS, learning_rate=rate) for rate in (1e-6, 3e-3, 1e37)]
    (found,) = trainer.choose_all([tries])
    first = [trainer.folder.read_cell(cell, epochs=1) for cell in tries[:2]]
    best, other = sorted(first, key=lambda run: run.validation_loss)
    assert [(run.cell, run.epochs) for run in found] == [(best.cell, 2), (other.cell, 1), (tries[2], 0)]
    assert all(run.correct is None for run in found)
    assert found[0].history[:1] == best.history
    whole = trainer.train(best.cell)
    assert found[0].history == whole.history, "a try that went on differs from an uninterrupted run"
    assert not list(trainer.folder.path.rglob("checkpoint"))
    diverged, line = trainer.reporter.heard
    assert diverged.startswith(f"{tries[2].name} failed: Expected a finite loss.")
    rate = f"rate {best.cell.learning_rate:g}"
    assert line.startswith(f"1/1  replaced  all  {rate}  scale 3  multiplier 10  all photos  seed 3  validation ")
    assert line.endswith(", the best of 3 tries  about 0 min of tries left")
    assert trainer.choose(tries)[:2] == found[:2], "they are tried again"


def test_tries_are_given_up_by_their_loss_and_chosen_by_the_objective(trainer, monkeypatch):
    """Made-up tries: the one that recognised the most photos after an epoch has the highest loss."""
    monkeypatch.setattr("ktl.studies.trainer.RUNGS", (Rung(3, 1 / 2), Rung(2, 1)))
    tries = [dataclasses.replace(LEARNS, learning_rate=rate) for rate in (1e-3, 2e-3, 3e-3)]
    for epochs, scores in ((1, [(0.9, 1.5), (0.7, 0.5), (0.8, 0.7)]), (2, [(0.9, 0.9), (0.7, 0.3), (0.8, 0.4)])):
        for cell, (top1, loss) in zip(tries, scores, strict=True):
            made_up = CellRun(cell, validation_top1=top1, validation_loss=loss, epochs=epochs)
            trainer.folder.write_cell(made_up, epochs=epochs)
    found = trainer.choose(tries)
    assert [(run.cell.learning_rate, run.epochs) for run in found] == [(3e-3, 2), (2e-3, 2), (1e-3, 1)]


def test_tries_and_runs_at_once_give_what_they_give_one_by_one(photo_folder, tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.setattr("ktl.studies.trainer.RUNGS", (Rung(3, 1 / 2), Rung(2, 1)))
    head = dataclasses.replace(LEARNS, head="kept")
    tries = [dataclasses.replace(head, learning_rate=rate) for rate in (1e-3, 1e37, 1e-2)]
    runs = [
        dataclasses.replace(head, seed=seed, learning_rate=rate) for seed, rate in ((0, 1e-2), (1, 1e37), (1, 1e-2))
    ]
    found = []
    for at_once in (True, False):
        settings = {"name": f"at-once-{at_once}", "at_once": at_once, "cache": "on"}
        trainer = make_trainer(photo_folder, tiny_backbone, tmp_path, **settings)
        (tried,) = trainer.choose_all([tries])
        done = trainer.train_all(runs)
        assert not list(trainer.folder.path.rglob("checkpoint"))
        assert sum("failed" in line for line in trainer.reporter.heard) == 2  # a try, and a run
        found.append([*tried, *done])
    for run, alone in zip(*found, strict=True):
        ours, theirs = (json.loads(json.dumps(each.to_json())) for each in (run, alone))  # as they are read again
        losses = [values.pop("validation_loss") or 0.0 for values in (ours, theirs)]  # none of a run that failed
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert ours.pop("seconds") >= 0
        del theirs["seconds"]
        assert ours == theirs


def test_runs_at_once_that_were_killed_are_not_done_again(photo_folder, tiny_backbone, tmp_path, monkeypatch):
    trainer = make_trainer(photo_folder, tiny_backbone, tmp_path, cache="on")
    runs = [dataclasses.replace(LEARNS, seed=seed) for seed in (0, 1, 2)]
    write = StudyFolder.write_cell

    def interrupted(folder, run, **arguments):
        if run.cell == runs[1]:
            raise KeyboardInterrupt
        write(folder, run, **arguments)

    with monkeypatch.context() as patch:
        patch.setattr(StudyFolder, "write_cell", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.train_all(runs)
    (first,) = trainer.folder.path.rglob("run.json")
    states = {path: path.stat().st_mtime_ns for path in trainer.folder.path.rglob("state.json")}
    assert len(states) == 3
    written = first.read_text(), first.stat().st_mtime_ns
    seen = []
    monkeypatch.setattr("ktl.training.stacked.StackedHeads", lambda *arguments, **settings: seen.append(settings))
    done = trainer.train_all(runs)
    assert not seen, "epochs are trained again"
    assert (first.read_text(), first.stat().st_mtime_ns) == written
    assert [run.epochs for run in done] == [2, 2, 2]


@pytest.mark.parametrize("error", [MemoryError("no room"), tf.errors.ResourceExhaustedError(None, None, "no room")])
def test_a_run_for_which_there_is_no_memory_is_one_line(trainer, monkeypatch, error):
    """And not a network that knows nothing, which would be a difference between heads."""

    def fit(*arguments, **settings):
        raise error

    monkeypatch.setattr(Training, "fit", fit)
    with pytest.raises(UserError, match=r"Expected memory for replaced-all-0\.001-3-1-3-10"):
        trainer.train(LEARNS)
    assert trainer.try_out(LEARNS, epochs=1).validation_top1 == 0
