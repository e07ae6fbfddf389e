"""How a command ends before its end: by a signal, or where the machine has no more to give."""

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator

from ktl.errors import reason_of

SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}
"""Signal that ends a command -> what the command says."""


class Ended(KeyboardInterrupt):
    """A signal has come: as Ctrl-C, whichever it was.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        return 128 + self.number

    @property
    def line(self) -> str:
        return f"{SIGNALS[signal.Signals(self.number)]}; repeat the command to continue"


def ended_by(error: KeyboardInterrupt) -> Ended:
    """What a command ends with; Python's own interrupt is that of Ctrl-C."""
    return error if isinstance(error, Ended) else Ended(signal.SIGINT)


AGAIN = 0.2
"""Seconds after which `Ended` is raised again where somebody has swallowed it."""


@contextlib.contextmanager
def signals_end() -> Iterator[None]:
    """Inside, the first signal raises `Ended`, and another one ends the process at once.

    Python gives the exception to whatever code runs at the time: raised in a `__del__`, in a garbage collector's
    callback or in one that C code calls, it goes nowhere or becomes an error of another type. So it is raised again
    until it is on its way: while nobody cleans up after it. What is an error by then, or the end, is `Ended` too; and
    what C code prints of it is not shown.

    A signal that the process was told to ignore, as a shell's background job is of Ctrl-C, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []

    def end(number: int, frame) -> None:
        came.append(number)
        if len(came) > 1:
            os._exit(128 + number)
        if hasattr(signal, "setitimer"):  # not on Windows
            signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
        raise Ended(number)

    def end_again(number: int, frame) -> None:
        if came and not _is_ending():
            raise Ended(came[0])

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, end)
    if hasattr(signal, "setitimer"):
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, end_again)
    shown, sys.unraisablehook = sys.unraisablehook, lambda lost: isinstance(lost.exc_value, Ended) or shown(lost)
    printed, sys.excepthook = sys.excepthook, lambda *error: bool(came) or printed(*error)  # by C code alone in here
    try:
        yield
        if came:
            raise Ended(came[0])
    except Exception as error:
        if came:
            raise Ended(came[0]) from error
        raise
    finally:
        sys.unraisablehook, sys.excepthook = shown, printed
        if came and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_ending() -> bool:
    """Whether what runs is the handling of `Ended`: a `finally`, an `except` or the end of a `with`."""
    error = sys.exception()
    while error is not None and not isinstance(error, Ended):
        error = error.__context__
    return error is not None


SHORT_OF = {
    errno.ENOSPC: "space on the disk",
    errno.EDQUOT: "space in the quota of this user",
    errno.EFBIG: "files that may be as large",
    errno.ENAMETOOLONG: "names that the file system takes",
    errno.EROFS: "a file system that can be written to",
    errno.EACCES: "what this user may read or write",
    errno.EPERM: "what this user may read or write",
    errno.EMFILE: "fewer open files",
}
"""Number of an operating system's error -> what a command expected."""

NO_SPACE = "No space left on device"
"""By this text other packages' errors of a full disk are known, which have types of their own."""


def line_of(error: BaseException) -> str | None:
    """What a command says where the machine, not the program, is to blame for an error; None for a bug."""
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        if isinstance(error, OSError) and error.errno in SHORT_OF:
            place = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, str | bytes) else ""
            return f"Expected {SHORT_OF[error.errno]}. Received: {error.strerror}{place}. What is complete is kept"
        if NO_SPACE in str(error):
            return f"Expected {SHORT_OF[errno.ENOSPC]}. Received: {NO_SPACE}. What is complete is kept"
        if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
            return (
                f"Expected enough memory. Received: {reason_of(error)}. Lower `batch_size`, `image_size` or "
                "`hidden_units`, or freeze more layers"
            )
        error = error.__cause__ or error.__context__  # pyright: ignore[reportAssignmentType]
    return None
