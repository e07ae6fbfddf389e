"""Early stopping whose state survives a kill at any moment."""

import contextlib
import json
import os

import keras
import numpy as np
import pytest
import support
from support import edit_json, one_line
from tiny import put_back

from ktl.errors import DamagedError, DivergedError, UserError
from ktl.training.checkpoint import Checkpoint, best_epoch


def row(epoch, top1, loss):
    return {"epoch": epoch, "validation_top1": top1, "validation_loss": loss}


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([(0.5, 1.0)], 1),
        ([(0.5, 1.0), (0.6, 2.0), (0.4, 0.1)], 2),  # top-1 before loss
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)], 2),  # then loss
        ([(0.5, 1.0), (0.5, 1.0)], 1),  # then the earlier one
    ],
)
def test_best_epoch(rows, best):
    assert best_epoch([row(i, *numbers) for i, numbers in enumerate(rows, 1)]) == best


@pytest.mark.parametrize(
    ("objective", "best"), [("top1", 2), ("log_loss", 3), ("mean_class_accuracy", 1), ("macro_f1", 3)]
)
def test_the_best_epoch_is_that_by_the_objective(objective, best):
    rows = [
        {**row(1, 0.5, 1.0), "validation_mean_class_accuracy": 0.9, "validation_macro_f1": 0.3},
        {**row(2, 0.6, 2.0), "validation_mean_class_accuracy": 0.8, "validation_macro_f1": 0.4},
        {**row(3, 0.4, 0.5), "validation_mean_class_accuracy": 0.7, "validation_macro_f1": 0.4},
    ]
    assert best_epoch(rows, objective) == best


def test_patience_and_the_weights_that_are_kept_follow_the_objective(model, tmp_path):
    """Top-1 rises while the loss does: by the loss the first epoch is the best."""
    checkpoint = checkpoint_of(model, tmp_path, patience=2, objective="log_loss")
    for epoch in range(3):
        assert not checkpoint.out_of_patience
        set_all(model, epoch)
        end_epoch(checkpoint, epoch, top1=0.1 * epoch, loss=1.0 + epoch)
    assert checkpoint.out_of_patience
    checkpoint.restore_best(model)
    assert all((np.array(variable) == 0).all() for variable in model.variables)


@pytest.fixture
def model():
    """Two kernels, and an optimizer with a momentum for each."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    return model


def set_all(model, number):
    put_back(model.variables, [np.full(v.shape, number) for v in model.variables])
    momenta = model.optimizer.variables[2:]
    put_back(momenta, [np.full(v.shape, -number) for v in momenta])


def checkpoint_of(model, folder, **arguments) -> Checkpoint:
    checkpoint = Checkpoint(str(folder), **arguments)
    checkpoint.set_model(model)
    return checkpoint


def end_epoch(checkpoint, epoch, *, top1=0.5, loss=1.0, training_loss=1.0):
    """An epoch counted from 0."""
    checkpoint.on_epoch_begin(epoch)
    logs = {"loss": training_loss, "top1": 0.5, "val_loss": loss, "val_log_loss": loss, "val_top1": top1}
    checkpoint.on_epoch_end(epoch, logs)


def test_files_of_others_in_the_folder_stay(model, tmp_path):
    """The folder is the caller's choice."""
    others = ("letter.txt", "best.npz", "my-last-1.npz", "weights.h5")
    for name in others:
        (tmp_path / name).write_text("mine")
    (tmp_path / "photos").mkdir()
    checkpoint = checkpoint_of(model, tmp_path)
    for epoch in range(3):
        end_epoch(checkpoint, epoch, top1=1 - 0.1 * epoch)
    assert set(os.listdir(tmp_path)) == {*others, "photos", "last-3.npz", "best-1.npz", "state.json"}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("call", range(1, 12))
