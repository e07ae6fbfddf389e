"""What people see on the terminal: progress on standard error, tables on standard output."""

import contextlib
from collections.abc import Mapping
from typing import Any

import keras
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from ktl.cli.tables import PlainConsole, output_console
from ktl.errors import one_line, unknown_name
from ktl.evaluation.metrics import shown_scores
from ktl.models.backbones import BACKBONES, IMAGENET_CLASSES, build_backbone
from ktl.models.boundaries import find_boundaries
from ktl.progress import LoggingReporter, clock

SHOWN_TRIALS = 10


class RateColumn(ProgressColumn):
    """Photos a second."""

    def render(self, task):
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "")


class TerminalReporter(LoggingReporter):
    """Bars where standard error is a terminal; in a log, a line an epoch."""

    def __init__(self):
        super().__init__()
        self.console = PlainConsole(stderr=True)

    def message(self, text):
        self.console.print(one_line(text), soft_wrap=True)

    @contextlib.contextmanager
    def photos(self, task, total):
        with self._bar() as bar:
            identifier = bar.add_task(task, total=total)
            yield lambda done: bar.update(identifier, completed=done)

    def training(self, *, epochs, photos) -> tuple:
        super().training(epochs=epochs, photos=photos)
        return (_BatchProgress(self._bar(), epochs, photos),)

    def _bar(self) -> Progress:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(),
        )
        return Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)


class _BatchProgress(keras.callbacks.Callback):
    """Moves a bar over all photos of all epochs, and takes it away at the end, an interrupted one too."""

    def __init__(self, bar: Progress, epochs: int, photos: int):
        super().__init__()
        self.bar, self.photos, self.first_photo = bar, photos, 0
        self.task = bar.add_task("training", total=epochs * photos, start=False)

    def on_epoch_begin(self, epoch, logs=None):
        self.bar.start()
        self.bar.start_task(self.task)
        self.first_photo = epoch * self.photos

    def on_train_batch_end(self, batch, logs=None):
        assert self.params  # Keras sets them before the first batch
        steps = self.params["steps"]
        self.bar.update(self.task, completed=self.first_photo + self.photos * (batch + 1) / steps)

    def on_train_end(self, logs=None):
        self.bar.stop()


def print_result(result: Mapping[str, Any], folder) -> None:
    """One short table, and where the rest is."""
    table = Table("", "validation", "test")
    for key, title in shown_scores(result["validation"], result["test"]).items():
        table.add_row(title, *(f"{result[split][key]:.4f}" for split in ("validation", "test")))
    console = output_console()
    console.print(table)
    frozen, total = result["parameters"]["frozen"], result["parameters"]["total"]
    console.print(
        f"best epoch {result['best_epoch']} of {result['epochs']}; frozen up to {result['frozen_up_to']}, "
        f"{frozen:,} of {total:,} parameters; {clock(result['seconds'])} in all",
        soft_wrap=True,
    )
    for line in [*_refit_of(result), *_duplicates_of(result)]:
        console.print(line, soft_wrap=True)
    console.print(str(folder), soft_wrap=True)


def _refit_of(result: Mapping[str, Any]) -> list[str]:
    """A line where the model is of a second training."""
    refit = result.get("refit")
    if not refit:
        return []
    folds = result["settings"].get("folds")
    before = f"{folds} folds, each photo by the network that had not seen it" if folds else "the training before"
    epochs = f"{refit['epochs']} epoch{'' if refit['epochs'] == 1 else 's'}"
    return [
        f"the model was trained again on {refit['photos']:,} training and validation photos for {epochs}; validation "
        f"scores are those of {before}"
    ]


def _duplicates_of(result: Mapping[str, Any]) -> list[str]:
    """A line where test photos look like training or validation photos."""
    without = result.get("without_duplicates")  # a run of an earlier version has none
    if without is None or without["photos"] == result["photos"]["test"]:
        return []
    if not without["test"]:
        return ["every test photo looks like a training or validation photo, see duplicates.csv"]
    all_photos, rest = (f"{found['top1']:.4f} on" for found in (result["test"], without["test"]))
    return [
        f"test top-1 {all_photos} {result['photos']['test']:,} photos; {rest} the {without['photos']:,} that look like "
        "no training or validation photo; duplicates.csv has the others"
    ]


