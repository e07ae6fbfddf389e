"""Heads that are trained at once: each ends as it does alone, and goes on after a kill."""

import contextlib

import keras
import numpy as np
import pytest
from support import Interrupt
from tiny import inputs_of, make_dataset, tiny_classifier, values, without_seconds

from ktl.errors import DivergedError
from ktl.models.recipe import Recipe
from ktl.progress import Reporter
from ktl.training import together
from ktl.training.checkpoint import Checkpoint
from ktl.training.fit import fit
from ktl.training.together import Head, can_train_together, fit_together
from ktl.training.variables import trained_variables

LEARNS = {"learning_rate": 1e-2, "head_multiplier": 1.0}
STAYS = {"learning_rate": 1e-12}  # no epoch is better than the first
DIVERGES = {"learning_rate": 1e37}
DECAYS = {"learning_rate": 1e-3, "head_multiplier": 30.0, "weight_decay": 0.3, "label_smoothing": 0.1}

SETTINGS = {"epochs": 6, "patience": 2, "class_weight": "balanced", "objective": "macro_f1"}


@pytest.fixture(scope="module")
def make(tiny_backbone, tmp_path_factory):
    """A function that gives a classifier, frozen up to its new layers, and its features."""
    cache, dataset = tmp_path_factory.mktemp("cache"), make_dataset()

    def classifier_and_inputs(*, seed=0, **settings):
        classifier = tiny_classifier(tiny_backbone, seed=seed, **{"freeze_depth": "all", **settings})
        options = {"augmentation": "standard", "views": 2, "seed": seed}
        return classifier, inputs_of(classifier, dataset, cache_dir=cache, **options)

    return classifier_and_inputs


def head_of(classifier, recipe, folder, *, seed=0) -> Head:
    initial = values(trained_variables(classifier))
    return Head(recipe=Recipe(**recipe), seed=seed, initial=initial, checkpoint_dir=folder)


@pytest.mark.parametrize(
    ("settings", "optimizer", "recipes"),
    [
        ({"head": "kept"}, "adamw", [(LEARNS, 0), (DIVERGES, 0), (DECAYS, 1), (STAYS, 1)]),
        ({"head": "kept_beside", "hidden_units": 7}, "sgd", [(LEARNS, 0), (DECAYS, 1)]),
        ({"head": "kept_batchnorm"}, "adamw", [(DECAYS, 0), (LEARNS, 0)]),
        pytest.param({"head": "replaced"}, "adamw", [(LEARNS, 0), (DECAYS, 1)], marks=pytest.mark.long),
    ],
)
def test_each_head_ends_as_it_does_alone(make, tmp_path, settings, optimizer, recipes):
    check_that_each_ends_as_alone(make, tmp_path, settings, optimizer, recipes)


@pytest.mark.skipif(keras.config.backend() != "jax", reason="TensorFlow trains heads alone at once")
@pytest.mark.parametrize("memory", [0, 2**30])
def test_each_suffix_ends_as_it_does_alone(make, tmp_path, monkeypatch, memory):
    """From the disk, and from the memory of a device."""
    from ktl.backends import jax_features

    monkeypatch.setattr(jax_features, "free_bytes", lambda: memory)
    monkeypatch.setattr(together, "trains_together", lambda head_alone: True)
    settings = {"head": "kept", "freeze_depth": "block_relu"}
    recipes = [({**LEARNS, "learning_rate": 1e-3}, 0), (DIVERGES, 0), (DECAYS, 1), (STAYS, 1)]
    check_that_each_ends_as_alone(make, tmp_path, settings, "adamw", recipes)


