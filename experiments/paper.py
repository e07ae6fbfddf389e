"""The paper's experiment with VGG16: its five data sets, the ImageNet layer replaced against kept, layer by layer.

    python experiments/paper.py                               # all of it, into runs/paper
    python experiments/paper.py --datasets oxford_flowers102  # a part; the command above adds the others
    python experiments/paper.py --smoke                       # every step in small: offline, on a CPU

The same command again goes on after the last complete epoch of a run. Caltech-256 is a manual download, Birds need
`pip install -e ".[cub]"`; a data set that cannot be had is one line, the others run, and the exit code is 1. Each has a
study's folder, which `ktl report` shows; the final table is paper.csv and paper.json, with fractions.

The paper's (Shermin et al., "Enhanced Transfer Learning with ImageNet Trained Classification Layer", PSIVT 2019, arXiv
1903.10150): VGG16; these data sets; traditional fine-tuning, with a new classification layer (`replaced`), against new
layers behind the kept, normalised and scaled ImageNet layer (`kept`); freezing layer by layer. Its AlexNet is left out:
Keras Applications has none. Our choice, where it leaves things open: logits over their L2 norm, times learned factors;
one new Dense layer; SGD with momentum 0.9, weight decay 5e-4 and new layers at ten times the rate (as in "Growing a
Brain", arXiv 1907.07844), the decay as ktl has it, see `decay_share`; rate and scale, or the multiplier of the new
layers' rate, by validation, from 13 tries of each head at each depth; epochs, batches, crops and flips; TensorFlow
Datasets' splits, of Caltech-256 60 random training photos a class. Traditional fine-tuning, too, gets the freeze depth
that is its best by validation; summary.csv has every depth, `none` among them. Keras' VGG16 has no dropout. Stanford
Dogs has photos of ImageNet, which the backbone was trained on.

It has not been run in full: what is measured of it is the smoke run, each step in small.

Cost, reckoned and not measured: of each data set 102 runs (17 depths, 2 heads, 3 seeds) of up to 30 epochs, and 442
tries of 4 epochs, four of each 13 of which go on to 10; in all at most 200 million photos and 6e18 floating point
operations, most of a day at 100 TFLOP/s, longer where decoding is slower than that. Some 5 GB of downloads, and 2 GB
for the checkpoint of each training that has not ended, of which there are thirteen at most.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import sys
from pathlib import Path

from figures import spread, tenths

from ktl.cli.ends import ended_by, signals_end
from ktl.cli.flags import Parser
from ktl.config.settings import StudyConfig
from ktl.errors import UserError
from ktl.files import write_atomically, write_csv
from ktl.folders import make_folder
from ktl.process import prepare_process
from ktl.reporting.formatting import points

TRAINING_PHOTOS = {
    "oxford_flowers102": 1020,
    "caltech_birds2011": 5394,
    "stanford_dogs": 10800,
    "oxford_iiit_pet": 3312,
    "caltech256": 13824,
}
"""Data set -> about how many there are, a tenth set aside for validation where there are no photos for it."""

DATASETS = tuple(TRAINING_PHOTOS)

L2 = 5e-4
"""The paper's kind of weight decay: its gradient, L2 * kernel, is added to that of the loss."""

RATE = 1e-3
"""For which the decay is reckoned: of the pre-trained layers, in the middle of those that a study tries."""

HEADS = {"traditional": "replaced", "proposed": "kept"}

DEPTHS = (
    *("none", "block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2", "block3_conv1", "block3_conv2"),
    *("block3_conv3", "block4_conv1", "block4_conv2", "block4_conv3", "block5_conv1", "block5_conv2", "block5_conv3"),
    *("fc1", "fc2", "all"),
)
"""All that VGG16 has; of `replaced`, which ends in fc2, the last two are the same."""

PAPER = {
    "backbone": "vgg16",
    "heads": ",".join(HEADS.values()),
    "depths": ",".join(DEPTHS),
    "shares": "none",
    "seeds": 3,
    "optimizer": "sgd",
    "epochs": 30,
    "memory_gib": 8.0,  # no number depends on it; the photos of the largest data set are decoded once
}
SMOKE = PAPER | {
    "weights": "random",
    "depths": "all",
    "seeds": 1,
    "epochs": 1,
    "cache": "on",
    "views": 1,
    "least_steps": 1,
}


def main() -> int:
    """Runs a study a data set; 0 if all are done, 1 if some are, 2 if none is, 130 if interrupted."""
    options = parse()
    rows = []
    try:
        with signals_end():
            for name in options.datasets:
                rows += attempt(name, options)
    except KeyboardInterrupt as error:
        end = ended_by(error)
        print(f"paper.py: {end.line}", file=sys.stderr)
        return end.exit_code
    if rows:
        write(options.output, rows)
        show(rows)
    return 2 if not rows else int(len(rows) < len(options.datasets))


