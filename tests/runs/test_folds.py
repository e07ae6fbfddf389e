"""Cross-validation that chooses the epoch, against trainings of the folds by hand."""

import json
import shutil

import keras
import numpy as np
import pytest
from support import Interrupt, Listener

import ktl
from ktl.data.loading import load_dataset
from ktl.data.pooling import crossed, folds_of, pooled
from ktl.evaluation import metrics
from ktl.runs.finished_run import read_run
from ktl.runs.folds import mean_history
from ktl.runs.session import Session
from ktl.training.checkpoint import best_epoch
from ktl.training.evaluate import predict_probabilities

pytestmark = pytest.mark.usefixtures("without_determinism_afterwards")

FOLDS, EPOCHS = 3, 3


@pytest.fixture(scope="module")
def settings(photo_folder, tiny_backbone, tmp_path_factory):
    return {
        "dataset": str(photo_folder),
        "backbone": str(tiny_backbone),
        "freeze_depth": "block_relu",
        "epochs": EPOCHS,
        "batch_size": 8,
        "least_steps": 1,
        "learning_rate": 0.01,
        "deterministic": True,
        "cache": "on",
        "cache_dir": str(tmp_path_factory.mktemp("cache")),
    }


class StopsIn(Listener):
    """Ends the work after an epoch of a fold."""

    def __init__(self, fold: int, epoch: int):
        super().__init__()
        self.fold, self.last = f"fold {fold} of", epoch

    def epoch(self, row):
        super().epoch(row)
        started = [text for text in self.messages if text.startswith("fold ")]
        if started[-1].startswith(self.fold) and row["epoch"] == self.last:
            raise Interrupt


@pytest.fixture(scope="module")
def crossed_run(settings, tmp_path_factory):
    """The folder and the result of a run that was stopped in its second fold and went on, and what was told before that
    and after. Do not write here."""
    path, before, after = tmp_path_factory.mktemp("crossed") / "run", StopsIn(2, 2), Listener()
    given = {**settings, "folds": FOLDS, "output": path}
    with pytest.raises(Interrupt):
        ktl.run(**given, verbose=before)
    assert not (path / "result.json").exists()
    with pytest.raises(ktl.UserError, match="folds 3 there, 0 here"):
        ktl.run(**{**given, "folds": 0}, verbose=0)
    return path, ktl.run(**given, verbose=after), (before, after)


class Answers(keras.callbacks.Callback):
    """For the validation photos after each epoch."""

    def __init__(self, training):
        super().__init__()
        self.training, self.found = training, []

    def on_epoch_end(self, epoch, logs=None):
        inputs = self.training.inputs
        batches = inputs.evaluation_batches(inputs.dataset.validation)
        self.found.append(predict_probabilities(inputs.trained_part(self.training.classifier), batches))


def test_it_is_what_trainings_of_the_folds_give(settings, crossed_run, tmp_path):
    """The mean of their curves, and the answers of each after that epoch for the photos that it left out."""
    path, result, _ = crossed_run
    config = ktl.RunConfig(**settings)
    histories, answers, labels = [], [], []
    for number, part in enumerate(folds_of(crossed(load_dataset(config.dataset)), FOLDS)):
        training = Session(config, part).prepare()
        answers.append(Answers(training))
        histories.append(training.fit(tmp_path / f"{number}", callbacks=[answers[-1]]))
        labels.append(part.validation.labels)
    top1, loss = (
        np.mean([[row[name] for row in history] for history in histories], axis=0)
        for name in ("validation_top1", "validation_loss")
    )
    epoch = 1 + max(range(EPOCHS), key=lambda index: (top1[index], -loss[index]))
    assert result["best_epoch"] == epoch
    expected, labels = np.concatenate([each.found[epoch - 1] for each in answers]), np.concatenate(labels)
    found = read_run(path).probabilities
    np.testing.assert_array_equal(found["validation_labels"], labels)
    np.testing.assert_allclose(found["validation"], expected, atol=1e-6)
    assert result["validation"] == pytest.approx(metrics.score(expected, labels))


