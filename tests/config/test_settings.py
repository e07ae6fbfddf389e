import argparse
import dataclasses
import json

import pytest

from ktl.cli.flags import add_config_flags, config_from
from ktl.config.settings import RunConfig, SearchConfig, StudyConfig
from ktl.errors import UserError
from ktl.models.heads import HEADS

# Users' commands and results rest on these: a change is a decision, not an accident.
DEFAULTS = {
    "data_dir": None,
    "image_size": None,
    "augmentation": "standard",
    "on_bad_image": "fail",
    "memory_gib": 2.0,
    "cache": "auto",
    "cache_views": 4,
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
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "head_multiplier": 10.0,
    "warmup_epochs": 1.0,
    "weight_decay": 1e-4,
    "label_smoothing": 0.0,
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
    "seeds": 1,
    "keep": 3,
    "workers": 1,
    "tensorboard": False,
}
STUDY_DEFAULTS = {
    "heads": "kept,kept_raw,kept_softmax,kept_batchnorm,kept_beside,replaced,replaced_normalized",
    "depths": None,
    "shares": "0.1,0.25,0.5",
    "seeds": 5,
    "synsets": None,
}

OTHER_VALUES = {
    "dataset": "digits",
    "data_dir": "/data",
    "image_size": 96,
    "augmentation": "none",
    "on_bad_image": "skip",
    "memory_gib": 0.5,
    "cache": "off",
    "cache_views": 1,
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
    "optimizer": "sgd",
    "learning_rate": 0.5,
    "head_multiplier": 1.0,
    "warmup_epochs": 0.0,
    "weight_decay": 0.0,
    "label_smoothing": 0.1,
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
    ("on_bad_image", "ask"),
    ("memory_gib", -0.1),
    ("memory_gib", float("inf")),
    ("cache", "maybe"),
    ("cache_views", 0),
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
    ("optimizer", "adam"),
    ("learning_rate", -1e-4),
    ("learning_rate", float("nan")),
    ("learning_rate", float("inf")),
    ("head_multiplier", -1.0),
    ("warmup_epochs", -1.0),
    ("weight_decay", -1e-4),
    ("label_smoothing", -0.1),
    ("label_smoothing", 1.0),
    ("label_smoothing", float("nan")),
    ("patience", -1),
    ("seed", -1),
    ("seed", 2**31),
    ("xla", "yes"),
    ("precision", "float16"),
    ("strategy", "tpu"),
]


def parse(*arguments) -> RunConfig:
    parser = argparse.ArgumentParser()
    add_config_flags(parser, RunConfig)
    return config_from(parser.parse_args(arguments), RunConfig)


def flags(name, value) -> list[str]:
    flag = "--" + name.replace("_", "-")
    return [flag] if value is True else [flag, str(value)]


def test_defaults_are_pinned_in_fields_and_flags():
    assert dataclasses.asdict(RunConfig(dataset="x")) == {"dataset": "x", **DEFAULTS}
    assert parse("--dataset", "x") == RunConfig(dataset="x")


def test_the_data_set_has_no_default():
    with pytest.raises(TypeError, match="dataset"):
        RunConfig()
    with pytest.raises(SystemExit):
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


@pytest.mark.parametrize(("name", "value"), {"head": "replaced", "scale": 9.0, "freeze_depth": "all"}.items())
def test_a_study_takes_no_value_of_what_it_varies(name, value):
    with pytest.raises(UserError, match=f"no `{name}` for a study, which varies it. Received: {value}"):
        StudyConfig(dataset="x", **{name: value})


@pytest.mark.parametrize(("kind", "more"), [(SearchConfig, SEARCH_DEFAULTS), (StudyConfig, STUDY_DEFAULTS)])
def test_the_defaults_of_searches_and_studies(kind, more):
    found = {field.name: field.default for field in dataclasses.fields(kind)}
    del found["dataset"]
    assert found == DEFAULTS | more


def test_where_and_how_fast_is_not_decisive():
    found = {field.name for field in dataclasses.fields(SearchConfig) if not field.metadata["decisive"]}
    assert found == {"memory_gib", "cache_dir", "cache_limit", "keep", "workers", "tensorboard"}