def parse() -> argparse.Namespace:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS, help="some of the five")
    parser.add_argument("--seeds", type=int, metavar="INT", help="of every comparison; 3, or 1 of --smoke")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with data sets that TensorFlow Datasets has prepared")
    parser.add_argument("--output", type=Path, metavar="DIR", help="runs/paper, or runs/paper-smoke of --smoke")
    parser.add_argument("--smoke", action="store_true", help="random weights, few generated photos, one freeze depth")
    parser.set_defaults(parser=parser)
    options = parser.parse_args()
    options.output = options.output or Path("runs", "paper-smoke" if options.smoke else "paper")
    return options


def attempt(name: str, options: argparse.Namespace) -> list[dict]:
    """The table's row of a data set; none, and one line about it, if its study cannot be done."""
    try:
        config = configure(name, options)
        prepare_process()
        from ktl.cli import console as progress
        from ktl.studies import study as studies

        if options.smoke:
            write_photos(Path(config.dataset))
        reporter = progress.TerminalReporter()
        reporter.message(f"{name}:")
        with contextlib.redirect_stdout(sys.stderr):  # Keras prints the progress of downloads
            return [row_of(name, studies.study(config, output=options.output / name, verbose=reporter))]
    except UserError as error:
        print(f"paper.py: {name}: {options.parser.as_flags(str(error))}", file=sys.stderr)
        return []


def configure(name: str, options: argparse.Namespace) -> StudyConfig:
    """The settings of a data set's study."""
    settings = (SMOKE if options.smoke else PAPER) | ({} if options.seeds is None else {"seeds": options.seeds})
    dataset = str(options.output / "photos" / name) if options.smoke else name
    config = StudyConfig(dataset=dataset, data_dir=options.data_dir, **settings)
    steps = config.epochs * max(math.ceil(TRAINING_PHOTOS[name] / config.batch_size), config.least_steps)
    return dataclasses.replace(config, weight_decay=decay_share(L2, rate=RATE, steps=steps))


def decay_share(l2: float, *, rate: float, steps: int, momentum: float = 0.9) -> float:
    """The share of a kernel that an L2 penalty takes away in a training by SGD with momentum, if nothing else moves it.

    A gradient moves a kernel by rate * gradient / (1 - momentum) in the end, since the momentum repeats it; the rates
    of warm-up and cosine are half the peak in the mean. So of the kernel there is left

        exp(-l2 * rate * steps / 2 / (1 - momentum))

    which is ten times as much decay, where l2 is small, as a decoupled decay with the coefficient l2 would give. New
    layers, at ten times the rate, would have ten times the exponent; ktl's decay is one share for all.

    Args:
        l2: the penalty's coefficient: its gradient is l2 * kernel.
        rate: the peak learning rate.
        steps: of the training.
        momentum: of SGD.
    """
    return -math.expm1(-l2 * rate * steps / 2 / (1 - momentum))


def write_photos(folder: Path) -> None:
    """Eight photos in class folders, noise around a colour a class."""
    import numpy as np
    from PIL import Image

    for label, color in enumerate(["red", "green"]):
        make_folder(folder / color)
        for index in range(4):
            noise = np.random.default_rng([label, index]).normal(96, 48, (48, 64, 3)) + 64 * np.eye(3)[label]
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / color / f"{index}.png")


def row_of(name: str, result: dict) -> dict:
    """What a study's result.json says of both ways, each at its best freeze depth."""
    best = {found["head"]: found for found in result["best"]}
    ways = {way: {key: best[head][key] for key in ("freeze_depth", "test_top1")} for way, head in HEADS.items()}
    kept = best[HEADS["proposed"]]
    return {"dataset": name, **ways, "difference": kept["difference"], "verdict": kept["verdict"]}


def write(folder: Path, rows: list[dict]) -> None:
    """paper.json, and paper.csv with a column for each number of it."""
    write_atomically(folder / "paper.json", json.dumps(rows, indent=2) + "\n")
    known = [{**row, "difference": row["difference"] or dict.fromkeys(("estimate", "low", "high"))} for row in rows]
    write_csv(folder / "paper.csv", flat(known[0]), (flat(row).values() for row in known))


def flat(row: dict, prefix: str = "") -> dict:
    """`{"a": {"b": 1}}` as `{"a_b": 1}`."""
    parts = (flat(v, f"{prefix}{k}_") if isinstance(v, dict) else {f"{prefix}{k}": v} for k, v in row.items())
    return {key: value for part in parts for key, value in part.items()}


def show(rows: list[dict]) -> None:
    from rich.table import Table

    from ktl.cli.console import output_console
    from ktl.reporting.study_subject import Estimate

    def shown(interval: dict | None, form=tenths) -> str:
        return spread(Estimate.from_json(interval), form) if interval else ""

    table = Table("data set", *(text for way in HEADS for text in (way, "frozen up to")), "difference", "verdict")
    for row in rows:
        ways = (text for way in HEADS for text in (shown(row[way]["test_top1"]), row[way]["freeze_depth"]))
        table.add_row(row["dataset"], *ways, shown(row["difference"], points), row["verdict"])
    output_console().print(table, "test top-1 and its difference in percent, with 95 % intervals", sep="\n")


if __name__ == "__main__":
    sys.exit(main())
