"""What settings can do, whatever they are: be recorded, compared, and written as flags and commands.

Imports nothing heavy.
"""

import dataclasses
import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from typing import ClassVar, Self

from ktl.config.fields import checked, flag_of, form_of, json_of
from ktl.names import is_url


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings: its subclasses' fields, each a `ktl.config.fields.setting`, whose values it keeps in one form.

    Raises:
        UserError: a value of another type, or outside of its choices or limits.
    """

    SCRIPT: ClassVar[str]
    """Name of the script that takes these settings."""
    ADDED: ClassVar[Mapping] = {}
    """Settings that version 0.1 did not have, and how it trained."""
    RENAMED: ClassVar[Mapping[str, str]] = {}
    """Name that version 0.1 gave a setting -> its name."""
    VARIED: ClassVar[tuple[str, ...]] = ()
    """Settings of a run that this one varies, and has none of its own for; version 0.1 recorded their defaults."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, checked(field, getattr(self, field.name)))

    def as_dict(self) -> dict:
        """The settings that decide a run's numbers, as JSON has them."""
        decisive = [field for field in dataclasses.fields(self) if field.metadata["decisive"]]
        return {field.name: json_of(field, getattr(self, field.name)) for field in decisive}

    @classmethod
    def from_dict(cls, recorded: Mapping) -> Self:
        """The config whose `as_dict` gave this; what an earlier version recorded and is no setting now is left out."""
        names = {field.name for field in dataclasses.fields(cls)}
        found = {**cls.ADDED, **cls.renamed(recorded)}
        return cls(**{name: value for name, value in found.items() if name in names})

    @classmethod
    def renamed(cls, recorded: Mapping) -> dict:
        """Settings that were recorded, in an earlier version too, under the names that they have now."""
        return {cls.RENAMED.get(name, name): value for name, value in recorded.items()}

    def differences(self, recorded: Mapping) -> list[str]:
        """What differs in settings that another config's `as_dict` gave, in an earlier version, too."""
        here, there = self.as_dict(), {**self.ADDED, **self.renamed(recorded)}
        names = sorted({*here, *there} - set(self.VARIED))
        changed = [name for name in names if here.get(name) != there.get(name)]
        return [f"{name} {there.get(name)!r} there, {here.get(name)!r} here" for name in changed]

    def flags(self, *, decisive: bool = False) -> list[str]:
        """The command line's flags for these settings, or the decisive ones; those at their defaults are left out."""
        found = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            changed = field.default is dataclasses.MISSING or value != checked(field, field.default)
            if changed and (field.metadata["decisive"] or not decisive):
                found += [flag_of(field.name)] if value is True else _with_value(field, form_of(field).text(value))
        return found

    @property
    def files(self) -> list[str]:
        """Paths and URLs of files that the settings name, whose content decides too."""
        named = (getattr(self, name, None) for name in ("backbone", "weights", "synsets"))
        return [path for path in named if path and (is_url(path) or os.path.isfile(path))]

    def command(self) -> str:
        """A shell command that gives the same numbers; where it writes and how fast it is are left open."""
        return shlex.join(["python", f"experiments/{self.SCRIPT}.py", *self.flags(decisive=True)])

    def fingerprint(self) -> str:
        """Eight hexadecimal digits that differ when any decisive setting does."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:8]


def _with_value(field: dataclasses.Field, text: str) -> list[str]:
    # A text that looks like a flag would be taken for one.
    return [f"{flag_of(field.name)}={text}"] if text.startswith("-") else [flag_of(field.name), text]
