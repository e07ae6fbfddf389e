"""Standard output for tables."""

from rich.console import Console

from ktl.errors import one_line
from ktl.streams import turn_away

PIPE_WIDTH = 200


class PlainConsole(Console):
    """Shows texts as they are: no `[bold]` or `:key:` in a name of somebody's is rich's to read."""

    def __init__(self, *, stderr: bool = False):
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Nobody reads it any more: of standard output the command ends, without the lines on standard error it goes
        on. rich would end the process with exit code 1."""
        if not self.stderr:
            raise
        turn_away(2)


def visible(*names: str) -> list[str]:
    """Names of somebody's files for a table, without what would steer the terminal."""
    return [one_line(name) for name in names]


def output_console() -> Console:
    """Standard output; into a file or a pipe, tables are as wide as they need to be."""
    console = PlainConsole()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console
