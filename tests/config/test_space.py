"""The search space: what its texts and files mean, and what KerasTuner gets."""

import dataclasses
import json

import pytest

from ktl.cli.flags import config_from
from ktl.cli.main import build_parser
from ktl.config import space
from ktl.config.settings import RunConfig, SearchConfig
from ktl.errors import UserError
from ktl.models.heads import HEADS

MEANINGS = {
    "scale": {"scale": (1.0, 3.0, 10.0, 30.0, 100.0)},
    "freeze_depth": {"freeze_depth": None},
    "freeze_depth,scale": {"freeze_depth": None, "scale": (1.0, 3.0, 10.0, 30.0, 100.0)},
    "head": {"head": tuple(HEADS)},
    "scale=1,10": {"scale": (1.0, 10.0)},
    "scale=5": {"scale": (5.0,)},
    "scale=1,3 learning_rate=1e-3,2e-3": {"scale": (1.0, 3.0), "learning_rate": (0.001, 0.002)},
    "scale=1 3 hidden_units=0 64": {"scale": (1.0, 3.0), "hidden_units": (0, 64)},
    "freeze_depth=none,3,block_relu,scale": {
        "freeze_depth": ("none", "3", "block_relu"),
        "scale": (1.0, 3.0, 10.0, 30.0, 100.0),
    },
    "freeze_depth,scale=1,10": {"freeze_depth": None, "scale": (1.0, 10.0)},
    "scale=1,10,freeze_depth": {"freeze_depth": None, "scale": (1.0, 10.0)},
    "scale=1,scale=10": {"scale": (1.0, 10.0)},
    "scale=10,1,10": {"scale": (10.0, 1.0)},
    " scale = 1 , 10 ".replace(" = ", "="): {"scale": (1.0, 10.0)},
}


@pytest.mark.parametrize("text", MEANINGS)
def test_a_text_means_names_with_their_own_or_the_default_values(text):
    parsed = space.parse_space(text)
    assert parsed == MEANINGS[text]
    for name, values in parsed.items():
        kinds = {type(value) for value in values or ()}
        assert kinds <= {type(getattr(RunConfig(dataset="x"), name))}


def test_dimensions_come_in_the_order_of_the_table_whatever_the_text_says():
    assert list(space.parse_space(",".join(reversed(space.DIMENSIONS)))) == list(space.DIMENSIONS)


def test_every_dimension_is_a_setting_of_a_run_and_its_values_are_allowed():
    assert set(space.DIMENSIONS) <= {field.name for field in dataclasses.fields(RunConfig)}
    for name, values in space.DIMENSIONS.items():
        for value in values or ("auto",):
            assert getattr(RunConfig(dataset="x", **{name: value}), name) == value


def test_the_default_search_is_over_freeze_depth_and_scale():
    config = SearchConfig(dataset="x")
    assert space.parse_space(config.space) == {"freeze_depth": None, "scale": (1.0, 3.0, 10.0, 30.0, 100.0)}


def test_a_file_is_read_once(tmp_path):
    path = tmp_path / "space.json"
    path.write_text(json.dumps({"scale": [1, 0.005], "freeze_depth": None, "head": ["kept", "replaced"]}))
    config = SearchConfig(dataset="photos", space=str(path))
    before, flags = config.as_dict(), config.flags()
    path.write_text("{}")
    assert config.as_dict() == before
    assert before["space"] == {"freeze_depth": None, "scale": [1.0, 0.005], "head": ["kept", "replaced"]}
    again = config_from(build_parser().parse_args(["search", *flags]))
    assert again.as_dict() == before


def test_a_json_file_means_what_its_text_would(tmp_path):
    path = tmp_path / "space.json"
    path.write_text(json.dumps({"scale": [1, 10], "freeze_depth": None, "hidden_units": None}))
    assert space.parse_space(str(path)) == space.parse_space("freeze_depth,scale=1,10,hidden_units")


def test_the_settings_of_a_search_hold_the_values_and_not_the_files_name(tmp_path):
    path = tmp_path / "space.json"
    path.write_text('{"scale": [1, 10]}')
    from_file, from_text = (SearchConfig(dataset="x", space=text) for text in (str(path), "scale=1,10"))
    assert from_file.as_dict() == from_text.as_dict()
    assert from_file.fingerprint() == from_text.fingerprint()
    assert from_file.as_dict()["space"] == {"scale": [1.0, 10.0]}


BAD_TEXTS = {
    "": "freeze_depth",
    " , ": "freeze_depth",
    "scales": "scales",
    "scale=1,depth": "depth",  # a value of scale that is none
    "depth=3": "depth",
    "scale=": "float values for scale",
    "scale=big": "big",
    "hidden_units=0.5": "0.5",
    "5": "Received: 5",
    "nowhere.json": "nowhere.json",
}


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_a_bad_text_is_told_in_one_line(text):
    with pytest.raises(UserError, match=f"^Expected [^\n]*{BAD_TEXTS[text]}[^\n]*$"):
        space.parse_space(text)


BAD_FILES = {
    "not json": "{scale",
    "a list": '["scale"]',
    "no dimensions": "{}",
    "one number": '{"scale": 3}',
    "no values": '{"scale": []}',
    "a text": '{"scale": "1,10"}',
    "a list within": '{"scale": [[1]]}',
    "null as a value": '{"scale": [null]}',
    "a blank in a name": '{"freeze_depth": ["none", "conv 1"]}',
    "a comma in a name": '{"freeze_depth": ["a,b"]}',
    "an equals sign in a name": '{"freeze_depth": ["none", "a=b"]}',
    "an empty name": '{"freeze_depth": ["", "none"]}',
    "a dimension as a name": '{"freeze_depth": ["none", "scale"]}',
    "a file as a name": '{"freeze_depth": ["none", "a.json"]}',
    "a blank in a choice": '{"head": ["kept", "re placed"]}',
    "unknown": '{"scales": [1]}',
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_told_in_one_line(name, tmp_path):
    path = tmp_path / "space.json"
    path.write_text(BAD_FILES[name])
    with pytest.raises(UserError, match=r"^Expected [^\n]*$"):
        space.parse_space(str(path))


@pytest.mark.parametrize("text", ["scale=0", "head=neck", "label_smoothing=0,2", "learning_rate=inf"])
def test_values_that_a_run_would_refuse_are_refused_at_once(text):
    with pytest.raises(UserError, match=f"`{text.split('=')[0]}`"):
        SearchConfig(dataset="x", space=text)


@pytest.mark.parametrize(
    ("values", "points"),
    [({"scale": (1.0,)}, 1), ({"scale": (1.0, 3.0), "head": ("a", "b", "c"), "hidden_units": (0, 1)}, 12)],
)
def test_the_size_is_the_number_of_combinations(values, points):
    assert space.size(values) == points


def test_the_values_that_are_tried_by_default():
    expected = {
        "freeze_depth": None,
        "scale": (1.0, 3.0, 10.0, 30.0, 100.0),
        "learning_rate": (3e-4, 1e-3, 3e-3),
        "head_multiplier": (1.0, 3.0, 10.0, 30.0),
        "head": tuple(HEADS),
        "hidden_units": (0, 256, 1024),
        "label_smoothing": (0.0, 0.1, 0.2),
        "weight_decay": (0.0, 0.1, 0.5),
    }
    assert expected == space.DIMENSIONS