def check_that_each_ends_as_alone(make, tmp_path, settings, optimizer, recipes):
    heads, alone = [], []
    for number, (recipe, seed) in enumerate(recipes):
        recipe = {"optimizer": optimizer, **recipe}
        own = {"scale": number + 1.0} if settings["head"] == "kept" else {}
        classifier, inputs = make(seed=seed, **settings, **own)
        heads.append(head_of(classifier, recipe, tmp_path / f"together-{number}", seed=seed))
        folder = tmp_path / f"alone-{number}"
        try:
            history = fit(classifier, inputs, recipe=Recipe(**recipe), checkpoint_dir=folder, **SETTINGS)
        except DivergedError as error:
            history = error
        alone.append((history, folder))
    classifier, inputs = make(**settings)
    outcomes = fit_together(classifier, inputs, heads, **SETTINGS)
    for head, outcome, (history, folder) in zip(heads, outcomes, alone, strict=True):
        if isinstance(history, DivergedError):
            assert str(outcome) == str(history)
            continue
        assert len(outcome) == len(history)
        for row, expected in zip(without_seconds(outcome), without_seconds(history), strict=True):
            assert row == pytest.approx(expected, rel=1e-5, abs=1e-6)
        both = [Checkpoint(place, objective=SETTINGS["objective"]) for place in (head.checkpoint_dir, folder)]
        for read in (Checkpoint.read_best, Checkpoint.read_last):
            for value, expected in zip(*map(read, both), strict=True):
                np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


def test_a_head_does_not_notice_that_others_stop_and_leave(make, tmp_path):
    classifier, inputs = make(head="kept_raw")
    settings = {"epochs": 5, "patience": 1}
    heads = [
        head_of(classifier, recipe, tmp_path / f"{number}") for number, recipe in enumerate([STAYS] * 3 + [LEARNS])
    ]
    *stopped, outcome = fit_together(classifier, inputs, heads, **settings)
    assert [len(history) for history in stopped] == [2, 2, 2]
    (alone,) = fit_together(
        classifier, inputs, [head_of(make(head="kept_raw")[0], LEARNS, tmp_path / "alone")], **settings
    )
    assert len(outcome) == len(alone) > 2
    for row, expected in zip(without_seconds(outcome), without_seconds(alone), strict=True):
        assert row == pytest.approx(expected, rel=1e-5)


class Interrupting(Reporter):
    """Interrupts after some epochs of all heads."""

    def __init__(self, epochs: int):
        self.left, self.heard = epochs, []

    @contextlib.contextmanager
    def photos(self, task, total):
        def tell(done):
            self.left -= 1
            self.heard.append((task, done, total))
            if self.left == 0:
                raise Interrupt

        yield tell


def test_heads_go_on_after_a_kill_each_from_its_own_epoch(make, tmp_path, monkeypatch):
    monkeypatch.setattr(together, "WRITE_SECONDS", 0)
    monkeypatch.setattr(together, "WRITE_SHARE", float("inf"))
    classifier, inputs = make(head="kept_raw")
    recipes = [LEARNS, DECAYS, STAYS]

    def heads_in(name):
        return [head_of(classifier, recipe, tmp_path / name / f"{number}") for number, recipe in enumerate(recipes)]

    whole, parts = heads_in("whole"), heads_in("parts")
    expected = fit_together(classifier, inputs, whole, epochs=5, patience=2)
    fit_together(classifier, inputs, parts[:1], epochs=5, patience=2, stop_after=1)
    reporter = Interrupting(epochs=2)
    with pytest.raises(Interrupt):  # the first head is to wait for the two others, which begin
        fit_together(classifier, inputs, parts, epochs=5, patience=2, reporter=reporter)
    photos = inputs.photos_per_epoch
    assert reporter.heard == [("training 3 heads at once", done * photos, 14 * photos) for done in (2, 4)]
    histories = [Checkpoint(head.checkpoint_dir).history for head in parts]
    assert [len(history) for history in histories] == [1, 2, 2]
    found = fit_together(classifier, inputs, parts, epochs=5, patience=2)
    assert [len(history) for history in found] == [5, 5, 3]
    for history, before in zip(found, histories, strict=True):
        assert history[: len(before)] == before
    for rows, others in zip(found, expected, strict=True):
        for row, other in zip(without_seconds(rows), without_seconds(others), strict=True):
            assert row == pytest.approx(other, rel=1e-5)


def test_only_heads_on_features_with_all_else_frozen_are_trained_at_once(make, tiny_backbone, tmp_path):
    classifier, inputs = make()
    assert can_train_together(classifier, inputs, precision="float32")
    assert not can_train_together(classifier, inputs, precision="mixed_float16")
    assert not can_train_together(classifier, inputs_of(classifier), precision="float32")
    deeper = tiny_classifier(tiny_backbone, freeze_depth="block_relu")
    assert not can_train_together(deeper, inputs_of(deeper, cache_dir=tmp_path), precision="float32")
