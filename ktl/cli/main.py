"""The command line: flags from the config's fields, errors in one line, heavy imports inside the sub-commands."""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import typing
from pathlib import Path

from ktl.config.settings import RunConfig, SearchConfig, StudyConfig, flag_of
from ktl.errors import UserError
from ktl.files import new_folder
from ktl.process import prepare_process

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Runs a sub-command; returns the exit code: 0 done, 1 done but for some photos, 2 bad input, 130 interrupted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        prepare_process()
        return options.handler(options) or 0
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; repeat the command to continue", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ktl", description="Transfer learning that keeps the ImageNet classification layer.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_search(commands)
    _add_study(commands)
    _add_export(commands)
    _add_report(commands)
    _add_predict(commands)
    _add_serve(commands)
    _add_backbones(commands)
    _add_boundaries(commands)
    return parser


class Parser(argparse.ArgumentParser):
    """Tells of a bad flag in one line, as of every other bad input."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}. {self.prog} --help lists the flags\n")

    def parse_known_args(self, args=None, namespace=None):
        """Leaves no flag for the parser above, whose --help does not list those of its commands."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown


class _Formatter(argparse.HelpFormatter):
    """Appends each flag's default to its help."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=32, width=110)

    def _get_help_string(self, action):
        if action.default in (None, False, argparse.SUPPRESS) or action.required:
            return action.help
        return f"{action.help} (default: %(default)s)"


def add_config_flags(parser: argparse.ArgumentParser, config_class: type, *, without: tuple[str, ...] = ()) -> None:
    """One flag for each field of a config dataclass but those that `without` names, in its groups."""
    groups, types = {}, typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        if field.name in without:
            continue
        group = field.metadata["group"]
        groups[group] = groups.get(group) or parser.add_argument_group(group)
        flag = flag_of(field.name)
        help_text = field.metadata["help"].replace("%", "%%")
        if types[field.name] is bool:
            groups[group].add_argument(flag, action="store_true", help=help_text)
            continue
        required = field.default is dataclasses.MISSING
        groups[group].add_argument(
            flag,
            type=_scalar_type(types[field.name]),
            required=required,
            default=None if required else field.default,
            choices=field.metadata["choices"],
            metavar=None if field.metadata["choices"] else _scalar_type(types[field.name]).__name__.upper(),
            help=help_text,
        )


def config_from(options: argparse.Namespace, config_class: type):
    """The config that parsed flags describe."""
    names = [field.name for field in dataclasses.fields(config_class) if hasattr(options, field.name)]
    return config_class(**{name: getattr(options, name) for name in names})


def _scalar_type(annotation) -> type:
    """`int` of `int | None`."""
    return next((t for t in typing.get_args(annotation) if t is not type(None)), annotation)


def _add_output(parser: argparse.ArgumentParser, kind: str, *, export: bool, overwrite: bool) -> None:
    """The flags that say where results go; those of the last two where they are wanted."""
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output", metavar="DIR", help=f"the {kind}'s folder (default: one under runs/, named after the settings)"
    )
    output.add_argument(
        "--json", action="store_true", help="print result.json on standard output, all else on standard error"
    )
    if export:
        output.add_argument(
            "--export", metavar="DIR", help="write a SavedModel there too; `ktl export` has more formats"
        )
    if overwrite:
        output.add_argument("--overwrite", action="store_true", help=f"remove a {kind} that is in that folder")


def _add_run(commands) -> None:
    parser = commands.add_parser(
        "run",
        help="fine-tune a backbone on a data set",
        description="Fine-tunes a backbone that keeps its ImageNet classification layer, and scores it on the test "
        "photos. The same command again continues a run that was stopped.",
        formatter_class=_Formatter,
    )
    add_config_flags(parser, RunConfig)
    _add_output(parser, "run", export=True, overwrite=False)
    parser.set_defaults(handler=_run)


def _run(options) -> None:
    config = config_from(options, RunConfig)
    from ktl.cli import console as progress
    from ktl.exporting import export as exporting
    from ktl.runs import run as runs

    folder = options.output or runs.default_output(config)
    wanted = _wanted_export(options)
    if wanted:
        exporting.check_same_run(config, wanted)
    with contextlib.redirect_stdout(sys.stderr):  # Keras prints the progress of downloads
        result = runs.run(config, output=folder, reporter=progress.TerminalReporter())
        if wanted:
            exporting.export_once(folder, output=wanted, reporter=progress.TerminalReporter())
    if options.json:
        print(json.dumps(result))
    else:
        progress.print_result(result, folder)


def _add_search(commands) -> None:
    parser = commands.add_parser(
        "search",
        help="search freeze depth, scale and other settings",
        description="Searches the settings with the highest validation top-1 with KerasTuner, and scores the best "
        "trial's model on the test photos. The same command again continues a search that was stopped.",
        formatter_class=_Formatter,
    )
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
    parser.set_defaults(handler=_search)


def _search(options) -> None:
    config = config_from(options, SearchConfig)
    from ktl.cli import console as progress
    from ktl.exporting import export as exporting
    from ktl.runs import run as runs
    from ktl.runs import run_folder as results
    from ktl.tuning import search as searches

    folder = options.output or runs.default_output(config)
    wanted = _wanted_export(options)
    with contextlib.redirect_stdout(sys.stderr):
        result = searches.search(
            config,
            output=folder,
            overwrite=options.overwrite,
            role=options.role,
            chief=options.chief,
            reporter=progress.TerminalReporter(),
        )
        if options.role == "worker":
            return
        if wanted:
            exporting.export_once(folder, output=wanted, reporter=progress.TerminalReporter())
    if options.json:
        print(json.dumps(result))
    else:
        progress.print_search(result, results.read_trials(folder), folder)


def _add_study(commands) -> None:
    parser = commands.add_parser(
        "study",
        help="find out whether keeping the ImageNet layer pays on a data set",
        description="Compares heads at several freeze depths with equal data, budget, tries and seeds, and tells by "
        "how much each differs from the replaced layer. The same command again continues a study that was stopped.",
        formatter_class=_Formatter,
    )
    add_config_flags(parser, StudyConfig, without=StudyConfig.VARIED)
    _add_output(parser, "study", export=False, overwrite=True)
    parser.set_defaults(handler=_study)


def _study(options) -> None:
    config = config_from(options, StudyConfig)
    from ktl.cli import console as progress
    from ktl.runs import run as runs
    from ktl.studies import study as studies

    folder = options.output or runs.default_output(config)
    with contextlib.redirect_stdout(sys.stderr):
        result = studies.study(config, output=folder, overwrite=options.overwrite, reporter=progress.TerminalReporter())
    if options.json:
        print(json.dumps(result))
    else:
        progress.print_study(result, folder)


def _add_export(commands) -> None:
    parser = commands.add_parser(
        "export",
        help="write a run's model as a SavedModel, or for LiteRT, ONNX or Keras",
        description="Writes a run's model for use elsewhere, with its labels and a model card. A fresh process then "
        "compares it with what the run gave on its test photos; an export that differs is removed.",
        formatter_class=_Formatter,
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="folder of a run, or of a search: its best run")
    parser.add_argument("--output", required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--format", default="savedmodel", help="savedmodel, litert, onnx or keras")
    parser.add_argument("--quantization", default="none", help="of litert: none, float16 or int8")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="scale the confidence by the temperature that fits the validation photos",
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.set_defaults(handler=_export)


def _export(options) -> None:
    from ktl.cli import console as progress
    from ktl.exporting import export as exporting

    with contextlib.redirect_stdout(sys.stderr):
        found = exporting.export(
            options.run,
            output=options.output,
            format=options.format,
            quantization=options.quantization,
            calibrate=options.calibrate,
            reporter=progress.TerminalReporter(),
        )
    if options.json:
        print(json.dumps(found))
    else:
        progress.print_export(found, options.output)


def _wanted_export(options) -> Path | None:
    """Where an export is to go, a new or empty folder or one with an export; None if none is wanted."""
    if not options.export:
        return None
    from ktl.exporting import export as exporting

    folder = Path(options.export)
    if (folder / "MODEL_CARD.md").exists():
        return folder
    exporting.remove_partial(folder)
    return new_folder(folder, flag="--export")


def _add_report(commands) -> None:
    parser = commands.add_parser(
        "report",
        help="show a run, a search or a study as one HTML page, or compare several runs",
        description="Writes one HTML page that needs nothing else to be read: of a run, of a search and its best run, "
        "of a study, or a comparison of several runs or searches.",
        formatter_class=_Formatter,
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder of a run, of a search or of a study")
    parser.add_argument(
        "--output", default="report.html", metavar="FILE", help="the page; an earlier report there is replaced"
    )
    parser.set_defaults(handler=_report)


def _report(options) -> None:
    from ktl.reporting import page as report

    with contextlib.redirect_stdout(sys.stderr):
        path = report.write_report(options.folders, output=options.output)
    print(path)


def _add_predict(commands) -> None:
    parser = commands.add_parser(
        "predict",
        help="label photos with a trained model",
        description="Labels photos with the model of a run, of a search (its best run), or of an export. Photos that "
        "cannot be read are named, the rest is done, and the exit code is 1.",
        formatter_class=_Formatter,
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="folder of a run, of a search, or of an export")
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="a file, a folder, or - for names on standard input, one a line"
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--csv", dest="form", action="store_const", const="csv", help="print CSV")
    forms.add_argument(
        "--json", dest="form", action="store_const", const="json", help="print a JSON object a line, with the top 5"
    )
    parser.set_defaults(handler=_predict, form="table")


def _predict(options) -> int:
    from ktl.cli import console as progress
    from ktl.cli import predictions
    from ktl.inference import predictor as classifier

    with contextlib.redirect_stdout(sys.stderr):
        model = classifier.load_classifier(options.model)
    try:
        return predictions.print_predictions(
            model, options.photos, form=options.form, reporter=progress.TerminalReporter()
        )
    except BrokenPipeError:  # whoever read the rows has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes it once more at its end
        return 0


def _add_serve(commands) -> None:
    parser = commands.add_parser(
        "serve",
        help="try a trained model on a web page, and predict over HTTP",
        description="Serves a web page to try a model, and TensorFlow Serving's predict API. There is no "
        "authentication. Ctrl-C ends it.",
        formatter_class=_Formatter,
    )
    parser.add_argument("model", metavar="DIR", help="folder of a run, of a search, or of an export")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=8501, metavar="INT", help="0 for any that is free")
    parser.set_defaults(handler=_serve)


def _serve(options) -> None:
    from ktl.cli import console as progress
    from ktl.serving import app as server

    server.serve(options.model, host=options.host, port=options.port, reporter=progress.TerminalReporter())


def _add_backbones(commands) -> None:
    parser = commands.add_parser("backbones", help="list the backbones", formatter_class=_Formatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.set_defaults(handler=_list_backbones)


def _list_backbones(options) -> None:
    from ktl.cli import console as progress

    progress.print_backbones(options.names)


def _add_boundaries(commands) -> None:
    parser = commands.add_parser("boundaries", help="list where a backbone can be frozen", formatter_class=_Formatter)
    parser.add_argument("backbone", help="a name that `ktl backbones` lists, or a classifier's .keras file")
    parser.add_argument("--image-size", type=int, metavar="INT", help="side of the input in pixels")
    parser.set_defaults(handler=_list_boundaries)


def _list_boundaries(options) -> None:
    from ktl.cli import console as progress

    progress.print_boundaries(options.backbone, options.image_size)