def test_a_kill_at_any_file_operation_loses_no_more_than_the_epoch(model, tmp_path, monkeypatch, call):
    """Epochs whose weights are their number, killed at the n-th file that is put into place or removed."""
    calls = []

    def killed_at(function):
        def counted(*arguments):
            calls.append(function)
            if len(calls) == call:
                raise Killed
            return function(*arguments)

        return counted

    validation = [0.1, 0.3, 0.2, 0.4]
    checkpoint, complete = checkpoint_of(model, tmp_path), 0
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        for name in ("replace", "remove"):
            patch.setattr(os, name, killed_at(getattr(os, name)))
        for epoch, top1 in enumerate(validation):
            set_all(model, epoch + 1)
            end_epoch(checkpoint, epoch, top1=top1)
            complete = epoch + 1
    assert len(calls) == call
    set_all(model, 77)
    again = checkpoint_of(model, tmp_path)
    restored = again.restore(model)
    assert restored in (complete, complete + 1)
    assert [row["epoch"] for row in again.history] == list(range(1, restored + 1))
    if restored:
        np.testing.assert_array_equal(model.variables[0], np.full((2, 1), restored))
        np.testing.assert_array_equal(model.optimizer.variables[2], np.full((2, 1), -restored))
        again.restore_best(model)
        best = 1 + int(np.argmax(validation[:restored]))
        np.testing.assert_array_equal(model.variables[0], np.full((2, 1), best))
    else:
        np.testing.assert_array_equal(model.variables[0], np.full((2, 1), 77))


def test_the_state_says_its_format_and_a_later_one_is_refused(model, tmp_path):
    end_epoch(checkpoint_of(model, tmp_path), 0)
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["format_version"] == 1
    assert [row["epoch"] for row in state["history"]] == [1]
    (tmp_path / "state.json").write_text(json.dumps({**state, "format_version": 2}))
    with pytest.raises(UserError, match=r"^Expected format_version 1 or below. Received: 2"):
        Checkpoint(str(tmp_path))


@pytest.mark.parametrize(("patience", "epochs"), [(2, 4), (0, 9)])
def test_patience_counts_epochs_since_the_best(model, tmp_path, patience, epochs):
    """The second epoch of these is the best."""
    model.stop_training = False
    checkpoint = checkpoint_of(model, tmp_path, patience=patience)
    for epoch in range(9):
        end_epoch(checkpoint, epoch, top1=0.6 if epoch == 1 else 0.5)
        if model.stop_training:
            break
    assert len(checkpoint.history) == epochs
    assert checkpoint.out_of_patience is model.stop_training is (patience > 0)
    assert Checkpoint(str(tmp_path), patience=patience).out_of_patience is (patience > 0)


def test_what_another_callback_has_asked_for_stays(model, tmp_path):
    model.stop_training = True
    end_epoch(checkpoint_of(model, tmp_path, patience=5), 0)
    assert model.stop_training is True


@pytest.mark.parametrize("bad", [{"loss": float("nan")}, {"training_loss": float("inf")}])
def test_a_loss_that_is_not_finite_is_no_epoch(model, tmp_path, bad):
    checkpoint = checkpoint_of(model, tmp_path)
    end_epoch(checkpoint, 0)
    with pytest.raises(DivergedError, match=r"^Expected a finite loss. Received: (nan|inf) in epoch 2. Lower"):
        end_epoch(checkpoint, 1, **bad)
    assert len(Checkpoint(str(tmp_path)).history) == 1


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_model_that_diverged_gets_its_best_weights_or_those_from_before(model, tmp_path, epochs):
    checkpoint = checkpoint_of(model, tmp_path)
    set_all(model, 7)
    checkpoint.on_train_begin()
    for epoch in range(epochs):  # of which the first is the best
        set_all(model, epoch + 1)
        end_epoch(checkpoint, epoch, top1=0.5 - 0.1 * epoch)
    set_all(model, float("nan"))
    with pytest.raises(DivergedError):
        end_epoch(checkpoint, epochs, loss=float("nan"))
    np.testing.assert_array_equal(model.variables[0], np.full((2, 1), 1 if epochs else 7))


