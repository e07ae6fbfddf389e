"""One session for all trainings that are compared: where the settings become values."""

import dataclasses
import re

import keras
import numpy as np
import pytest
from support import Listener, as_dataset
from tiny import CLASSES, make_photos, values, without_seconds

from ktl.config.settings import RunConfig, SearchConfig, StudyConfig
from ktl.data.loading import load_dataset
from ktl.errors import UserError
from ktl.models.backbones import build_backbone
from ktl.models.recipe import Recipe
from ktl.runs.session import Extras, Session, classifier_of, recipe_of
from ktl.studies.design import part_of
from ktl.studies.records import Part

pytestmark = pytest.mark.usefixtures("float32_policy")

pytestmark = pytest.mark.usefixtures("settled_photos")


@pytest.fixture
def dataset(photo_folder):
    return load_dataset(str(photo_folder))


@pytest.fixture
def config(tiny_backbone, tmp_path):
    def config(kind=RunConfig, **settings):
        defaults = {"dataset": "x", "backbone": str(tiny_backbone), "epochs": 2, "batch_size": 8, "cache": "off"}
        defaults["least_steps"] = 1
        if kind is not StudyConfig:
            defaults["freeze_depth"] = "block_relu"
        return kind(**{**defaults, "cache_dir": str(tmp_path / "cache"), **settings})

    return config


def test_a_training_has_the_settings_values(config, dataset):
    settings = {"head": "replaced_normalized", "scale": 7.0, "hidden_units": 5, "image_size": 42, "seed": 3}
    training = Session(config(**settings, augmentation="none", batch_size=9), dataset).prepare()
    classifier, inputs = training.classifier, training.inputs
    assert (classifier.class_names, classifier.head, classifier.image_size) == (CLASSES, "replaced_normalized", 42)
    assert classifier.boundary.name == "block_relu"
    np.testing.assert_array_equal(classifier.get_layer("head_normalization").gamma, np.full(24, 7.0))
    assert classifier.get_layer("head_hidden").units == 5
    assert (inputs.options.batch_size, inputs.options.seed, inputs.options.augmentation) == (9, 3, "none")
    assert not inputs.cached
    assert training.machine.precision == "float32"
    assert training.class_weight is None


@pytest.mark.parametrize("kind", [RunConfig, SearchConfig, StudyConfig])
def test_values_take_the_place_of_settings(config, dataset, kind):
    """A study has no head, rate, scale or depth of its own."""
    session = Session(config(kind), dataset)
    varied = {"head": "replaced", "freeze_depth": "all", "learning_rate": 0.5, "scale": 2.0}
    training = session.prepare(varied, seed=8)
    assert isinstance(training.config, RunConfig)
    assert type(training.config) is RunConfig
    assert {name: getattr(training.config, name) for name in varied} == varied
    assert (training.config.seed, training.config.epochs, training.config.batch_size) == (8, 2, 8)
    assert training.classifier.boundary is training.classifier.boundaries[-1]
    assert training.inputs.options.seed == 8
    with pytest.raises(UserError, match="head"):
        session.prepare({**varied, "head": "neck"})


def test_the_recipe_is_made_of_settings(config):
    settings = {"optimizer": "sgd", "learning_rate": 0.3, "head_multiplier": 2.0, "warmup_epochs": 0.5}
    settings |= {"weight_decay": 0.1, "label_smoothing": 0.2}
    assert recipe_of(config(**settings)) == Recipe(**settings)
    assert recipe_of(RunConfig(dataset="x")) == Recipe()


