"""The commands of `ktl`: what each does, and the table of them. What is heavy is imported when a command runs."""

import contextlib
import dataclasses
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

from ktl.cli import flags
from ktl.cli.flags import Parser, config_from


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        help: its line in `ktl --help`.
        add_flags: declares its flags.
        run: carries it out; may return an exit code.
        description: what its own --help says first.
        loads_tensorflow: whether it needs TensorFlow, which takes seconds to load.
    """

    help: str
    add_flags: Callable[[Parser], None]
    run: Callable[[Namespace], int | None]
    description: str | None = None
    loads_tensorflow: bool = True


def _run(options: Namespace) -> None:
    config = config_from(options)
    from ktl.cli import console as progress
    from ktl.runs import run as runs

    folder = options.output or runs.default_output(config)
    runs.check_places(config, output=folder, export=options.export)
    wanted = _wanted_export(options, folder, settings=config.as_dict())
    with contextlib.redirect_stdout(sys.stderr):  # Keras prints the progress of downloads
        result = runs.run(config, output=folder, verbose=progress.TerminalReporter())
        if wanted:
            _export_once(folder, wanted)
    if options.json:
        print(json.dumps(result))
    else:
        progress.print_result(result, folder)


def _search(options: Namespace) -> None:
    config = config_from(options)
    from ktl.cli import console as progress
    from ktl.runs import run as runs
    from ktl.tuning import search as searches
    from ktl.tuning import search_folder as results

    folder = options.output or runs.default_output(config)
    runs.check_places(config, output=folder, export=options.export)
    wanted = _wanted_export(options, folder)
    with contextlib.redirect_stdout(sys.stderr):
        result = searches.search(
            config,
            output=folder,
            overwrite=options.overwrite,
            role=options.role,
            chief=options.chief,
            verbose=progress.TerminalReporter(),
        )
        if result is None:  # of a worker: the chief has it
            return
        if wanted:
            _export_once(folder, wanted)
    if options.json:
        print(json.dumps(result))
    else:
        progress.print_search(result, results.read_trials(folder), folder)


def _study(options: Namespace) -> None:
    config = config_from(options)
    from ktl.cli import console as progress
    from ktl.runs import run as runs
    from ktl.studies import study as studies

    folder = options.output or runs.default_output(config)
    with contextlib.redirect_stdout(sys.stderr):
        result = studies.study(config, output=folder, overwrite=options.overwrite, verbose=progress.TerminalReporter())
    if options.json:
        print(json.dumps(result))
    else:
        progress.print_study(result, folder)


def _export(options: Namespace) -> None:
    from ktl.cli import console as progress
    from ktl.exporting import export as exporting

    with contextlib.redirect_stdout(sys.stderr):
        found = exporting.export(
            run=options.run,
            output=options.output,
            format=options.format,
            quantization=options.quantization,
            calibrate=options.calibrate,
            verbose=progress.TerminalReporter(),
        )
    if options.json:
        print(json.dumps(found))
    else:
        progress.print_export(found, options.output)


def _export_once(folder: Path | str, output: Path | str) -> None:
    from ktl.cli import console as progress
    from ktl.exporting import export as exporting

    exporting.export_once(folder, output=output, verbose=progress.TerminalReporter())


def _wanted_export(options: Namespace, folder: Path | str, *, settings: Mapping | None = None) -> Path | str | None:
    """Where an export of a run in this folder, with these settings, is to go; None if none is wanted."""
    if not options.export:
        return None
    from ktl.errors import UserError
    from ktl.exporting.place import place_for_export
    from ktl.exporting.place_at import folder_for
    from ktl.folders import is_inside
    from ktl.names import is_url

    with folder_for(options.export, argument="export") as place:
        place_for_export(place, settings=settings)
    if not is_url(options.export) and is_inside(folder, options.export):
        raise UserError(
            f"Expected `export` to be a folder of its own. Received: {options.export}, in which `output` {folder} is"
        )
    return options.export


def _report(options: Namespace) -> None:
    from ktl.reporting import page as report

    with contextlib.redirect_stdout(sys.stderr):
        path = report.write_report(options.folders, output=options.output)
    print(path)


def _predict(options: Namespace) -> int:
    from ktl.cli import console as progress
    from ktl.cli import predictions
    from ktl.inference.predictor import load_predictor

    predictions.check_flags(options)
    with contextlib.redirect_stdout(sys.stderr):
        model = load_predictor(options.model)
    if options.list:
        return predictions.write_predictions(model, options, reporter=progress.TerminalReporter())
    return predictions.print_predictions(model, options.photos, form=options.form, reporter=progress.TerminalReporter())


def _serve(options: Namespace) -> None:
    from ktl.cli import console as progress
    from ktl.serving import app as server

    server.serve(
        options.model,
        host=options.host,
        port=options.port,
        allow_origins=options.allow_origins.replace(",", " ").split(),
        verbose=progress.TerminalReporter(),
    )


def _cache(options: Namespace) -> None:
    from ktl.cli import cache

    cache.run(options)


def _features(options: Namespace) -> None:
    from ktl.cli import features

    features.run(options)


def _list_backbones(options: Namespace) -> None:
    from ktl.cli import console as progress

    progress.print_backbones(options.names)


def _list_boundaries(options: Namespace) -> None:
    from ktl.cli import console as progress

    progress.print_boundaries(options.backbone, options.image_size)


COMMANDS = {
    "run": Command(
        help="fine-tune a backbone on a data set",
        description="Fine-tunes a backbone that keeps its ImageNet classification layer, and scores it on the test "
        "photos. The same command again continues a run that was stopped.",
        add_flags=flags.add_run_flags,
        run=_run,
    ),
    "search": Command(
        help="search freeze depth, scale and other settings",
        description="Searches the settings that are the best by validation with KerasTuner, and scores the best "
        "trial's model on the test photos. The same command again continues a search that was stopped.",
        add_flags=flags.add_search_flags,
        run=_search,
    ),
    "study": Command(
        help="find out whether keeping the ImageNet layer pays on a data set",
        description="Compares heads at several freeze depths with equal data, budget, tries and seeds, and tells by "
        "how much each differs from the replaced layer. The same command again continues a study that was stopped.",
        add_flags=flags.add_study_flags,
        run=_study,
    ),
    "features": Command(
        help="compute frozen layers for later runs, of all photos or one portion of many",
        description="Computes what the frozen layers give for the photos, into the cache, without a training. Runs, "
        "searches and studies with the same settings find it there. The flags are those of `ktl run`; --freeze-depth "
        "takes several, separated by commas. The same command again continues one that was stopped.",
        add_flags=flags.add_features_flags,
        run=_features,
    ),
    "export": Command(
        help="write a run's model as a SavedModel, or for LiteRT, ONNX or Keras",
        description="Writes a run's model for use elsewhere, with its labels and a model card. A fresh process then "
        "compares it with what the run gave on its test photos; an export that differs is removed.",
        add_flags=flags.add_export_flags,
        run=_export,
    ),
    "report": Command(
        help="show a run, a search or a study as one HTML page, or compare several runs",
        description="Writes one HTML page that needs nothing else to be read: of a run, of a search and its best run, "
        "of a study, or a comparison of several runs or searches.",
        add_flags=flags.add_report_flags,
        run=_report,
        loads_tensorflow=False,
    ),
    "predict": Command(
        help="label photos with a trained model",
        description="Labels photos with the model of a run, of a search (its best run), or of an export. Photos that "
        "cannot be read are named, the rest is done, and the exit code is 1.",
        add_flags=flags.add_predict_flags,
        run=_predict,
    ),
    "serve": Command(
        help="try a trained model on a web page, and predict over HTTP",
        description="Serves a web page to try a model, and TensorFlow Serving's predict API. There is no "
        "authentication. Ctrl-C ends it.",
        add_flags=flags.add_serve_flags,
        run=_serve,
    ),
    "backbones": Command(
        help="list the backbones",
        add_flags=flags.add_backbones_flags,
        run=_list_backbones,
    ),
    "boundaries": Command(
        help="list where a backbone can be frozen",
        add_flags=flags.add_boundaries_flags,
        run=_list_boundaries,
    ),
    "cache": Command(
        help="show or remove what is kept of frozen layers",
        description="Shows or removes the features of photos that runs, searches and studies keep on disk. Nothing "
        "that ktl did not make is counted or removed; others may read and compute meanwhile.",
        add_flags=flags.add_cache_flags,
        run=_cache,
        loads_tensorflow=False,
    ),
}
