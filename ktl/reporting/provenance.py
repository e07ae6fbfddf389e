"""How a result came about: the sections on settings and environment, whatever they are of."""

import dataclasses
import shlex
from collections.abc import Collection, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Setting:
    """A row of the table of settings.

    Attributes:
        name: of the setting.
        value: as config.json has it.
        changed: whether the command names it, because it is not at its default.
    """

    name: str
    value: Any
    changed: bool


def settings(
    recorded: Mapping[str, Any],
    *,
    command: str,
    by_default: bool,
    without: Collection[str] = (),
    extras: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Values of the settings' template.

    Args:
        recorded: what config.json holds.
        command: the shell command that gives the result again.
        by_default: whether the command leaves out what is at its default.
        without: settings that are not shown.
        extras: what the training took that no flag can say.
    """
    words = shlex.split(command)
    rows = [
        Setting(name, value, by_default and "--" + name.replace("_", "-") in words)
        for name, value in recorded.items()
        if name not in without
    ]
    return {"command": command, "rows": rows, "by_default": by_default, "extras": extras or {}}


def environment(recorded: Mapping[str, Any], *, kind: str) -> dict[str, Any]:
    """Values of the environment's template.

    Args:
        recorded: what environment.json holds.
        kind: what it is of: run or study.
    """
    versions = {f"{name} version": version for name, version in recorded["versions"].items()}
    plain = {name: value for name, value in recorded.items() if name != "versions"}
    return {"kind": kind, "rows": {**plain, "devices": ", ".join(recorded["devices"]), **versions}}
