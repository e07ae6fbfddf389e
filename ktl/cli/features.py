"""`ktl features`: what the frozen layers give, computed for later runs."""

import contextlib
import json
import sys
from argparse import Namespace

from ktl.cli.console import TerminalReporter
from ktl.cli.flags import config_from
from ktl.cli.tables import output_console
from ktl.distributed.features import Computed, FeaturePass
from ktl.distributed.portions import Portion, portion_of


def run(options: Namespace) -> None:
    """Computes the features of all photos, or of a portion of them, and prints what was done.

    Raises:
        UserError: bad settings or photos, or no such portion.
    """
    portion = portion_of(options.shard) if options.shard else Portion()
    with contextlib.redirect_stdout(sys.stderr):  # Keras prints the progress of downloads
        computed = FeaturePass(config_from(options), reporter=TerminalReporter()).compute(portion)
    if options.json:
        print(json.dumps(computed.as_dict()))
    else:
        _print(computed)


def _print(computed: Computed) -> None:
    filled, portion = computed.filled, computed.portion
    which = f"shard {portion} of {computed.dataset}" if portion.count > 1 else computed.dataset
    rate = f", {computed.photos / computed.seconds:,.0f} photos/s" if computed.photos else ""
    bad = f", {len(filled.bad_photos):,} cannot be read" if filled.bad_photos else ""
    lines = [
        f"{which}: {filled.photos:,} photos, {filled.there:,} were there, {computed.photos:,} computed{rate}{bad}",
        *(f"{name}: {' x '.join(map(str, shape))} {filled.dtype}" for name, shape in filled.features.items()),
        f"{filled.nbytes / 2**30:.3f} GiB in {filled.folder}",
    ]
    output_console().print(*lines, sep="\n", soft_wrap=True, markup=False)
