"""What long work tells whoever watches."""

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterator

from ktl.errors import UserError, one_line, shown

LOGGER = logging.getLogger("ktl")

LEAST_COST = 0.02
"""Share of a forward pass that a training costs at least, in estimates of the time left: with everything frozen, a
network is built and traced all the same."""


class Reporter:
    """Is told of progress; this one is silent."""

    def message(self, text: str) -> None:
        """One line about what is going on."""

    @contextlib.contextmanager
    def photos(self, task: str, total: int) -> Iterator[Callable[[int], None]]:
        """A task over `total` photos; what it gives is called with the number done so far."""
        yield lambda done: None

    def training(self, *, epochs: int, photos: int) -> tuple:
        """Keras callbacks that show the training's progress over `epochs` epochs of `photos` photos."""
        return ()

    def epoch(self, row: dict) -> None:
        """One finished epoch, a row of history.csv."""


class QuietReporter(Reporter):
    """Shows the bars of another one, and leaves out the lines: of a run that is one of many."""

    def __init__(self, reporter: Reporter):
        self.photos = reporter.photos
        self.training = reporter.training


class LoggingReporter(Reporter):
    """Writes each message, and a line an epoch, to the logger `ktl` at level INFO.

    A program that has set up no logging, or nothing but `logging.basicConfig()`, sees the lines on standard error: so
    much is set up for every program by the first warning of absl, with which TensorFlow, Keras and TFDS warn.
    """

    def __init__(self):
        self.epochs = 0
        self.photos_an_epoch = 0

    def message(self, text):
        text = one_line(text)  # whatever names it quotes
        if _is_set_up():
            LOGGER.info(text)
        else:
            print(text, file=sys.stderr)

    def training(self, *, epochs, photos):
        self.epochs, self.photos_an_epoch = epochs, photos
        return ()

    def epoch(self, row):
        left = (self.epochs - row["epoch"]) * row["seconds"]
        self.message(
            f"epoch {row['epoch']}/{self.epochs}  loss {row['loss']:.3f}  top-1 {row['top1']:.3f}  "
            f"validation {row['validation_top1']:.3f}  {self.photos_an_epoch / row['seconds']:.0f} images/s  "
            f"{clock(left)} left"
        )


def _is_set_up() -> bool:
    """Whether the program has decided where lines go, or from which level on."""
    if LOGGER.handlers or LOGGER.level != logging.NOTSET:
        return True
    plain = all(type(handler) is logging.StreamHandler for handler in logging.root.handlers)
    return LOGGER.hasHandlers() and (LOGGER.isEnabledFor(logging.INFO) or not plain)


@functools.cache
def warn_once(text: str) -> None:
    """Writes a line to the logger `ktl` at level WARNING, the first time that a process says it.

    A program that has set up no logging sees it on standard error.
    """
    if LOGGER.hasHandlers():
        LOGGER.warning(text)
    else:
        print(text, file=sys.stderr)


Verbose = bool | int | Reporter
"""How much a public function says: see `reporter_for`."""


def reporter_for(verbose: Verbose) -> Reporter:
    """Who is told of the progress of a function that takes `verbose`.

    Args:
        verbose: 0 or False for silence; 1 or True for lines to the logger `ktl`, see `LoggingReporter`; or a reporter
            of your own.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(verbose, Reporter):
        return verbose
    if verbose not in (0, 1):
        raise UserError(f"Expected `verbose` to be 0, 1 or a Reporter. Received: {shown(verbose)}")
    return LoggingReporter() if verbose else Reporter()


def clock(seconds: float) -> str:
    """A duration as minutes and seconds, and hours where there are any; it may be longer than a day."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
