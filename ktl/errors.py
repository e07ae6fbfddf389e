"""The exception that means "the input is wrong, not the program", and how it shows what was received."""

import reprlib
import sys


class UserError(ValueError):
    """Input that ktl cannot work with; the command line prints its single line and exits with code 2.

    The message says what was expected, then `Received: ...`, then what to do. It is one line whatever it quotes, see
    `one_line`, without the middle of one that is very long. Every other exception is a bug and keeps its traceback.

    Example:
        >>> ktl.RunConfig(dataset="photos", epochs=0)
        ktl.errors.UserError: Expected `epochs` to be at least 1. Received: 0
    """

    def __init__(self, message: object = ""):
        text = one_line(f"{message}")
        if len(text) > MOST_SAID:
            text = f"{text[: MOST_SAID - MOST_QUOTED]} ... {text[5 - MOST_QUOTED :]}"
        super().__init__(text)


def one_line(text: str) -> str:
    """A text with the escapes of Python's strings for signs that end a line, steer a terminal or show nothing."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class DamagedError(UserError):
    """A file that is not as ktl wrote it."""


class DivergedError(UserError):
    """Training whose loss is no longer a finite number, as too high a learning rate makes it."""


MOST_SAID = 2500
"""Characters of a message."""

MOST_QUOTED = 400
"""Characters of another package's message that an error quotes."""


def reason_of(error: BaseException) -> str:
    """What another package's error says, in one line: its beginning if long, its type if it is silent."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]} ..."


MOST_WHOLE = 2**63
"""Below which the whole numbers are that arrays and files hold."""


class _Shown(reprlib.Repr):
    """The beginning and the end of what is long."""

    def __init__(self):
        super().__init__()
        self.maxstring = self.maxother = 100

    def repr_int(self, x: int, level: int) -> str:
        most = sys.get_int_max_str_digits()  # Python makes no text of more digits, if this is not 0
        if most and abs(x) >= 10**most:
            return f"a whole number of more than {most:,} digits"
        return super().repr_int(x, level)


_SHOWN = _Shown()


def shown(value: object) -> str:
    """What an error shows of a value that was received: its `repr`, shortened where it is long."""
    return _SHOWN.repr(value)


def unknown_name(kind: str, name: object, known) -> UserError:
    """A failed look-up, as an error that lists what exists."""
    received = name if isinstance(name, str) and len(name) <= _SHOWN.maxstring else shown(name)
    return UserError(f"Expected {kind} to be one of: {', '.join(map(str, known))}. Received: {received}")
