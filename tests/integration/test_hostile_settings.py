"""Whatever a setting, a file of settings or a search space holds: it is kept in one form, or refused in one line."""

import dataclasses
import json

import pytest
from hostile import JSON, NUMBERS, TEXTS, VALUES, made_or_refused
from hypothesis import given
from hypothesis import strategies as st

from ktl.cli.flags import config_from
from ktl.cli.main import build_parser
from ktl.config.settings import RunConfig, SearchConfig, StudyConfig
from ktl.config.space import DIMENSIONS

KINDS = {"run": RunConfig, "search": SearchConfig, "study": StudyConfig}
FIELDS = sorted({field.name for kind in KINDS.values() for field in dataclasses.fields(kind)})
SPACES = st.dictionaries(
    st.sampled_from([*DIMENSIONS, "depth"]), st.none() | st.lists(NUMBERS | TEXTS, max_size=3) | JSON
)


def parsed(command: str, *arguments: str):
    return config_from(build_parser().parse_args([command, *arguments]))


def assert_means_the_same_everywhere(command: str, config) -> None:
    """In JSON, and as flags."""
    recorded = json.loads(json.dumps(config.as_dict(), allow_nan=False))
    assert type(config).from_dict(recorded).as_dict() == config.as_dict()
    assert parsed(command, *config.flags()) == config


@pytest.mark.parametrize("command", KINDS)
@given(data=st.data())
def test_a_setting_takes_a_value_or_names_itself(command, data):
    names = [field.name for field in dataclasses.fields(KINDS[command])]
    name = data.draw(st.sampled_from(names))
    value = data.draw(VALUES if name != "space" else VALUES | SPACES)
    config, refused = made_or_refused(lambda: KINDS[command](**{"dataset": "photos", name: value}))
    if config is None:
        assert f"`{name}`" in refused or name == "space"
    else:
        assert_means_the_same_everywhere(command, config)


def toml(value) -> str:
    """A value as TOML has it; None and the numbers that are none have no such form of their own."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(name)} = {toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=True)


@given(
    command=st.sampled_from([*KINDS]),
    values=st.dictionaries(st.sampled_from(FIELDS) | TEXTS, JSON | SPACES, max_size=3),
    rest=st.just(b"") | st.binary(max_size=9),
)
def test_a_file_of_settings_is_understood_or_named(tmp_path_factory, command, values, rest):
    path = tmp_path_factory.getbasetemp() / "settings.toml"
    path.write_bytes("\n".join(f"{toml(name)} = {toml(value)}" for name, value in values.items()).encode() + rest)
    config, refused = made_or_refused(lambda: parsed(command, "--config", str(path), "--dataset", "photos"))
    if config is None:
        named = any(f"`{name}`" in refused for name in ("config", *values, *DIMENSIONS))
        assert named or str(path) in refused
    else:
        assert_means_the_same_everywhere(command, config)


@given(content=SPACES.map(json.dumps).map(str.encode) | JSON.map(json.dumps).map(str.encode) | st.binary(max_size=20))
def test_a_file_of_a_search_space_is_understood_or_named(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "space.json"
    path.write_bytes(content)
    config, refused = made_or_refused(lambda: parsed("search", "--dataset", "photos", "--space", str(path)))
    if config is None:
        assert any(f"`{name}`" in refused for name in ("space", *DIMENSIONS))
    else:
        assert_means_the_same_everywhere("search", config)