def test_a_run_that_is_stopped_in_a_fold_goes_on_there(crossed_run):
    """The fold that had ended is not trained again; the next one begins."""
    path, _, (before, after) = crossed_run
    assert [row["epoch"] for row in before.rows] == [1, 2, 3, 1, 2]
    assert [row["epoch"] for row in after.rows] == [3, 1, 2, 3]
    assert not list(path.glob("checkpoint*"))


def test_the_model_is_trained_on_all_photos(crossed_run):
    _, result, _ = crossed_run
    photos = result["photos"]
    assert (photos["train"], photos["validation"], photos["test"]) == (54, 6, 12)
    assert result["refit"]["photos"] == 60
    assert result["refit"]["epochs"] == result["best_epoch"]
    assert result["settings"]["folds"] == FOLDS
    assert f"--folds {FOLDS}" in result["command"]


def test_all_trainings_share_one_pass(crossed_run):
    _, _, listeners = crossed_run
    tasks = [task for listener in listeners for task in listener.tasks if task[0] == "computing frozen layers"]
    assert tasks == [("computing frozen layers", 60 * 4 + 60 + 12)]


def test_the_model_is_the_refit_of_a_plain_run_up_to_that_epoch(settings, crossed_run, tmp_path):
    """The same photos in the same order: only the number of epochs was chosen otherwise."""
    path, result, _ = crossed_run
    config = ktl.RunConfig(**settings)
    training = Session(config, pooled(load_dataset(config.dataset))).prepare()
    training.fit(tmp_path, stop_after=result["best_epoch"], keep="last")
    batches = training.inputs.evaluation_batches(training.inputs.dataset.test)
    answers = predict_probabilities(training.inputs.trained_part(training.classifier), batches)
    np.testing.assert_allclose(read_run(path).probabilities["test"], answers, atol=1e-5)


def test_few_photos_of_all_folds_are_told(crossed_run):
    _, result, (_, listener) = crossed_run
    assert result["warnings"] == [text for text in listener.messages if text.startswith("WARNING")]
    assert "60 for validation" in result["warnings"][0]
    assert "--folds" not in result["warnings"][0]


def test_a_photo_that_cannot_be_read_is_in_no_fold(settings, photo_folder, tmp_path):
    photos = shutil.copytree(photo_folder, tmp_path / "photos")
    bad = load_dataset(str(photos)).train.photos[0]
    (photos / bad).write_bytes(b"no photo")
    given = {**settings, "dataset": str(photos), "epochs": 1, "on_bad_image": "skip", "folds": 2}
    result = ktl.run(**given, output=tmp_path / "run", verbose=0)
    assert [row["photo"] for row in result["bad_photos"]] == [bad]
    assert result["refit"]["photos"] == 59
    assert len(read_run(tmp_path / "run").probabilities["validation"]) == 59
    assert result["photos"] == {"train": 53, "validation": 6, "test": 12}


def test_the_mean_has_the_epochs_that_all_folds_had():
    rows = [
        {"epoch": 1, "validation_top1": 0.5, "validation_loss": 1.0, "seconds": 2.0},
        {"epoch": 2, "validation_top1": 0.75, "validation_loss": 0.5, "seconds": 3.0},
    ]
    other = [{"epoch": 1, "validation_top1": 1.0, "validation_loss": 2.0, "seconds": 4.0}]
    assert mean_history([rows, other]) == [
        {"epoch": 1, "validation_top1": 0.75, "validation_loss": 1.5, "seconds": 6.0}
    ]
    assert best_epoch(mean_history([rows, rows])) == 2
    assert json.dumps(mean_history([rows, other]))


def test_a_search_has_no_folds():
    with pytest.raises(ktl.UserError, match=r"^Expected `folds` to be 0 in a search\. Received: 2$"):
        ktl.SearchConfig(dataset="x", folds=2)