def test_trainings_of_one_session_do_not_depend_on_what_was_before(config, dataset, tmp_path):
    session, histories, heads = Session(config(), dataset), [], []
    for place, seed in enumerate((1, 2, 1)):
        training = session.prepare(seed=seed)
        heads.append(values(training.classifier.new_variables))
        histories.append(without_seconds(training.fit(tmp_path / str(place))))
        assert all("_" not in layer.name.removeprefix("head_") for layer in training.classifier.new_layers)
    assert histories[0] == histories[2] != histories[1]
    for one, other in zip(heads[0], heads[2], strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_pass_serves_all_trainings(config, dataset):
    listener = Listener()
    session = Session(config(SearchConfig, cache="on", augmentation="none"), dataset, trainings=6, reporter=listener)
    backbone = build_backbone(session.config.backbone)
    kept, replaced = (
        classifier_of(session.config, backbone, class_names=CLASSES, head=head, freeze_depth="none")
        for head in ("kept", "replaced")
    )
    session.compute_features([(kept, "stem_relu"), (kept, "all"), (replaced, "block_relu"), (replaced, "all")])
    assert [task for task, _ in listener.tasks] == ["reading photos", "checking photos", "computing frozen layers"]
    listener.tasks.clear()
    for values_of_one in (
        {"head": "kept", "freeze_depth": "stem_relu"},
        {"head": "kept", "freeze_depth": "all"},
        {"head": "kept", "freeze_depth": "block_relu"},
        {"head": "replaced", "freeze_depth": "all"},
    ):
        training = session.prepare({**values_of_one, "scale": 5.0}, seed=7)
        assert training.inputs.cached
        assert training.lasting_config.cache == "on"
    assert listener.tasks == []


def test_features_that_paid_for_many_trainings_are_in_the_settings_of_one(config, dataset):
    """For one it would not pay, and then the rounding errors would be others."""
    settings = {"cache": "auto", "epochs": 2, "views": 4, "freeze_depth": "all"}
    alone, shared = (Session(config(**settings), dataset, trainings=count).prepare() for count in (1, 10))
    assert [training.inputs.cached for training in (alone, shared)] == [False, True]
    assert [training.lasting_config.cache for training in (alone, shared)] == ["auto", "on"]
    assert dataclasses.replace(shared.lasting_config, cache="auto") == shared.config


def test_a_part_of_the_photos(config, dataset):
    listener = Listener()
    session = Session(config(cache="on", augmentation="none"), dataset, trainings=3, reporter=listener)
    part = part_of(dataset, Part(0.5), draw=0)
    session.prepare()
    listener.tasks.clear()
    training = session.on(part).prepare()
    assert training.inputs.dataset is part
    assert listener.tasks == []


def test_compiled_as_the_settings_say(config, dataset, tmp_path):
    settings = {"cache": "on", "augmentation": "none", "label_smoothing": 0.3}
    training = Session(config(**settings), dataset).prepare()
    part = training.compile()
    assert part is training.classifier.suffix
    batches = as_dataset(training.inputs.evaluation_batches(training.inputs.dataset.test))
    loss, top1, _ = part.evaluate(batches, verbose=0)
    logits = part.predict(batches, verbose=0).astype("float64")
    labels = training.inputs.dataset.test.labels
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    wanted = 0.7 * np.eye(6)[labels] + 0.3 / 6
    assert loss == pytest.approx(-(wanted * log_probabilities).sum(axis=1).mean(), rel=1e-4)
    assert top1 == pytest.approx(np.mean(logits.argmax(axis=1) == labels))


def test_other_variables_may_have_the_new_layers_rate(config, dataset, tmp_path):
    settings = {"optimizer": "sgd", "learning_rate": 1e-3, "head_multiplier": 0.0, "weight_decay": 0.0}
    training = Session(config(**settings), dataset).prepare()
    kernel, head = (training.classifier.get_layer(name).kernel for name in ("point", "head_classifier"))
    before = values([kernel, head])
    training.fit(tmp_path, new_variables=[kernel])
    np.testing.assert_array_equal(kernel, before[0])  # at 0 times the rate
    assert (head.numpy() != before[1]).any()


def test_what_is_in_force_is_told(config, dataset):
    listener = Listener()
    training = Session(config(xla="on", strategy="none"), dataset, reporter=listener).prepare()
    boundary = training.classifier.boundary
    devices = ", ".join(training.machine.devices)
    assert listener.messages[0] == (
        f"{devices}, float32, XLA on, strategy none; frozen up to block_relu (depth {boundary.depth} of "
        f"{len(training.classifier.boundaries) - 1}, {boundary.cost_share:.0%} of the forward pass), "
        f"{boundary.parameters_before:,} parameters"
    )


# Extras


def darker(pixels, generator):
    return (pixels * generator.uniform(0.5, 1)).astype("uint8")


class Watcher(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.epochs = 0

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1


def test_extras_are_every_training_s(config, dataset, tmp_path):
    watcher = Watcher()
    extras = Extras(callbacks=[watcher], class_weight={0: 3.0}, augmentation=darker)
    session = Session(config(class_weight="balanced"), dataset, extras=extras)
    for each in (session, session.on(part_of(dataset, Part(0.5), draw=0))):
        training = each.prepare()
        assert training.class_weight == {0: 3.0}
        assert training.inputs.options.augmentation is darker
        training.fit(tmp_path / str(watcher.epochs))
    assert watcher.epochs == 4


def test_class_weight_is_the_setting_s_without_extras(config, dataset):
    assert Session(config(class_weight="balanced"), dataset).prepare().class_weight == "balanced"


def test_extras_are_recorded_by_name():
    assert Extras().recorded == {}
    found = Extras(callbacks=[Watcher()], class_weight={np.int64(3): 2, 1: np.float32(0.5)}, augmentation=darker)
    assert found.recorded == {
        "callbacks": [f"{__name__}.Watcher"],
        "class_weight": {"1": 0.5, "3": 2.0},
        "augmentation": found.recorded["augmentation"],
    }
    assert re.fullmatch(rf"{re.escape(__name__)}\.darker [0-9a-f]{{8}}", found.recorded["augmentation"])


def test_functions_of_one_name_are_told_apart_by_their_code():
    half, third, again = (lambda p, g: p // 2), (lambda p, g: p // 3), (lambda p, g: p // 2)
    first, second, third = (Extras(augmentation=function).recorded for function in (half, third, again))
    assert first != second
    assert first == third


# One backbone, several classifiers


def test_classifiers_of_one_backbone_share_its_layers(config):
    settings, pixels = config(), make_photos(2)[0]
    backbone = build_backbone(settings.backbone)
    one, other = (classifier_of(settings, backbone, class_names=CLASSES, head=head) for head in ("kept", "replaced"))
    assert one.get_layer("stem") is other.get_layer("stem")
    assert (one.head, other.head) == ("kept", "replaced")
    assert one.predict(pixels, verbose=0).shape == (2, 6)
