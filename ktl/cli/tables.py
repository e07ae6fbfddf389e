"""Standard output for tables."""

from rich.console import Console

PIPE_WIDTH = 200


def output_console() -> Console:
    """Standard output; into a file or a pipe, tables are as wide as they need to be."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console
