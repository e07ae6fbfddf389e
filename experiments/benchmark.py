"""How much the cached frozen prefix saves: `python experiments/benchmark.py --dataset PATH --weights FILE [--quick]`.

Every way of doing the same work runs in a process of its own, one at a time, the ways interleaved over the rounds;
reported are medians of wall seconds, and of the ratios to the baseline of the same round. Seconds leave out imports,
building the data set's index and the network, and, where a section does not say otherwise, decoding: photos are decoded
beforehand, into up to 8 GiB. That is a head start for the baselines, whose first epoch would have to decode them.

On Oxford 17 Flowers with MobileNet 0.75 and two CPU cores, 30 epochs up to conv_pw_11_relu were 4.1 times as fast as in
plain Keras, 4 trials at four depths 4.3 times as fast as KerasTuner's; docs/performance.md has the other numbers.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from benchmarks import SECTIONS
from benchmarks.accelerator import PARTS
from benchmarks.guide import COPIED, WAYS
from benchmarks.processes import measurements
from benchmarks.tables import table

from ktl.cli.flags import Parser
from ktl.errors import UserError
from ktl.files import write_atomically
from ktl.folders import make_folder, make_place

DEPTHS = ["conv_pw_9_relu", "conv_pw_11_relu", "conv_pw_13_relu", "all"]
QUICK_ACCELERATOR = {"batches": [2], "shares": [0.5], "side": 32, "steps": 2, "repeats": 1, "product": 64}
QUICK = {"rounds": 1, "epochs": 2, "grid_epochs": 2, "photos_a_class": 1, "sample": 8, "photos": 60, "memory_gib": 0.2}


def main() -> int:
    options = parse()
    report = {"settings": vars(options), "environment": {}, "measured": []}
    for section in options.sections:
        for row in measurements(section, options):
            report["environment"] = row.pop("environment") or report["environment"]
            report["measured"].append(row)
            print(f"{section}, {row['case']}, {row['way']}: {json.dumps(row)}", file=sys.stderr)
            if options.json:
                write_atomically(options.json, json.dumps(report, indent=2) + "\n")
        rows = [row for row in report["measured"] if row["section"] == section]
        print(f"## {section}", "", *table(rows), "", sep="\n", flush=True)
    return int(any(row["failed"] for row in report["measured"]))


def parse() -> argparse.Namespace:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir", help="folder with data sets that TensorFlow Datasets has prepared")
    parser.add_argument("--photos-a-class", type=int, metavar="N", help="the first N of each split; all if not given")
    parser.add_argument("--backbone", default="mobilenet_0.75")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument(
        "--depths", nargs="+", default=["conv_pw_11_relu", "all"], help="of training and of a step; start has one"
    )
    parser.add_argument("--epochs", type=int, default=30, help="of training")
    parser.add_argument("--sample", type=int, default=256, help="photos for the variants of the pass")
    parser.add_argument("--grid-depths", nargs="+", default=DEPTHS, help="of the grid, and of one pass for several")
    parser.add_argument("--grid-scales", nargs="+", type=float, default=[1.0, 3.0, 10.0, 30.0])
    parser.add_argument("--grid-epochs", type=int, default=10)
    parser.add_argument("--scaling-depth", default="conv_pw_13_relu")
    parser.add_argument("--photos", type=int, default=2000, metavar="N", help="of beam: so many, repeated if need be")
    parser.add_argument("--memory-depth", default="conv_pw_1_relu")
    parser.add_argument("--memory-gib", type=float, default=20.0, help="size of the cache in the memory section")
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="of guide; all if not given")
    parser.add_argument("--timm-python", metavar="PATH", help="a Python with PyTorch and timm; for a way of guide")
    add_accelerator(parser)
    parser.add_argument("--cache-dir", help="where caches are written, and removed; the temporary folder if not given")
    parser.add_argument("--rounds", type=int, help="of every section; the section's own number if not given")
    parser.add_argument("--quick", action="store_true", help="little work of each kind, to see that it works")
    parser.add_argument("--json", metavar="FILE", help="write all measurements here, after each of them")
    options = parser.parse_args()
    check_timm(parser, options)
    try:
        make_places(options)
    except UserError as error:
        parser.error(parser.as_flags(str(error)))
    if options.quick:
        make_quick(options)
    return options


def add_accelerator(parser: Parser) -> None:
    """The flags of its section."""
    accelerator = parser.add_argument_group("accelerator, on each backend of Keras that is installed")
    accelerator.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    accelerator.add_argument(
        "--trials-depth", default="all", help="of trials one by one and at once; others than all need JAX and a GPU"
    )
    accelerator.add_argument(
        "--sampled", type=int, default=3, metavar="N", help="trials one by one, and depths of KerasTuner, that are run"
    )
    accelerator.add_argument("--backbones", nargs="+", default=["resnet50", "efficientnetv2b0", "mobilenet_0.75"])
    accelerator.add_argument("--precisions", nargs="+", default=["float32", "mixed_bfloat16"])
    accelerator.add_argument("--batches", nargs="+", type=int, default=[64, 256, 1024])
    accelerator.add_argument(
        "--shares", nargs="+", type=float, default=[0.25, 0.5, 0.75], help="of a pass, frozen before the steps"
    )
    accelerator.add_argument("--side", type=int, metavar="PIXELS", help="of made-up photos; the backbone's own")
    accelerator.add_argument("--steps", type=int, default=50, help="of training that are measured")
    accelerator.add_argument("--repeats", type=int, default=5, help="of a pass, of which the fastest counts")
    accelerator.add_argument(
        "--product", type=int, default=8192, metavar="N", help="matrices of N x N that are multiplied"
    )


def make_quick(options: argparse.Namespace) -> None:
    """Changes the settings to little work of each kind."""
    trials = {"grid_depths": options.grid_depths[-2:], "grid_scales": options.grid_scales[:1], "sampled": 1}
    vars(options).update(QUICK, depths=options.depths[-1:], **trials, **QUICK_ACCELERATOR)


def make_places(options: argparse.Namespace) -> None:
    """Makes the folders that are written to, before anything is measured.

    Raises:
        UserError: one of them cannot be made, or is in the place of a file.
    """
    if options.cache_dir:
        make_folder(Path(options.cache_dir), argument="cache_dir")
    if options.json:
        make_place(options.json, argument="json")


def check_timm(parser: Parser, options: argparse.Namespace) -> None:
    """Ends the program in one line where the fine-tuning of timm is asked for and cannot be run."""
    if options.timm_python is None:
        return
    if shutil.which(options.timm_python) is None:
        parser.error(f"Expected --timm-python to be a program. Received: {options.timm_python}")
    if not options.backbone.startswith(COPIED):
        parser.error(f"Expected --backbone {COPIED}WIDTH with --timm-python. Received: {options.backbone}")


if __name__ == "__main__":
    sys.exit(main())
