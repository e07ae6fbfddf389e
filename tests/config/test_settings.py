import copy
import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from ktl.cli.flags import Parser, add_config_flags, config_from
from ktl.config.settings import RunConfig, SearchConfig, StudyConfig
from ktl.errors import UserError
from ktl.models.heads import HEADS

# Users' commands and results rest on these: a change is a decision, not an accident.
DEFAULTS = {
    "data_dir": None,
    "image_size": None,
    "augmentation": "standard",
    "flip": "auto",
    "on_bad_image": "fail",
    "memory_gib": 2.0,
    "cache": "auto",
    "views": 4,
    "cache_dtype": "auto",
    "cache_dir": None,
    "cache_limit": None,
    "backbone": "efficientnetv2b0",
    "weights": "imagenet",
    "head": "kept",
    "scale": 3.0,
    "hidden_units": 0,
    "freeze_depth": "auto",
    "epochs": 15,
    "batch_size": 32,
    "least_steps": 32,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "head_multiplier": 10.0,
    "refit": "auto",
    "folds": 0,
    "warmup_epochs": 1.0,
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "class_weight": "none",
    "objective": "top1",
    "patience": 5,
    "seed": 0,
    "xla": "auto",
    "precision": "auto",
    "strategy": "auto",
    "deterministic": False,
}

SEARCH_DEFAULTS = {
    "space": "freeze_depth,scale",
    "oracle": "auto",
    "max_trials": 50,
    "seeds": None,
    "keep": 3,
    "workers": 1,
    "tensorboard": False,
}
STUDY_DEFAULTS = {
    "heads": "kept,kept_raw,kept_softmax,kept_batchnorm,kept_beside,replaced,replaced_normalized,kept_softened,"
    "kept_softmax_beside",
    "depths": None,
    "shares": "none",
    "shots": "none",
    "seeds": 5,
    "synsets": None,
}

OTHER_VALUES = {
    "dataset": "digits",
    "data_dir": "/data",
    "image_size": 96,
    "augmentation": "none",
    "flip": "off",
    "on_bad_image": "skip",
    "memory_gib": 0.5,
    "cache": "off",
    "views": 1,
    "cache_dtype": "float16",
    "cache_dir": "/cache",
    "cache_limit": 7.5,
    "backbone": "vgg16",
    "weights": "random",
    "head": "replaced",
    "scale": 30.0,
    "hidden_units": 7,
    "freeze_depth": "3",
    "epochs": 2,
    "batch_size": 8,
    "least_steps": 1,
    "optimizer": "sgd",
    "learning_rate": 0.5,
    "head_multiplier": 1.0,
    "refit": "on",
    "folds": 3,
    "warmup_epochs": 0.0,
    "weight_decay": 0.5,
    "label_smoothing": 0.1,
    "class_weight": "balanced",
    "objective": "macro_f1",
    "patience": 0,
    "seed": 2**31 - 1,
    "xla": "on",
    "precision": "mixed_bfloat16",
    "strategy": "none",
    "deterministic": True,
}

# Where and how fast, but no number: a run that goes on elsewhere is still the same run.
INDECISIVE = {"memory_gib", "cache_dir", "cache_limit"}

BAD_VALUES = [
    ("image_size", 31),
    ("augmentation", "heavy"),
    ("flip", "yes"),
    ("on_bad_image", "ask"),
    ("memory_gib", -0.1),
    ("memory_gib", float("inf")),
    ("cache", "maybe"),
    ("views", 0),
    ("cache_dtype", "bfloat16"),
    ("cache_limit", -1.0),
    ("cache_limit", float("inf")),
    ("head", "neck"),
    ("scale", 0.0),
    ("scale", -1.0),
    ("scale", float("nan")),
    ("hidden_units", -1),
    ("epochs", 0),
    ("batch_size", 0),
    ("least_steps", 0),
    ("optimizer", "adam"),
    ("learning_rate", -1e-4),
    ("learning_rate", float("nan")),
    ("learning_rate", float("inf")),
    ("head_multiplier", -1.0),
    ("folds", 1),
    ("warmup_epochs", -1.0),
    ("weight_decay", -1e-4),
    ("weight_decay", 1.0),
    ("label_smoothing", -0.1),
    ("label_smoothing", 1.0),
    ("label_smoothing", float("nan")),
    ("class_weight", "equal"),
    ("objective", "accuracy"),
    ("patience", -1),
    ("seed", -1),
    ("seed", 2**31),
    ("xla", "yes"),
    ("precision", "float16"),
    ("strategy", "tpu"),
]


def parse(*arguments) -> RunConfig:
    parser = Parser()
    add_config_flags(parser, RunConfig)
    return config_from(parser.parse_args(arguments))


