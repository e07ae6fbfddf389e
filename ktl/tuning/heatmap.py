"""A search's picture: the score over two settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np

from ktl.files import write_atomically


def write_heatmap(
    path: Path, scores: Mapping[tuple, float], *, rows: Sequence, columns: Sequence, labels: tuple[str, str, str]
) -> None:
    """Writes a PNG of a score over two settings, see `draw_heatmap`."""
    figure = draw_heatmap(scores, rows=rows, columns=columns, labels=labels)
    write_atomically(path, lambda file: figure.savefig(file, format="png"))


def draw_heatmap(
    scores: Mapping[tuple, float], *, rows: Sequence, columns: Sequence, labels: tuple[str, str, str]
) -> matplotlib.figure.Figure:
    """A score in percent over two settings: a number and a colour for each pair of values, white where there is none.

    Args:
        scores: (row's value, column's value) -> a fraction, 0 to 1.
        rows: values from top to bottom.
        columns: values from left to right.
        labels: names of the rows' setting, the columns' setting, and the score.
    """
    grid = np.array([[100 * scores.get((row, column), np.nan) for column in columns] for row in rows])
    size = (3 + 0.9 * len(columns), 2 + 0.5 * len(rows))
    figure = matplotlib.figure.Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(grid, aspect="auto", cmap="viridis")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), [f"{row:g}" if isinstance(row, float) else row for row in rows])
    axes.set_ylabel(labels[0])
    axes.set_xlabel(labels[1])
    figure.colorbar(image, label=f"{labels[2]}, %")
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for (row, column), score in np.ndenumerate(grid):
        if np.isfinite(score):
            color = "black" if score > middle else "white"
            axes.text(column, row, f"{score:.1f}", ha="center", va="center", color=color)
    return figure
