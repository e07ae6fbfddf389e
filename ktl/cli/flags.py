"""The flags of each command, those of settings from their fields; and settings from flags."""

import argparse
import dataclasses
import re
import sys

from ktl.config.fields import flag_of, type_of
from ktl.config.settings import RunConfig, SearchConfig, StudyConfig
from ktl.errors import UserError, one_line, reason_of, unknown_name
from ktl.texts import read_text


class Parser(argparse.ArgumentParser):
    """Tells of a bad flag in one line, as of every other bad input."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {one_line(message)}. {self.prog} --help lists the flags\n")

    # pyright takes argparse's overloads for more than one method.
    def parse_known_args(self, args=None, namespace=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Leaves no flag for the parser above, whose --help does not list those of its commands."""
        for word in sys.argv[1:] if args is None else args:
            if re.fullmatch("--[^=]+=--", word):  # argparse would take it for a flag without a value
                self.error(f"argument {word.partition('=')[0]}: expected another value than --")
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def as_flags(self, message: str) -> str:
        """A message with the arguments that it quotes, as in `learning_rate`, as those flags of this parser."""
        flags = set(re.findall(r"--[a-z0-9-]+", self.format_usage()))

        def flag(match: re.Match) -> str:
            return flag_of(match[1]) if flag_of(match[1]) in flags else match[0]

        return re.sub(r"`([a-z0-9_]+)`", flag, message)


def place(text: str) -> str:
    """A path or a name as a flag has it: an empty one, as of a shell's variable that is not set, is the folder here to
    the system, and nobody means that."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"expected a path or a name, received {text!r}")
    return text


class Formatter(argparse.HelpFormatter):
    """Appends each flag's default to its help."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=32, width=110)

    def _get_help_string(self, action):
        if action.default in (None, False, argparse.SUPPRESS) or action.required:
            return action.help
        return f"{action.help} (default: %(default)s)"


def add_config_flags(parser: Parser, config_class: type) -> None:
    """One flag for each field of a config dataclass, in its groups, and --config; what is not given is absent."""
    parser.add_argument(
        "--config",
        type=place,
        metavar="FILE",
        help="a TOML file of settings, as in learning_rate = 0.01; flags come before it",
    )
    parser.set_defaults(config_class=config_class)
    groups = {}
    for field in dataclasses.fields(config_class):
        title, choices = field.metadata["group"], field.metadata["choices"]
        groups[title] = groups.get(title) or parser.add_argument_group(title)
        help_text = field.metadata["help"].replace("%", "%%")
        if field.default not in (None, False, dataclasses.MISSING):
            help_text += f" (default: {field.default})"
        kind = type_of(field)
        takes = {"type": kind, "choices": choices, "metavar": None if choices else kind.__name__.upper()}
        groups[title].add_argument(
            flag_of(field.name),
            default=argparse.SUPPRESS,
            help=help_text,
            **({"action": "store_true"} if kind is bool else takes),
        )


def config_from(options: argparse.Namespace):
    """The config of the command's class that parsed flags, and the file that --config names, describe.

    Raises:
        UserError: a file that cannot be read or has an unknown name, a bad value, or one that is missing.
    """
    fields = dataclasses.fields(options.config_class)
    settings = _read_settings(options.config, [field.name for field in fields]) if options.config else {}
    settings |= {field.name: getattr(options, field.name) for field in fields if hasattr(options, field.name)}
    for field in fields:
        if field.default is dataclasses.MISSING and field.name not in settings:
            raise UserError(f"Expected `{field.name}`, as a flag or in the file of `config`. Received: neither")
    return options.config_class(**settings)


def _read_settings(path: str, known: list[str]) -> dict:
    import tomllib

    try:
        settings = tomllib.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:  # the last of brackets in brackets
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise UserError(f"Expected `config` to be a readable TOML file. Received: {path} ({reason})") from error
    unknown = next((name for name in settings if name not in known), None)
    if unknown is not None:
        raise unknown_name(f"each setting in {path}", unknown, known)
    return settings


def _add_output(parser: Parser, kind: str, *, export: bool, overwrite: bool) -> None:
    """The flags that say where results go; those of the last two where they are wanted."""
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output",
        type=place,
        metavar="DIR",
        help=f"the {kind}'s folder (default: one under runs/, named after the settings)",
    )
    output.add_argument(
        "--json", action="store_true", help="print result.json on standard output, all else on standard error"
    )
    if export:
        output.add_argument(
            "--export",
            type=place,
            metavar="DIR",
            help="write a SavedModel there too, also to a URL; `ktl export` has more formats",
        )
    if overwrite:
        output.add_argument("--overwrite", action="store_true", help=f"remove a {kind} that is in that folder")


def add_run_flags(parser: Parser) -> None:
    add_config_flags(parser, RunConfig)
    _add_output(parser, "run", export=True, overwrite=False)


PORTIONS = 64
"""Of a job on Beam, unless it is told."""