def flags(name, value) -> list[str]:
    flag = "--" + name.replace("_", "-")
    return [flag] if value is True else [flag, str(value)]


def test_defaults_are_pinned_in_fields_and_flags():
    assert dataclasses.asdict(RunConfig(dataset="x")) == {"dataset": "x", **DEFAULTS}
    assert parse("--dataset", "x") == RunConfig(dataset="x")


def test_the_data_set_has_no_default():
    with pytest.raises(TypeError, match="dataset"):
        RunConfig()
    with pytest.raises(UserError, match="`dataset`"):
        parse()


def test_every_field_is_tested_here():
    assert {field.name for field in dataclasses.fields(RunConfig)} == {*DEFAULTS, "dataset"} == set(OTHER_VALUES)


@pytest.mark.parametrize(("name", "value"), OTHER_VALUES.items())
def test_a_flag_sets_its_field_and_no_other(name, value):
    config = parse("--dataset", "x", *flags(name, value))
    assert config == dataclasses.replace(RunConfig(dataset="x"), **{name: value})
    assert type(getattr(config, name)) is type(value)


@pytest.mark.parametrize(("name", "value"), OTHER_VALUES.items())
def test_the_fingerprint_changes_with_each_decisive_setting(name, value):
    config = RunConfig(dataset="x")
    changed = dataclasses.replace(config, **{name: value})
    assert (changed.fingerprint() == config.fingerprint()) is (name in INDECISIVE)
    assert (changed.as_dict() == config.as_dict()) is (name in INDECISIVE)
    assert changed.fingerprint() == dataclasses.replace(config, **{name: value}).fingerprint()


def test_settings_survive_json():
    decisive = {name: value for name, value in OTHER_VALUES.items() if name not in INDECISIVE}
    config = RunConfig(**decisive | {"xla": "off"})
    assert set(config.as_dict()) == set(decisive)
    assert RunConfig(**json.loads(json.dumps(config.as_dict()))) == config


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig(dataset="x").epochs = 3


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_a_bad_value_gets_one_line_that_names_the_argument(name, value):
    with pytest.raises(UserError) as error:
        RunConfig(**{"dataset": "x", name: value})
    text = str(error.value)
    assert text.startswith(f"Expected `{name}` to be ")
    assert text.endswith(f"Received: {value}")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", 32),
        ("label_smoothing", 0.99),
        ("scale", 1e-3),
        ("learning_rate", 0.0),
        ("seed", 0),
        ("epochs", 1),
    ],
)
def test_the_limits_themselves_are_allowed(name, value):
    assert getattr(RunConfig(**{"dataset": "x", name: value}), name) == value


def test_every_head_is_a_choice():
    assert [RunConfig(dataset="x", head=head).head for head in HEADS] == list(HEADS)
    with pytest.raises(UserError, match=", ".join(HEADS)):
        RunConfig(dataset="x", head="neck")


def test_deterministic_refuses_xla():
    with pytest.raises(UserError, match="Received: `xla` on"):
        RunConfig(dataset="x", deterministic=True, xla="on")
    for xla in ("auto", "off"):
        assert RunConfig(dataset="x", deterministic=True, xla=xla).xla == xla


VARIED = ("head", "freeze_depth", "learning_rate", "scale", "head_multiplier")


@pytest.mark.parametrize("name", VARIED)
def test_a_study_has_no_setting_that_it_varies(name):
    assert StudyConfig.VARIED == VARIED
    with pytest.raises(TypeError, match=name):
        StudyConfig(dataset="x", **{name: getattr(RunConfig(dataset="x"), name)})


def test_the_defaults_of_searches_and_studies():
    shared = {name: value for name, value in DEFAULTS.items() if name not in (*VARIED, "refit", "folds")}
    for kind, expected in ((SearchConfig, DEFAULTS | SEARCH_DEFAULTS), (StudyConfig, shared | STUDY_DEFAULTS)):
        found = {field.name: field.default for field in dataclasses.fields(kind)}
        del found["dataset"]
        assert found == expected


def test_the_run_of_a_search_or_a_study():
    search = SearchConfig(dataset="x", scale=10, epochs=3, space="head")
    assert search.run_config({"head": "replaced"}) == RunConfig(dataset="x", scale=10, epochs=3, head="replaced")
    study = StudyConfig(dataset="x", epochs=3, class_weight="balanced")
    values = {"head": "replaced", "freeze_depth": "all", "learning_rate": 0.1, "scale": 1.0}
    assert study.run_config(values) == RunConfig(dataset="x", epochs=3, class_weight="balanced", **values)