@pytest.mark.parametrize(("best", "left"), [(False, ["best-1.npz", "state.json"]), (True, ["state.json"])])
def test_what_is_forgotten_is_what_further_training_would_need(model, tmp_path, best, left):
    checkpoint = checkpoint_of(model, tmp_path)
    for epoch, top1 in enumerate((0.6, 0.5)):
        set_all(model, epoch + 1)
        end_epoch(checkpoint, epoch, top1=top1)
    assert sorted(os.listdir(tmp_path)) == ["best-1.npz", "last-2.npz", "state.json"]
    checkpoint.forget(best=best)
    assert sorted(os.listdir(tmp_path)) == left
    again = checkpoint_of(model, tmp_path)
    assert again.history == checkpoint.history
    if not best:
        again.restore_best(model)
        np.testing.assert_array_equal(model.variables[0], np.full((2, 1), 1))


# Damage


@pytest.fixture
def stopped(model, tmp_path):
    """The folder of three epochs, of which the second is the best."""
    checkpoint = checkpoint_of(model, tmp_path)
    for epoch in range(3):
        set_all(model, epoch + 1)
        end_epoch(checkpoint, epoch, top1=0.6 if epoch == 1 else 0.5)
    return tmp_path


def refusal(folder, model, *, name) -> None:
    """Going on is refused in one line, before anything is trained; it names the file, and the way on."""
    with pytest.raises(DamagedError) as caught:
        checkpoint_of(model, folder).restore(model)
    line = one_line(caught)
    assert f"Expected {folder / name} as ktl wrote it. Received: " in line
    assert f"Remove {folder}: then the same command begins this training anew" in line


DAMAGES = {
    **support.DAMAGES,
    "pickle": lambda content: support.pickled("0"),
    "flip": lambda content: content[:-30] + bytes([content[-30] ^ 1]) + content[-29:],
    "gone": None,
}


@pytest.mark.parametrize("name", ["last-3.npz", "best-2.npz", "state.json"])
def test_a_damaged_file_is_named_before_any_training(stopped, model, name):
    content = (stopped / name).read_bytes()
    for damage in DAMAGES.values() if name != "state.json" else list(DAMAGES.values())[:-1]:
        (stopped / name).unlink()
        if damage:
            (stopped / name).write_bytes(damage(content))
        refusal(stopped, model, name=name)


def test_weights_of_another_training_are_not_taken(stopped, model):
    """Whole files of the same shapes, under the names that the state says."""
    content = (stopped / "last-3.npz").read_bytes()
    (stopped / "best-2.npz").write_bytes(content)
    refusal(stopped, model, name="best-2.npz")


@pytest.mark.parametrize(
    "edit",
    [
        {"history": None},
        {"history": []},
        {"history": [1]},
        {"history": {}},
        {"stopped": "no"},
        {"weights": None},
        {"weights": {}},
        {"weights": {"last-3.npz": 5, "best-2.npz": "a"}},
    ],
    ids=str,
)
def test_an_edited_state_is_named(stopped, model, edit):
    edit_json(stopped / "state.json", **edit)
    refusal(stopped, model, name="state.json")


def test_a_history_that_was_edited_is_named(stopped, model):
    rows = json.loads((stopped / "state.json").read_text())["history"]
    first, *others = rows
    for history in (
        rows[:2],
        rows[1:],
        [{**first, "loss": float("nan")}, *others],
        [{**first, "validation_top1": None}, *others],
        [{name: first[name] for name in first if name != "validation_loss"}, *others],
        [{**first, "validation_top1": 0.9}, *others],  # another best epoch, whose weights are not there
        [{**first, "epoch": 2}, *others],
    ):
        edit_json(stopped / "state.json", history=history)
        refusal(stopped, model, name="state.json")


def test_a_state_without_what_the_objective_goes_by_is_named(stopped):
    with pytest.raises(DamagedError, match=r"state\.json as ktl wrote it\. Received: a file without 'validation_macro"):
        Checkpoint(str(stopped), objective="macro_f1")


def test_the_best_of_no_training_is_refused(model, tmp_path):
    with pytest.raises(DamagedError, match=r"state\.json .* no such file\. Begin elsewhere$"):
        checkpoint_of(model, tmp_path, if_damaged="Begin elsewhere").restore_best(model)


def test_weights_of_another_network_are_named(stopped):
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    other.compile(keras.optimizers.SGD(momentum=0.9))
    other.optimizer.build(other.trainable_variables)
    refusal(stopped, other, name="last-3.npz")
