"""Whether two commits of this repository give the same numbers: `python experiments/compare_commits.py BEFORE AFTER`.

Runs, searches and a study of seeded photos by a small seeded network, through each commit's own command line. What must
not differ: the features in the cache, each epoch's history, trials, the study's runs, class probabilities. Seconds may.

e7f2b7f (version 0.1) and ca660bf (packages, one class of networks): 0 differences in 44 files of 15 commands, in
2.5 minutes of CPU time.
"""

import argparse
import contextlib
import csv
import hashlib
import importlib
import itertools
import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TABLES = ("history.csv", "trials.csv", "runs.csv", "summary.csv")
FLAGS = ("--dataset", "photos", "--backbone", "tiny.keras", "--epochs", "2", "--batch-size", "16")
RUNS = {
    f"run-{head}-{depth}-{cache}": ("--head", head, "--freeze-depth", depth, "--cache", cache)
    for head, depth, cache in itertools.product(
        ("kept", "kept_beside", "replaced"), ("all", "block_relu"), ("on", "off")
    )
}
SEARCHES = {
    "search": ("--space", "freeze_depth=block_relu,all scale=1,10", "--cache", "on"),
    "search-2-seeds": ("--space", "head=kept,replaced", "--seeds", "2", "--cache", "off"),
}
STUDIES = {
    "study": ("--heads", "kept,replaced", "--depths", "all", "--shares", "0.5", "--seeds", "2", "--epochs", "1"),
}
COMMANDS = {
    name: (command, *FLAGS, *flags)
    for command, table in (("run", RUNS), ("search", SEARCHES), ("study", STUDIES))
    for name, flags in table.items()
}
"""Output folder -> arguments of `python -m ktl`; a later flag takes the place of an earlier one."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", metavar="BEFORE", help="a commit, as git knows it")
    parser.add_argument("after", metavar="AFTER", help="another one")
    commits = [getattr(parser.parse_args(), name) for name in ("before", "after")]
    # Sums are rounded in the order in which threads end; and each commit has a core of its own.
    os.environ.update({f"TF_NUM_{kind}_THREADS": "1" for kind in ("INTRAOP", "INTEROP")}, OMP_NUM_THREADS="1")
    os.environ.update(TF_CPU_ALLOCATOR_USE_BFC="true", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    with tempfile.TemporaryDirectory(prefix="ktl-commits-") as folder:
        data = Path(folder, "data")
        write_photos(data / "photos")
        processes = multiprocessing.get_context("spawn")
        run_all([processes.Process(target=write_backbone, args=(data / "tiny.keras",))])
        works = [Path(folder, f"{side}-work") for side in ("before", "after")]
        trees = [check_out(commit, Path(folder, f"tree-{place}")) for place, commit in enumerate(commits)]
        for work in works:
            shutil.copytree(data, work)
        run_all([processes.Process(target=run_commands, args=pair) for pair in zip(trees, works, strict=True)])
        found = list(differences(*works))
        compared = sum(1 for _ in results(works[0]))
    print(*found, f"{len(found)} differences in {compared} files of {len(COMMANDS)} commands", sep="\n")
    return 1 if found else 0


def run_all(processes: list) -> None:
    """At the same time; ends this process if one of them fails."""
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit(2)


def check_out(commit: str, folder: Path) -> Path:
    """The package as it is in that commit."""
    folder.mkdir()
    archive = subprocess.run(["git", "-C", REPOSITORY, "archive", commit, "ktl"], stdout=subprocess.PIPE)
    if archive.returncode:  # git has said why
        sys.exit(2)
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


def write_photos(folder: Path, *, classes: int = 4, each: int = 16) -> None:
    """Class folders of stripes, 48 x 56 pixels: the direction is the class, the rest is chance."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:48, 0:56]
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        angle = np.pi * label / classes
        for index in range(each):
            stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 0.4 + generator.uniform(0, 6))
            pixels = 128 + 50 * stripes[..., None] * [1, -0.4, 0.6] + generator.normal(0, 30, (48, 56, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"class{label}" / f"{index:02}.png")


def write_backbone(path: Path) -> None:
    """A classifier of 20 classes with random weights: 42 x 42 pixels in 0..255, three convolutions."""
    import_quietly("keras")
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    pixels = keras.Input((42, 42, 3))
    x = layers.Rescaling(1 / 127.5, -1, name="rescale")(pixels)
    for name, filters, size in (("stem", 8, 3), ("block", 16, 3), ("point", 24, 1)):
        x = layers.Conv2D(filters, size, strides=2 if size > 1 else 1, padding="same", use_bias=False, name=name)(x)
        x = layers.BatchNormalization(name=f"{name}_norm")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.Dropout(0.1, name="dropout")(layers.GlobalAveragePooling2D(name="pool")(x))
    keras.Model(pixels, layers.Dense(20, activation="softmax", name="predictions")(x)).save(path)


def run_commands(tree: Path, work: Path) -> None:
    """`python -m ktl` of that tree, once for each command; forked, so that TensorFlow is loaded once."""
    os.chdir(work)
    sys.path.insert(0, str(tree))
    import_quietly("keras", "keras_tuner", "sklearn.metrics")
    for name, arguments in COMMANDS.items():
        child = os.fork()
        if not child:
            os._exit(run_command(tree, [*arguments, "--cache-dir", "cache", "--output", name], Path(f"{name}.log")))
        if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            print(f"{name}, exit code {code}:", Path(f"{name}.log").read_text(), file=sys.stderr)
            sys.exit(1)


def import_quietly(*packages: str) -> None:
    """Without what TensorFlow writes to standard error before it obeys any log level."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    for package in packages:
        importlib.import_module(package)
    os.dup2(kept, 2)
    os.close(kept)


def run_command(tree: Path, arguments: list[str], log: Path) -> int:
    """The exit code of `python -m ktl ARGUMENTS`; what it says goes to `log`."""
    with log.open("w") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    sys.argv = ["ktl", *arguments]
    try:
        runpy.run_module("ktl", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if Path(sys.modules["ktl"].__file__).is_relative_to(tree):
            return end.code or 0
    except BaseException:  # a forked process must not go on with what its parent was about to do
        sys.excepthook(*sys.exc_info())
    sys.stderr.flush()
    return 1


def differences(before: Path, after: Path) -> Iterator[str]:
    """A line for each file that is not the same, and for what is there on one side alone."""
    then, now = dict(results(before)), dict(results(after))
    for name in sorted(then.keys() | now.keys()):
        if name not in then or name not in now:
            yield f"{name}: only {'after' if name in now else 'before'}"
        elif then[name] != now[name]:
            yield f"{name}: {first_difference(then[name], now[name])}"


def results(work: Path) -> Iterator[tuple[str, list[dict]]]:
    """Name and content, as rows, of each result."""
    features = sorted(digest(path.read_bytes()) for path in (work / "cache").rglob("*.bin"))
    yield from ((f"cache: features with digest {name}", []) for name in features)
    for path in sorted(work.rglob("*")):
        name = str(path.relative_to(work))
        if path.name in TABLES:
            yield name, list(table(path))
        elif path.name == "probabilities.npz":
            yield name, arrays(path)


def table(path: Path) -> Iterator[dict]:
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            yield {column: value for column, value in row.items() if "seconds" not in column}


def arrays(path: Path) -> list[dict]:
    """A row for each line of each array."""
    import numpy as np

    with np.load(path) as found:
        return [{name: line} for name in sorted(found.files) for line in np.atleast_1d(found[name]).tolist()]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def first_difference(before: list[dict], after: list[dict]) -> str:
    for number, (then, now) in enumerate(zip(before, after, strict=False), start=1):
        changed = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        if changed:
            key = changed[0]
            return f"row {number}, {key}: {then.get(key)} before, {now.get(key)} after"
    return f"{len(before)} rows before, {len(after)} after"


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
