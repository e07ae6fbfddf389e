"""Standard input, output and error: those that are not there or lead nowhere, and standard error turned away."""

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def without_standard_error() -> Iterator[None]:
    """Sends what is written to file descriptor 2 nowhere, also from other threads."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def complete_streams() -> None:
    """Opens on nothing what of standard input, output and error a process was started without.

    Else the next file that is opened would get its number, and whatever is printed would go into that file. What the
    encoding of standard output cannot say, as bytes of a file's name that are in no encoding, is printed as an escape.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115  it gets the lowest free number, the one that is missing
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
    stream: Any = sys.stdout
    # Strict, unless somebody has asked for another way; in the locale C bytes of names pass, and all else is strict.
    if getattr(stream, "errors", None) in ("strict", "surrogateescape") and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def is_read(descriptor: int) -> bool:
    """Whether somebody still reads what is written to a file descriptor; True where the system does not tell."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(descriptor, 0)
    return not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def turn_away(descriptor: int) -> None:
    """Lets what is written to a file descriptor go nowhere from now on; what is still in a buffer too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def flush_streams() -> None:
    """Writes out what standard output and error still hold. Where that cannot be, as nobody reads it, it goes nowhere:
    Python would tell of it once more at its end, with an exit code of its own."""
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            turn_away(descriptor)
