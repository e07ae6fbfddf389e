"""The exception that means "the input is wrong, not the program"."""


class UserError(ValueError):
    """Input that ktl cannot work with; the command line prints its single line and exits with code 2.

    The message says what was expected, then `Received: ...`, then what to do. Every other exception is a bug and
    keeps its traceback.
    """


class DivergedError(UserError):
    """Training whose loss is no longer a finite number, as too high a learning rate makes it."""


def unknown_name(kind: str, name: object, known) -> UserError:
    """A failed look-up, as an error that lists what exists."""
    return UserError(f"Expected {kind} to be one of: {', '.join(map(str, known))}. Received: {name}")
