"""Probes of what heads read, and the head that they choose."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
from support import Heard, Interrupt
from tiny import make_dataset

from ktl.config.settings import RunConfig, SearchConfig
from ktl.data.dataset import with_splits
from ktl.data.loading import load_dataset
from ktl.data.views import view_of
from ktl.evaluation.probe import fit_probe
from ktl.models.backbones import build_backbone
from ktl.runs.probes import CHOICE, probe_inputs
from ktl.runs.run import run, with_chosen_head
from ktl.runs.session import Session, classifier_of
from ktl.tuning.search import search


@pytest.fixture(scope="module")
def config(photo_folder, tiny_backbone, tmp_path_factory) -> RunConfig:
    return RunConfig(
        dataset=str(photo_folder),
        backbone=str(tiny_backbone),
        head="auto",
        epochs=1,
        batch_size=8,
        least_steps=1,
        cache_dir=str(tmp_path_factory.mktemp("cache")),
    )


@pytest.fixture(scope="module")
def choice(config) -> tuple[RunConfig, list[str]]:
    """The settings with the head that is chosen, and what was said of it."""
    listener = Heard()
    chosen = with_chosen_head(config, load_dataset(config.dataset), listener)
    return chosen, [text for text in listener.heard if text.startswith("head ")]


def side_by_side(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate([part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts], axis=1)


@pytest.mark.parametrize("cache", ["on", "off"])
def test_a_probe_reads_what_the_head_reads_of_the_plain_photos(config, cache):
    dataset = load_dataset(config.dataset)
    backbone = build_backbone(config.backbone)
    heads = ("kept", "kept_raw", "replaced", "kept_beside", "kept_softmax_beside")
    classifiers = {
        head: classifier_of(config, backbone, class_names=dataset.class_names, head=head, freeze_depth="none")
        for head in heads
    }
    settings = RunConfig.from_dict({**config.as_dict(), "cache": cache, "head": "kept"})
    inputs = probe_inputs(Session(settings, dataset), classifiers)
    assert {source: found.heads for source, found in inputs.items()} == {
        "logits": ("kept", "kept_raw"),
        "features": ("replaced",),
        "features_and_logits": ("kept_beside",),
        "features_and_probabilities": ("kept_softmax_beside",),
    }
    model = keras.Model(backbone.pixels, [backbone.features, backbone.logits])
    for split in dataset.splits:
        views = np.stack([view_of(split.read(index), size=42) for index in range(len(split))])
        features, logits = (np.asarray(values) for values in model.predict(views.astype("float32"), verbose=0))
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        found = {
            "features": features,
            "logits": logits,
            "features_and_logits": side_by_side(features, logits),
            "features_and_probabilities": side_by_side(features, exponentials),
        }
        for source, expected in found.items():
            np.testing.assert_allclose(inputs[source].rows[split.name], expected, rtol=1e-3, atol=1e-5)


def test_a_part_is_fitted_to_its_photos_alone(config):
    dataset = load_dataset(config.dataset)
    classifier = classifier_of(config, config.backbone, class_names=dataset.class_names, head="replaced")
    (found,) = probe_inputs(Session(config, dataset), {"replaced": classifier}).values()
    chosen = np.arange(0, len(dataset.train), 2)
    part = with_splits(dataset, {"train": dataset.train.take(chosen)})
    expected = fit_probe(found.rows["train"][chosen], dataset.train.labels[chosen])
    probe = found.fit(part)
    np.testing.assert_array_equal(probe.model.coef_, expected.model.coef_)
    right = expected.probabilities(found.rows["test"]).argmax(axis=1) == dataset.test.labels
    np.testing.assert_array_equal(found.hits(probe, "test"), right)


def test_the_head_of_the_lowest_cross_validated_loss_is_chosen_and_said(choice):
    chosen, (said,) = choice
    losses = dict(pair.split() for pair in said.partition(": ")[2].split(", "))
    assert set(losses) == set(CHOICE.values())
    assert chosen.head == min(losses, key=lambda head: float(losses[head]))
    assert said.startswith(f"head {chosen.head} for auto; cross-validated log loss of linear probes: ")
    assert with_chosen_head(chosen, load_dataset(chosen.dataset), Heard()) is chosen


def test_validation_and_test_photos_do_not_choose_the_head(config, choice):
    dataset, listener = load_dataset(config.dataset), Heard()
    others = {
        split.name: type(split)(**{**vars(split), "labels": np.zeros_like(split.labels)})
        for split in (dataset.validation, dataset.test)
    }
    with_chosen_head(config, with_splits(dataset, others), listener)
    assert [text for text in listener.heard if text.startswith("head ")] == choice[1]


def test_a_run_and_a_search_take_the_chosen_head(config, choice, tmp_path):
    expected = choice[0].head
    result = run(config, output=tmp_path / "run")
    assert result["settings"]["head"] == expected
    assert f"--head {expected}" in result["command"] or expected == "kept"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["head"] == "auto"
    assert run(config, output=tmp_path / "run") == result
    settings = {
        **config.as_dict(),
        "space": "learning_rate=0.001",
        "seeds": 1,
        "cache_dir": config.cache_dir,
    }
    found = search(SearchConfig.from_dict(settings), output=tmp_path / "search")
    assert found["settings"]["head"] == expected
    with open(tmp_path / "search" / "trials.csv", newline="") as file:
        assert {row["status"] for row in csv.DictReader(file)} == {"completed"}


class StopsAtHead(Heard):
    """Ends a run where its head is told, before anything is trained."""

    def message(self, text):
        super().message(text)
        if text.startswith("head "):
            raise Interrupt


@pytest.mark.parametrize("changes", [{"refit": "on"}, {"folds": 2}])
def test_photos_that_are_set_aside_first_choose_no_head_of_later_trainings(config, choice, tmp_path, changes):
    """The head is that of the training photos alone, also where later trainings have the validation photos too."""
    listener = StopsAtHead()
    with pytest.raises(Interrupt):
        run(dataclasses.replace(config, **changes), output=tmp_path / "run", verbose=listener)
    assert listener.heard[-1:] == choice[1]


def test_one_photo_a_class_chooses_nothing(config):
    dataset = make_dataset(6)
    listener = Heard()
    chosen = with_chosen_head(config, dataset, listener)
    assert chosen.head == next(iter(CHOICE.values()))
    assert f"head {chosen.head} for auto; a class has one photo: too few to choose" in listener.heard
