"""What long work tells whoever watches."""

import contextlib
from collections.abc import Callable, Iterator


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