def add_features_flags(parser: Parser) -> None:
    add_config_flags(parser, RunConfig)
    portions = parser.add_argument_group("many processes or machines")
    portions.add_argument(
        "--shard",
        metavar="I/N",
        help="compute portion I of N of the photos alone, counted from 1: all portions together are the whole",
    )
    _add_runner(portions)
    portions.add_argument("--shards", type=int, metavar="N", help=f"portions with --runner; {PORTIONS} if not given")
    portions.add_argument(
        "--output", type=place, metavar="URL", help="folder for what a --runner did, and the photos that it cannot read"
    )
    portions.add_argument("--json", action="store_true", help="print what was done as JSON, all else on standard error")


def _add_runner(group) -> None:
    group.add_argument(
        "--runner",
        choices=("direct", "flink", "spark", "dataflow"),
        help="do all portions on Apache Beam (the extra beam); direct = processes of this machine",
    )
    given = "of Beam's, as in '--direct_num_workers=2'"
    group.add_argument("--runner-options", default="", metavar="FLAGS", help=given)


def add_search_flags(parser: Parser) -> None:
    add_config_flags(parser, SearchConfig)
    _add_output(parser, "search", export=True, overwrite=True)
    machines = parser.add_argument_group("several machines")
    machines.add_argument("--role", choices=("chief", "worker"), help="what this process is to the others")
    machines.add_argument(
        "--chief",
        default="127.0.0.1:0",
        metavar="HOST:PORT",
        help="where the chief is; the transport is not authenticated: use it in a network that you trust",
    )


def add_study_flags(parser: Parser) -> None:
    add_config_flags(parser, StudyConfig)
    _add_output(parser, "study", export=False, overwrite=True)


def add_export_flags(parser: Parser) -> None:
    parser.add_argument(
        "--run", required=True, type=place, metavar="DIR", help="folder of a run, or of a search: its best run"
    )
    parser.add_argument("--output", required=True, type=place, metavar="DIR", help="a new or empty folder, or its URL")
    parser.add_argument("--format", default="savedmodel", help="savedmodel, litert, onnx or keras")
    parser.add_argument("--quantization", default="none", help="of litert: none, float16 or int8")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="scale the confidence by the temperature that fits the validation photos",
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def add_report_flags(parser: Parser) -> None:
    parser.add_argument(
        "folders", nargs="+", type=place, metavar="DIR", help="folder of a run, of a search or of a study"
    )
    parser.add_argument(
        "--output",
        type=place,
        default="report.html",
        metavar="FILE",
        help="the page; an earlier report there is replaced",
    )


def add_predict_flags(parser: Parser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        type=place,
        metavar="DIR",
        help="folder of a run, of a search, or of an export, or its URL",
    )
    parser.add_argument(
        "photos",
        nargs="*",
        type=place,
        metavar="PHOTO",
        help="a file or folder, the URL of one, or - for names on standard input, one a line",
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--csv", dest="form", action="store_const", const="csv", help="print CSV")
    forms.add_argument(
        "--json", dest="form", action="store_const", const="json", help="print a JSON object a line, with the top 5"
    )
    parser.set_defaults(form="table")
    many = parser.add_argument_group("very many photos")
    many.add_argument(
        "--list", type=place, metavar="FILE", help="a text file of photos in place of PHOTO, a name or URL a line"
    )
    many.add_argument(
        "--output", type=place, metavar="DIR", help="folder, or URL, for the CSV files of a --list's portions"
    )
    _add_runner(many)
    one = many.add_mutually_exclusive_group()
    one.add_argument(
        "--shards",
        type=int,
        metavar="N",
        help=f"do N portions one by one, or with --runner, {PORTIONS} if not given; finished ones are kept",
    )
    one.add_argument("--shard", metavar="I/N", help="do portion I of N alone, counted from 1")


def add_serve_flags(parser: Parser) -> None:
    parser.add_argument("model", type=place, metavar="DIR", help="folder of a run, of a search, or of an export")
    parser.add_argument("--host", default="127.0.0.1", type=place, help="address to listen at")
    parser.add_argument("--port", type=int, default=8501, metavar="INT", help="0 for any that is free")
    parser.add_argument(
        "--allow-origins",
        default="",
        metavar="URLS",
        help="web sites whose pages may use the model too, as https://example.org,https://example.net; * for all",
    )


def add_backbones_flags(parser: Parser) -> None:
    parser.add_argument("names", nargs="*", type=place, metavar="NAME", help="only these")


def add_boundaries_flags(parser: Parser) -> None:
    parser.add_argument("backbone", type=place, help="a name that `ktl backbones` lists, or a classifier's .keras file")
    parser.add_argument("--image-size", type=int, metavar="INT", help="side of the input in pixels")


LEAST_NAME = 6
"""Digits of the name of a cache's entry that tell which is meant."""


def add_cache_flags(parser: Parser) -> None:
    parser.add_argument("action", choices=("list", "clear"), help="show what is there, or remove it")
    parser.add_argument(
        "entries",
        nargs="*",
        type=place,
        metavar="ENTRY",
        help=f"only these: their names, or the first {LEAST_NAME} digits or more",
    )
    parser.add_argument(
        "--cache-dir", type=place, metavar="DIR", help="the cache's folder (default: in the user's cache folder)"
    )
    parser.add_argument("--json", action="store_true", help="print what was found, or removed, as JSON")