SAME = [
    (RunConfig, {"scale": 3}, {"scale": 3.0}),
    (RunConfig, {"scale": np.float32(3), "epochs": np.int64(2)}, {"scale": 3.0, "epochs": 2}),
    (RunConfig, {"freeze_depth": 3}, {"freeze_depth": "3"}),
    (RunConfig, {"cache_dir": Path("/cache"), "weights": Path("a.h5")}, {"cache_dir": "/cache", "weights": "a.h5"}),
    (StudyConfig, {"heads": ("kept", "replaced")}, {"heads": "kept,replaced"}),
    (StudyConfig, {"heads": ["kept", "replaced", "kept"]}, {"heads": " kept  replaced,kept"}),
    (StudyConfig, {"shares": (0.1, 0.5)}, {"shares": "0.10,0.5"}),
    (StudyConfig, {"shares": np.array([0.25, 0.5])}, {"shares": "0.25 0.5"}),
    (StudyConfig, {"shares": ()}, {"shares": "none"}),
    (StudyConfig, {"shots": [1, np.int64(4)]}, {"shots": "1 4"}),
    (StudyConfig, {"shots": ()}, {"shots": "none"}),
    (StudyConfig, {"depths": ("all",)}, {"depths": "all"}),
    (StudyConfig, {"depths": ["none", 3, "block2"]}, {"depths": "none,3,block2"}),
    (StudyConfig, {"depths": []}, {"depths": None}),
    (SearchConfig, {"space": {"scale": [1, 10], "freeze_depth": None}}, {"space": "freeze_depth,scale=1,10"}),
    (SearchConfig, {"space": {"scale": np.array([1, 10])}}, {"space": "scale=1,10"}),
    (
        SearchConfig,
        {"space": {"freeze_depth": (0, "all"), "hidden_units": (64,)}},
        {"space": "hidden_units=64 freeze_depth=0,all"},
    ),
    (SearchConfig, {"space": {"scale": None}}, {"space": "scale"}),
    (RunConfig, {"cache": True, "flip": False, "xla": True}, {"cache": "on", "flip": "off", "xla": "on"}),
]


@pytest.mark.parametrize(("kind", "values", "texts"), SAME)
def test_python_values_and_the_flags_texts_are_the_same_settings(kind, values, texts):
    a, b = (kind(dataset="x", **settings) for settings in (values, texts))
    assert a == b
    assert hash(a) == hash(b)
    assert a.fingerprint() == b.fingerprint()
    assert json.dumps(a.as_dict()) == json.dumps(b.as_dict())
    for name in values:
        assert type(getattr(a, name)) is type(getattr(b, name))
    for config in (kind.from_dict(json.loads(json.dumps(a.as_dict()))), pickle.loads(pickle.dumps(a)), copy.copy(a)):
        assert config.as_dict() == a.as_dict()
    parser = Parser()
    add_config_flags(parser, kind)
    assert config_from(parser.parse_args(a.flags())) == a


def test_what_a_study_has_is_typed_and_its_json_a_text_as_in_earlier_versions():
    study = StudyConfig(dataset="x", heads=["kept"], shares=[0.1, 0.5], shots=[1, 16], depths=[3, "all"])
    assert (study.heads, study.shares, study.depths) == (("kept",), (0.1, 0.5), ("3", "all"))
    recorded = {name: study.as_dict()[name] for name in ("heads", "shares", "depths")}
    assert recorded == {"heads": "kept", "shares": "0.1,0.5", "depths": "3,all"}
    assert (study.shots, study.as_dict()["shots"]) == ((1, 16), "1,16")
    recorded = {name: StudyConfig(dataset="x").as_dict()[name] for name in ("heads", "shares", "depths")}
    assert recorded == {name: STUDY_DEFAULTS[name] for name in recorded}


