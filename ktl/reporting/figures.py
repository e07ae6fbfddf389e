"""Figures of a report: what each shows, and in words what a reader who does not see it needs."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from ktl.evaluation.metrics import ReliabilityBin
from ktl.reporting import svg
from ktl.reporting.svg import FIVE, FOUR, INK, MUTED, ONE, SEVEN, SIX, THREE, TWO

LOOKS = (
    (ONE, "o", "-"),
    (THREE, "v", (0, (5, 1.5))),
    (FOUR, "D", (0, (1, 1.2))),
    (INK, "X", (0, (6, 1.5, 1, 1.5))),
    (FIVE, "^", (0, (3, 1))),
    (TWO, "s", "--"),
    (SIX, "P", (0, (4, 1.2, 1, 1.2, 1, 1.2))),
    (SEVEN, "*", (0, (1, 2.5))),
    (MUTED, "h", (0, (8, 2))),
)
"""Colour, marker and dashes of several lines: each tells them apart by itself."""

RIGHT_RGB, WRONG_RGB = (0, 114, 178), (213, 94, 0)
"""Blue and vermillion, which colour-blind people tell apart, on white and on black."""

LONGEST_LABEL = 24


@dataclasses.dataclass(frozen=True)
class Line:
    """One of several lines, in percent.

    Attributes:
        name: in the legend.
        look: a place in `LOOKS`.
        at: along the horizontal axis.
        values: one for each of these.
        low: of the values' intervals, None where one is not known.
        high: likewise.
    """

    name: str
    look: int
    at: Sequence[float]
    values: Sequence[float]
    low: Sequence[float | None]
    high: Sequence[float | None]


def learning_curves(
    history: Sequence[Mapping[str, float]], *, measure: str, label: str, best_epoch: int, factor: float = 1
) -> Markup:
    """A measure of the training and validation photos over the epochs, the best epoch marked.

    Args:
        history: the rows of history.csv, as numbers.
        measure: a column; `validation_` and its name is the other one.
        label: of the axis.
        best_epoch: from 1.
        factor: what values are multiplied with.
    """
    epochs = [row["epoch"] for row in history]
    training, validation = ([factor * row[name] for row in history] for name in (measure, f"validation_{measure}"))
    chosen = validation[epochs.index(best_epoch)]

    def draw(figure):
        axes = figure.subplots()
        axes.plot(epochs, training, "s--", color=TWO, label="training")
        axes.plot(epochs, validation, "o-", color=ONE, label="validation")
        axes.axvline(best_epoch, color=MUTED, linestyle=":", linewidth=1.2)
        axes.plot(best_epoch, chosen, "o", markersize=11, markerfacecolor="none", color=INK, label="best epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="epoch", ylabel=label)
        axes.legend()

    alternative = (
        f"{label} over {len(epochs)} epochs: training from {training[0]:.3g} to {training[-1]:.3g}, validation from "
        f"{validation[0]:.3g} to {validation[-1]:.3g}; {chosen:.3g} at the best epoch, {best_epoch}."
    )
    return svg.render(draw, name=measure, alternative=alternative, height=3.2)


def reliability(bins: Sequence[ReliabilityBin], *, ece: float) -> Markup:
    """A reliability diagram: accuracy against confidence, and below it how many photos there are.

    Args:
        bins: from `ktl.evaluation.metrics.reliability_bins`.
        ece: the expected calibration error.
    """
    low, photos = np.array([row["low"] for row in bins]), [row["photos"] for row in bins]
    width = bins[0]["high"] - bins[0]["low"]
    filled = [row for row in bins if row["photos"]]
    confidence, accuracy = ([row[name] for row in filled] for name in ("confidence", "accuracy"))

    def draw(figure):
        above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        above.bar([row["low"] for row in filled], accuracy, width, align="edge", color=ONE, alpha=0.35)
        above.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1.2, label="perfect calibration")
        above.plot(confidence, accuracy, "o", color=ONE, label="photos of a bin")
        above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.03))
        figure.legend(loc="outside upper center", ncols=2)
        below.bar(low, photos, width, align="edge", color=TWO, alpha=0.8)
        below.set(xlabel="probability of the predicted class", ylabel="photos")

    alternative = (
        f"Reliability diagram with {len(bins)} bins, {len(filled)} of them with photos; expected calibration error "
        f"{ece:.4f}. The table below has its numbers."
    )
    return svg.render(draw, name="reliability", alternative=alternative, height=4.2)


def depth_curve(depths: Sequence[str], accuracies: Sequence[float], seconds: Sequence[float]) -> Markup:
    """Accuracy over freeze depth, and on a second axis what a trial took.

    Args:
        depths: names, the shallowest first.
        accuracies: in percent.
        seconds: of a trial.
    """
    places = range(len(depths))

    def draw(figure):
        axes = figure.subplots()
        lines = axes.plot(places, accuracies, "o-", color=ONE, label="best validation top-1")
        axes.set_xticks(places, [_short(name) for name in depths], rotation=45, ha="right", rotation_mode="anchor")
        axes.set(xlabel="frozen up to", ylabel="best validation top-1, %")
        cost = axes.twinx()
        lines += cost.plot(places, seconds, "s--", color=TWO, label="seconds a trial")
        cost.set(ylabel="seconds a trial, median", ylim=(0, 1.1 * max(seconds)))
        cost.grid(False)
        figure.legend(lines, [line.get_label() for line in lines], loc="outside upper center", ncols=2)

    best = int(np.argmax(accuracies))
    alternative = (
        f"Best validation top-1 of {len(depths)} freeze depths, {min(accuracies):.1f} to {accuracies[best]:.1f} %, "
        f"the highest at {depths[best]}. The table below has the numbers."
    )
    return svg.render(draw, name="depth", alternative=alternative, height=4.2)


def depth_lines(lines: Sequence[Line], *, depths: Sequence[str], seconds: Sequence[float]) -> Markup:
    """Test top-1 over freeze depth, and on a second axis what a run took.

    Args:
        lines: `at` counts the depths.
        depths: names, the shallowest first.
        seconds: of a run, at each depth.
    """

    bottom = _bottom(lines)
    cut = "" if bottom is None else f" (lower than {bottom} is not shown)"

    def draw(figure):
        axes = figure.subplots()
        cost = axes.twinx()
        cost.plot(range(len(depths)), seconds, color=MUTED, linewidth=0.9, label="seconds a run")
        cost.set(ylabel="seconds a run, mean", ylim=(0, 1.1 * max(seconds)))
        cost.grid(False)
        axes.set_zorder(cost.get_zorder() + 1)
        for line, shift in zip(lines, _shifts(len(lines), width=0.4), strict=True):
            _draw_with_intervals(axes, line, at=[place + shift for place in line.at])
        axes.set_xticks(range(len(depths)), [_short(name) for name in depths], rotation=45, ha="right")
        for label in axes.get_xticklabels():
            label.set_rotation_mode("anchor")
        axes.set(xlabel="frozen up to", ylabel=f"test top-1, %{cut}")
        if bottom is not None:
            axes.set_ylim(bottom=bottom)
        _legend(figure, axes, cost)

    parts = [
        f"{line.name} from {min(line.values):.1f} % to {max(line.values):.1f} %, the highest at "
        f"{depths[int(np.argmax(line.values))]}"
        for line in lines
    ]
    alternative = (
        f"Test top-1 at {len(depths)} freeze depths: {'; '.join(parts)}. A run took {min(seconds):.0f} to "
        f"{max(seconds):.0f} seconds. The table below has the numbers."
    )
    return svg.render(draw, name="freezing", alternative=alternative, height=5.8)


def convergence(lines: Sequence[Line], *, converged: Mapping[str, float]) -> Markup:
    """Validation top-1 over the epochs, with bands.

    Args:
        lines: `at` counts epochs, from 1.
        converged: name of a line -> epochs until it is near its best.
    """

    def draw(figure):
        axes = figure.subplots()
        for line in lines:
            color, marker, dashes = LOOKS[line.look]
            axes.fill_between(line.at, line.low, line.high, color=color, alpha=0.13, linewidth=0)
            axes.plot(line.at, line.values, marker=marker, linestyle=dashes, color=color, label=line.name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="epoch", ylabel="validation top-1, %")
        _legend(figure, axes)

    parts = [
        f"{line.name} from {line.values[0]:.1f} % to {line.values[-1]:.1f} % at epoch {line.at[-1]}, near its best "
        f"after {converged[line.name]:.1f}"
        for line in lines
    ]
    alternative = f"Validation top-1 over the epochs: {'; '.join(parts)}. The table below has the epochs."
    return svg.render(draw, name="convergence", alternative=alternative, height=4.6)


def share_lines(lines: Sequence[Line]) -> Markup:
    """Test top-1 over the number of training photos, which is drawn to a logarithmic scale.

    Args:
        lines: `at` in photos, ascending, and the same for all.
    """
    photos = lines[0].at

    def draw(figure):
        axes = figure.subplots()
        axes.set_xscale("log")
        for line, shift in zip(lines, _shifts(len(lines), width=0.16), strict=True):
            _draw_with_intervals(axes, line, at=[count * (1 + shift) for count in line.at])
        axes.set_xticks(photos, [f"{count:.0f}" for count in photos])
        axes.minorticks_off()
        axes.set(xlabel="training photos", ylabel="test top-1, %")
        _legend(figure, axes)

    parts = [f"{line.name} from {line.values[0]:.1f} % to {line.values[-1]:.1f} %" for line in lines]
    alternative = (
        f"Test top-1 with {photos[0]:.0f} to {photos[-1]:.0f} training photos: {'; '.join(parts)}. The table below has "
        "the numbers."
    )
    return svg.render(draw, name="shares", alternative=alternative, height=4.6)


def _draw_with_intervals(axes, line: Line, *, at: Sequence[float]) -> None:
    color, marker, dashes = LOOKS[line.look]
    axes.plot(at, line.values, marker=marker, linestyle=dashes, color=color, label=line.name)
    known = [(place, low, high) for place, low, high in zip(at, line.low, line.high, strict=True) if low is not None]
    for place, low, high in known:
        axes.plot([place, place], [low, high], color=color, linewidth=1.2, alpha=0.6)


def _bottom(lines: Sequence[Line]) -> int | None:
    """Where the axis begins so that each head's interval at its best depth is seen; None if no value is below that.

    Without it, one head that fails at one depth would press all others together.
    """
    bounds = [np.fmin(line.values, np.array(line.low, float)) for line in lines]  # of which unknown ones are NaN
    bottom = math.floor(min(low[np.argmax(line.values)] for line, low in zip(lines, bounds, strict=True)))
    return bottom if min(min(line.values) for line in lines) < bottom else None


def _shifts(count: int, *, width: float) -> np.ndarray:
    """So that intervals stand side by side."""
    return np.linspace(-width / 2, width / 2, count) if count > 1 else np.zeros(1)


def _legend(figure, *several_axes) -> None:
    """Above the axes, in columns that a phone has room for."""
    handles = [handle for axes in several_axes for handle in axes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, handlelength=3.2)


def confusion_image(matrix: np.ndarray) -> Markup:
    """A confusion matrix of many classes: a dot a cell, blue on the diagonal, vermillion off it.

    Args:
        matrix: int [classes, classes], true classes in rows.
    """
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    pixels = np.empty((*matrix.shape, 4))
    pixels[..., :3] = np.where(np.eye(len(matrix), dtype=bool)[..., None], RIGHT_RGB, WRONG_RGB)
    pixels[..., :3] /= 255
    pixels[..., 3] = np.where(matrix > 0, 0.3 + 0.7 * np.sqrt(share), 0)

    def draw(figure):
        axes = figure.subplots()
        axes.imshow(pixels, interpolation="none")
        axes.grid(False)
        axes.set(xlabel="predicted class, by its number", ylabel="true class, by its number")

    right = np.trace(matrix)
    alternative = (
        f"Confusion matrix of {len(matrix)} classes: {right} of {matrix.sum()} photos on the diagonal. The most "
        "frequent confusions are in the table below."
    )
    return svg.render(draw, name="confusion", alternative=alternative, height=svg.WIDTH)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"
