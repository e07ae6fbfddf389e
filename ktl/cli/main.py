"""`ktl COMMAND`: the parser of all commands, exit codes, and errors in one line."""

import contextlib
import os
import sys
import warnings

import ktl
from ktl.cli.commands import COMMANDS
from ktl.cli.ends import ended_by, line_of, signals_end
from ktl.cli.flags import Formatter, Parser
from ktl.errors import UserError
from ktl.process import end_with_parent, prepare_process, set_up_keras
from ktl.streams import complete_streams, flush_streams, is_read

PROGRAM = "ktl"

BAD_INPUT = 2


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0 done, 1 done but for some photos, 2 bad input, 130 interrupted,
    143 ended by SIGTERM."""
    end_with_parent()
    complete_streams()
    try:
        with signals_end():
            return _run(arguments)
    except KeyboardInterrupt as error:
        end = ended_by(error)
        _say(end.line)
        return end.exit_code
    finally:
        flush_streams()


def _run(arguments: list[str] | None) -> int:
    options = build_parser().parse_args(arguments)
    command = COMMANDS[options.command]
    try:
        # Pillow warns of photos that it reads all the same; larger ones are refused by name.
        warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
        _check_folder()
        if command.loads_tensorflow:
            prepare_process()
            set_up_keras()
        code = command.run(options) or 0
        sys.stdout.flush()  # here, where a full disk is one line
        return code
    except BrokenPipeError:  # whoever read the output has seen enough, as `head` does
        if is_read(1):
            raise
        return 0
    except Exception as error:
        line = f"{error}" if isinstance(error, UserError) else line_of(error)
        if line is None:  # a bug, which keeps its traceback
            raise
        _say(options.parser.as_flags(line))
        return BAD_INPUT


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody reads it
        print(f"{PROGRAM}: {line}", file=sys.stderr)


def _check_folder() -> None:
    """Raises UserError where somebody has removed the folder in which the command was given."""
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(
            f"Expected a folder to work in. Received: one that is gone ({error.strerror}). Change to another folder"
        ) from error


def build_parser() -> Parser:
    """The parser of all commands; its options have the `command` that was named and that command's `parser`."""
    parser = Parser(prog=PROGRAM, description="Transfer learning that keeps the ImageNet classification layer.")
    parser.add_argument("--version", action="version", version=f"ktl {ktl.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=command.help, description=command.description, formatter_class=Formatter)
        command.add_flags(one)
        one.set_defaults(command=name, parser=one)
    return parser
