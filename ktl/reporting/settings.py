"""What the sections on settings and environment share, whatever they are of."""

from collections.abc import Sequence

from ktl.config.settings import RunConfig, StudyConfig


def settings(config: RunConfig | StudyConfig, *, without: Sequence[str] = ()) -> dict:
    """Values of the settings' template; some settings may be left `without`."""
    defaults = type(config)(dataset="").as_dict()
    shown = {name: value for name, value in config.as_dict().items() if name not in without}
    return {
        "command": config.command(),
        "rows": [(name, value, name == "dataset" or value != defaults[name]) for name, value in shown.items()],
    }


def environment(recorded: dict, *, kind: str) -> dict:
    """Values of the environment's template, of what environment.json holds."""
    versions = {f"{name} version": version for name, version in recorded["versions"].items()}
    plain = {name: value for name, value in recorded.items() if name != "versions"}
    return {"kind": kind, "rows": {**plain, "devices": ", ".join(recorded["devices"]), **versions}}
