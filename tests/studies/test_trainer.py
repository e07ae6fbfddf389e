"""Single runs of a study: those that fail, and those that are there already."""

import numpy as np
import pytest
import tensorflow as tf

from ktl.config.settings import StudyConfig
from ktl.data.loading import load_dataset
from ktl.errors import UserError
from ktl.progress import Reporter
from ktl.runs.session import Session, Training
from ktl.studies.records import Cell
from ktl.studies.study_folder import StudyFolder
from ktl.studies.trainer import CellTrainer

DIVERGES = Cell("replaced", "block_relu", learning_rate=1e30, scale=10.0, share=1.0, seed=3)
LEARNS = Cell("replaced", "all", learning_rate=1e-3, scale=3.0, share=1.0, seed=3)


class Listener(Reporter):
    def __init__(self):
        self.heard = []

    def message(self, text):
        self.heard.append(text)


@pytest.fixture
def trainer(photo_folder, tiny_backbone, tmp_path) -> CellTrainer:
    config = StudyConfig(
        dataset=str(photo_folder),
        backbone=str(tiny_backbone),
        epochs=2,
        batch_size=8,
        least_steps=1,
        cache_dir=str(tmp_path / "cache"),
    )
    session = Session(config, load_dataset(config.dataset))
    return CellTrainer(session, StudyFolder(tmp_path / "out", config), cost_of=lambda cell: 1.0, reporter=Listener())


def test_a_run_that_diverges_is_wrong_on_every_photo_and_stays_so(trainer):
    run = trainer.train(DIVERGES)
    assert run.failed.startswith("Expected a finite loss.")
    assert (run.validation_top1, run.validation_loss, run.epochs, list(run.history)) == (0, None, 0, [0])
    assert list(run.correct) == [0] * 12
    heard = len(trainer.reporter.heard)
    assert trainer.train(DIVERGES).to_json() == {**run.to_json(), "history": [0.0], "bad_photos": []}
    assert len(trainer.reporter.heard) == heard, "it is tried again"


def test_a_run_has_what_its_epochs_gave(trainer):
    (tried,), (run,) = trainer.try_all([LEARNS]), trainer.train_all([LEARNS])
    assert tried.correct is None
    assert tried.history == run.history
    assert (run.epochs, len(run.history), len(run.correct)) == (2, 2, 12)
    assert run.validation_top1 == max(run.history)
    assert np.isfinite(run.validation_loss)
    assert run.seconds > 0
    for line, kind in zip(trainer.reporter.heard, ("tries", "runs"), strict=True):
        assert line.startswith("1/1  replaced  all  rate 0.001  scale 3  share 1  seed 3  validation ")
        assert line.endswith(f"about 0 min of {kind} left")


@pytest.mark.parametrize("error", [MemoryError("no room"), tf.errors.ResourceExhaustedError(None, None, "no room")])
def test_a_run_for_which_there_is_no_memory_is_one_line(trainer, monkeypatch, error):
    """And not a network that knows nothing, which would be a difference between heads."""

    def fit(*arguments, **settings):
        raise error

    monkeypatch.setattr(Training, "fit", fit)
    with pytest.raises(UserError, match=r"Expected memory for replaced-all-0\.001-3-1-3-10"):
        trainer.train(LEARNS)
    assert trainer.try_out(LEARNS).validation_top1 == 0