def print_search(result: Mapping[str, Any], trials: list[dict], folder) -> None:
    """The best trials, the best one's scores, and where the rest is."""
    names = list(result["space"])
    table = Table("trial", *names, Column("validation top-1", justify="right"), "epochs", "seconds")
    for row in [row for row in trials if row["status"] == "completed"][:SHOWN_TRIALS]:
        score, seconds = float(row["validation_top1"]), float(row["seconds"])
        table.add_row(row["trial"], *(row[name] for name in names), f"{score:.4f}", row["epochs"], f"{seconds:.0f}")
    console = output_console()
    console.print(table)
    counts = ", ".join(f"{count} {status}" for status, count in result["trials"].items())
    console.print(
        f"{result['oracle']}: {counts} trials; the best one's model: validation top-1 "
        f"{result['validation']['top1']:.4f}, test top-1 {result['test']['top1']:.4f}; "
        f"{clock(result['seconds'])} since the last start",
        soft_wrap=True,
    )
    console.print(*_refit_of(result), str(folder), sep="\n", soft_wrap=True)


def print_study(result: Mapping[str, Any], folder) -> None:
    """The heads at their best depths, the best first, with what each differs from the replaced layer."""
    table = Table(
        "head",
        "frozen up to",
        Column("rate", justify="right"),
        Column("scale", justify="right"),
        Column("test top-1", justify="right"),
        "verdict",
    )
    for row in sorted(result["best"], key=lambda row: -row["test_top1"]["estimate"]):
        test = row["test_top1"]
        spread = f"{test['estimate']:.4f}"
        if test["low"] is not None:
            spread += f" ({test['low']:.4f} to {test['high']:.4f})"
        rate, scale = f"{row['learning_rate']:g}", f"{row['scale']:g}"
        table.add_row(row["head"], row["freeze_depth"], rate, scale, spread, row["verdict"])
    console = output_console()
    console.print(table)
    limits = [f"{row['head']}: {row['limits']}" for row in result["best"] if row.get("limits")]
    if all("limits" in row for row in result["best"]):
        others = "seeds and other photos" if result["settings"]["seeds"] > 1 else "photos"
        legend = f"in brackets: 95 % interval for other {others}; verdicts are adjusted for the number of heads (Holm)"
    else:  # of version 0.1
        legend = "in brackets: 95 % interval for other seeds on the same photos"
    since = f"{clock(result['seconds'])} since the last start"
    console.print(*limits, f"{legend}; {since}", sep="\n", soft_wrap=True)
    if "chosen" in result:  # a study of an earlier version has none
        lines = ("the best by validation; to train it and keep it:", result["chosen"]["command"])
        console.print(*lines, sep="\n", soft_wrap=True)
    console.print(str(folder), soft_wrap=True)


def print_export(found: Mapping[str, Any], folder) -> None:
    """What the proof of an export found, and where it is."""
    test, calibration = found["test"], found["calibration"]
    lines = [
        f"{found['format']}, quantization {found['quantization']}, {found['mebibytes']:.1f} MiB",
        f"test top-1 {test['top1']:.4f}, of the run {test['run_top1']:.4f}, on the same {test['photos']} photos; "
        f"{test['labels_changed']} labels differ, a probability by {test['largest_difference']:.1e} at most",
    ]
    if calibration:
        lines.append(
            f"temperature {calibration['temperature']:.3f}: calibration error on the test photos "
            f"{calibration['ece_before']:.4f} before, {calibration['ece_after']:.4f} after"
        )
        lines += [calibration["warning"]] if calibration["warning"] else []
    output_console().print(*lines, str(folder), sep="\n", soft_wrap=True)


def print_backbones(names: list[str]) -> None:
    """A table of BACKBONES, or of some of them; without building any."""
    unknown = [name for name in names if name not in BACKBONES]
    if unknown:
        raise unknown_name("backbone", unknown[0], BACKBONES)
    table = Table(
        "backbone",
        *(Column(title, justify="right") for title in ("pixels", "parameters", "boundaries", "ImageNet classes")),
    )
    for name in names or BACKBONES:
        row = BACKBONES[name]
        size = f"{row.image_size} only" if row.fixed_size else f"{row.image_size}"
        table.add_row(name, size, f"{row.parameters:,}", f"{row.boundaries}", f"{IMAGENET_CLASSES}")
    output_console().print(table)


def print_boundaries(backbone: str, image_size: int | None) -> None:
    """A table of a backbone's freeze boundaries."""
    weights = "imagenet" if backbone.endswith(".keras") else "random"
    logits = build_backbone(backbone, weights=weights, image_size=image_size).logits
    titles = ("cut", "parameters before", "after", "forward cost before")
    # Names are there to be copied: a narrow terminal folds them, where rich would cut them off.
    name = Column("name", overflow="fold")
    table = Table(Column("depth", justify="right"), name, *(Column(title, justify="right") for title in titles))
    for b in find_boundaries(logits):
        shape = " x ".join(map(str, b.tensor.shape[1:]))
        table.add_row(
            f"{b.depth}", b.name, shape, f"{b.parameters_before:,}", f"{b.parameters_after:,}", f"{b.cost_share:.1%}"
        )
    output_console().print(table)
