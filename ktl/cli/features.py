"""`ktl features`: what the frozen layers give, computed for later runs."""

import contextlib
import dataclasses
import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ktl.cli.console import TerminalReporter
from ktl.cli.flags import PORTIONS, config_from
from ktl.cli.runner import check_runner, runner_flags
from ktl.cli.tables import output_console
from ktl.distributed.features import FeaturePass
from ktl.distributed.portions import Portion, all_portions, portion_of
from ktl.errors import UserError
from ktl.folders import make_folder
from ktl.memory import size_in_words
from ktl.runs.run import check_places, depths_of, session_for_features


def run(options: Namespace) -> None:
    """Computes the features of all photos, or of a portion of them, and prints what was done.

    Raises:
        UserError: bad settings or photos, no such portion, or flags that exclude each other.
    """
    config = config_from(options)
    _check_flags(options)
    with contextlib.redirect_stdout(sys.stderr):  # Keras prints the progress of downloads
        found = _on_beam(options, config) if options.runner else _here(options, config)
    if options.json:
        print(json.dumps(found))
    else:
        _print(found)


def _check_flags(options: Namespace) -> None:
    check_runner(options, needed_by=("output", "shards", "runner_options"))
    if options.runner and not options.output:
        raise UserError("Expected `output`, a folder or URL for what was done, with `runner`. Received: none")
    if options.shards is not None:
        all_portions(options.shards)


def _here(options: Namespace, config) -> dict[str, Any]:
    portion = Portion() if options.shard is None else portion_of(options.shard)
    session = session_for_features(config, reporter=TerminalReporter())
    return FeaturePass(session).compute(portion).as_dict()


def _on_beam(options: Namespace, config) -> dict[str, Any]:
    from ktl.distributed import beam

    beam.require_beam()
    flags = runner_flags(options)
    depths_of(config)
    if "://" not in options.output:
        check_places(config, output=options.output)
        make_folder(Path(options.output))
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    portions = options.shards or PORTIONS
    return beam.compute_on_beam(
        settings, runner=options.runner, portions=portions, output=options.output, options=flags
    )


def _print(found: Mapping[str, Any]) -> None:
    which = found["dataset"] if found["shard"] == "1/1" else f"shard {found['shard']} of {found['dataset']}"
    rate = f", {found['computed'] / found['seconds']:,.0f} photos/s" if found["computed"] and found["seconds"] else ""
    bad = f", {len(found['bad_photos']):,} cannot be read" if found["bad_photos"] else ""
    counts = f"{found['photos']:,} photos, {found['there']:,} were there, {found['computed']:,} computed"
    lines = [
        f"{which}: {counts}{rate}{bad}",
        *(f"{name}: {' x '.join(map(str, shape))} {found['dtype']}" for name, shape in found["features"].items()),
        f"{size_in_words(found['bytes'])} in {found['cache_dir']}",
    ]
    output_console().print(*lines, sep="\n", soft_wrap=True)