BAD_TYPES = [
    (RunConfig, "epochs", "three", "a whole number. Received: 'three'"),
    (RunConfig, "epochs", 1.5, "a whole number. Received: 1.5"),
    (RunConfig, "epochs", True, "a whole number. Received: True"),
    (RunConfig, "epochs", None, "a whole number. Received: None"),
    (RunConfig, "epochs", [3], r"a whole number. Received: \[3\]"),
    (RunConfig, "image_size", "64", "a whole number. Received: '64'"),
    (RunConfig, "learning_rate", "fast", "a number. Received: 'fast'"),
    (RunConfig, "learning_rate", False, "a number. Received: False"),
    (RunConfig, "learning_rate", 10**400, r"a number. Received: 10+\.\.\.0+"),
    (StudyConfig, "depths", {",": None}, "freeze depths. Received: {',': None}"),
    (StudyConfig, "heads", b"kept", "at least one head. Received: b'kept'"),
    (RunConfig, "dataset", 3, "a text that is not empty. Received: 3"),
    (RunConfig, "dataset", None, "a text that is not empty. Received: None"),
    (RunConfig, "backbone", b"vgg16", "a text that is not empty. Received: b'vgg16'"),
    (RunConfig, "precision", 16, "one of: auto, float32, mixed_float16, mixed_bfloat16. Received: 16"),
    (RunConfig, "head", None, "one of: kept, .*, auto. Received: None"),
    (RunConfig, "augmentation", True, "one of: standard, none. Received: True"),
    (RunConfig, "freeze_depth", 1.5, "a number or a name .* Received: 1.5"),
    (RunConfig, "freeze_depth", True, "a number or a name .* Received: True"),
    (RunConfig, "deterministic", "yes", "True or False. Received: 'yes'"),
    (RunConfig, "deterministic", 1, "True or False. Received: 1"),
    (SearchConfig, "space", None, "a search space. Received: None"),
    (SearchConfig, "space", 3, "a search space. Received: 3"),
    (StudyConfig, "heads", (), r"at least one head. Received: \(\)"),
    (StudyConfig, "heads", "", "at least one head. Received: ''"),
    (StudyConfig, "heads", 3, "at least one head. Received: 3"),
    (StudyConfig, "depths", 3, "freeze depths. Received: 3"),
    (StudyConfig, "depths", [0.5], r"freeze depths. Received: \[0.5\]"),
    (StudyConfig, "shots", "1.5", "whole numbers above 0, or none. Received: '1.5'"),
    (StudyConfig, "shots", [0], r"whole numbers above 0, or none. Received: \[0\]"),
    (StudyConfig, "shots", [True], r"whole numbers above 0, or none. Received: \[True\]"),
    (StudyConfig, "shares", "half", "numbers between 0 and 1, or none. Received: 'half'"),
    (StudyConfig, "shares", "0.5,2", "numbers between 0 and 1, or none. Received: '0.5,2'"),
    (StudyConfig, "shares", 0.5, "numbers between 0 and 1, or none. Received: 0.5"),
    (StudyConfig, "shares", [0.5, 1], r"numbers between 0 and 1, or none. Received: \[0.5, 1\]"),
]


@pytest.mark.parametrize(("kind", "name", "value", "message"), BAD_TYPES)
def test_a_value_of_a_wrong_type_gets_one_line_that_names_the_argument(kind, name, value, message):
    with pytest.raises(UserError, match=rf"^Expected `{name}` to be {message}$"):
        kind(**{"dataset": "x", name: value})


def test_heads_of_a_search_space_have_names():
    with pytest.raises(UserError, match=r"^Expected heads by name in `space`\. Received: auto, "):
        SearchConfig(dataset="x", space="head=kept,auto")
    assert SearchConfig(dataset="x", head="auto").head == "auto"


def test_an_unknown_head_of_a_study():
    with pytest.raises(UserError, match=r"^Expected each of `heads` to be one of: kept, .* Received: neck$"):
        StudyConfig(dataset="x", heads=["kept", "neck"])


def test_differences_from_settings_that_were_recorded():
    config = RunConfig(dataset="x", epochs=3)
    recorded = config.as_dict()
    assert config.differences(recorded) == []
    assert config.differences({**recorded, "epochs": 4}) == ["epochs 4 there, 3 here"]
    assert config.differences({**recorded, "momentum": 0.5}) == ["momentum 0.5 there, None here"]
    # An earlier version had no class weights, and trained as the default does now.
    earlier = {name: value for name, value in recorded.items() if name != "class_weight"}
    assert config.differences(earlier) == []
    balanced = dataclasses.replace(config, class_weight="balanced")
    assert balanced.differences(earlier) == ["class_weight 'none' there, 'balanced' here"]
    assert SearchConfig(dataset="x", epochs=3).differences(recorded) != []  # a run is no search
    assert RunConfig.from_dict({**earlier, "momentum": 0.5}) == config


def test_where_and_how_fast_is_not_decisive():
    found = {field.name for field in dataclasses.fields(SearchConfig) if not field.metadata["decisive"]}
    assert found == {"memory_gib", "cache_dir", "cache_limit", "keep", "workers", "tensorboard"}


def test_settings_of_version_0_1_are_read_under_their_names_of_today():
    config = RunConfig(dataset="x", views=7, least_steps=1)
    recorded = config.as_dict()
    recorded["cache_views"] = recorded.pop("views")
    del recorded["least_steps"], recorded["class_weight"], recorded["flip"], recorded["objective"]
    assert config.differences(recorded) == []
    assert dataclasses.replace(config, views=4).differences(recorded) == ["views 7 there, 4 here"]
    assert RunConfig(dataset="x", views=7).differences(recorded) == ["least_steps 1 there, 32 here"]
    assert RunConfig.from_dict(recorded) == config
