"""The exception that means "the input is wrong, not the program"."""


class UserError(ValueError):
    """Input that ktl cannot work with; the command line prints its single line and exits with code 2.

    The message says what was expected, then `Received: ...`, then what to do. Every other exception is a bug and
    keeps its traceback.
    """


class DamagedError(UserError):
    """A file that is not as ktl wrote it."""


class DivergedError(UserError):
    """Training whose loss is no longer a finite number, as too high a learning rate makes it."""


MOST_QUOTED = 400
"""Characters of another package's message that an error quotes."""


def reason_of(error: BaseException) -> str:
    """What another package's error says, in one line: its beginning if long, its type if it is silent."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]} ..."


def unknown_name(kind: str, name: object, known) -> UserError:
    """A failed look-up, as an error that lists what exists."""
    return UserError(f"Expected {kind} to be one of: {', '.join(map(str, known))}. Received: {name}")
