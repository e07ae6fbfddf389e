"""Figures: what is drawn lies where the numbers say, and their words tell the same."""

import re
from pathlib import Path

import numpy as np
import pytest
from html_page import Element, HtmlPage

from ktl.evaluation.metrics import reliability_bins
from ktl.reporting import figures


@pytest.fixture
def drawn(tmp_path):
    """A function that reads a figure as an element of a page."""

    def read(markup) -> Element:
        path = Path(tmp_path) / "figure.html"
        path.write_text(f"<main>{markup}</main>", encoding="utf-8")
        return HtmlPage(path).root.one("svg")

    return read


def markers(figure: Element, color: str) -> np.ndarray:
    """(x, y) of each marker in a colour; the last is the legend's."""
    marks = [
        use.attributes for use in figure.all("use") if f"stroke: var(--{color})" in use.attributes.get("style", "")
    ]
    return np.array([[float(mark["x"]), float(mark["y"])] for mark in marks])


def check_scale(places: np.ndarray, at, values) -> None:
    """Positions are linear in the numbers; on the page, y counts downwards."""
    for coordinates, numbers, sign in zip(places.T, (at, values), (1, -1), strict=True):
        slope, start = np.polyfit(list(numbers), coordinates, 1)
        np.testing.assert_allclose(start + slope * np.array(numbers), coordinates, atol=0.01)
        assert sign * slope > 0


def texts(figure: Element) -> set[str]:
    return {text.text for text in figure.all("text")}


def test_learning_curves_are_to_scale_and_mark_the_best_epoch(drawn):
    validation = [0.4, 0.7, 0.65, 0.68]
    history = [{"epoch": n + 1.0, "top1": 0.5 + 0.1 * n, "validation_top1": v} for n, v in enumerate(validation)]
    figure = drawn(figures.learning_curves(history, measure="top1", label="top-1, %", best_epoch=2, factor=100))
    check_scale(markers(figure, "one")[:4], range(4), validation)
    check_scale(markers(figure, "two")[:4], range(4), [0.5, 0.6, 0.7, 0.8])
    assert {"epoch", "top-1, %", "training", "validation", "best epoch"} <= texts(figure)
    words = figure.attributes["aria-label"]
    assert "over 4 epochs: training from 50 to 80, validation from 40 to 68; 70 at the best epoch, 2." in words


def test_reliability_has_a_dot_for_each_bin_with_photos(drawn):
    confidence = np.array([0.1, 0.52, 0.55, 0.9, 0.95, 0.97])
    right = np.array([0, 1, 0, 1, 1, 1], bool)
    bins = reliability_bins(confidence, right, bins=5)
    figure = drawn(figures.reliability(bins, ece=0.1234))
    filled = [row for row in bins if row["photos"]]
    dots = markers(figure, "one")[: len(filled)]
    check_scale(dots, [row["confidence"] for row in filled], [row["accuracy"] for row in filled])
    assert "5 bins, 3 of them with photos; expected calibration error 0.1234" in figure.attributes["aria-label"]


def test_accuracy_and_seconds_by_freeze_depth_have_an_axis_each(drawn):
    figure = drawn(figures.depth_curve(["none", "block", "all"], [70.0, 80.0, 75.0], [30.0, 20.0, 3.0]))
    check_scale(markers(figure, "one")[:3], range(3), [70, 80, 75])
    check_scale(markers(figure, "two")[:3], range(3), [30, 20, 3])
    assert "70.0 to 80.0 %, the highest at block" in figure.attributes["aria-label"]


def test_a_long_name_is_cut_short_in_a_figure_but_not_in_its_words(drawn):
    name = "a_layer_with_a_very_long_name_indeed"
    figure = drawn(figures.depth_curve(["none", name], [1.0, 2.0], [1.0, 1.0]))
    (shown,) = [text for text in texts(figure) if text.startswith("a_layer")]
    assert shown == f"{name[:23]}…"
    assert name in figure.attributes["aria-label"]


def test_a_figure_is_the_same_bytes_each_time():
    line = figures.Line("kept", 0, [10, 50, 100], [60.0, 70.0, 80.0], [55.0, None, 75.0], [65.0, None, 85.0])
    assert figures.share_lines([line]) == figures.share_lines([line])


def test_an_interval_that_is_not_known_is_not_drawn(drawn):
    def uprights(low, high) -> int:
        figure = drawn(figures.share_lines([figures.Line("kept", 0, [10, 50, 100], [60.0, 70.0, 80.0], low, high)]))
        lines = [
            re.findall(r"[\d.]+", path.attributes["d"]) for path in figure.all("path") if "clip-path" in path.attributes
        ]
        return sum(len(line) == 4 and line[0] == line[2] for line in lines)

    known, none = ([55.0, 65.0, 75.0], [65.0, 75.0, 85.0]), ([None] * 3, [None] * 3)
    assert uprights(*known) - uprights(*none) == 3
    assert uprights([55.0, None, 75.0], [65.0, None, 85.0]) - uprights(*none) == 2


@pytest.mark.parametrize(
    ("values", "low", "cut"),
    [
        ([90.0, 91.0, 20.0], [88.0, 89.9, 10.0], " (lower than 89 is not shown)"),
        ([90.0, 91.0, 89.5], [88.0, 89.9, 87.5], ""),
        ([90.0, 91.0, 20.0], [None, None, None], " (lower than 91 is not shown)"),
        ([90.0, 91.0, 20.0], [np.nan, np.nan, np.nan], " (lower than 91 is not shown)"),  # of one seed
    ],
)
def test_a_head_that_fails_at_one_depth_does_not_press_the_others_together(drawn, values, low, cut):
    """The axis reaches down to each head's interval at its best depth."""
    lines = [
        figures.Line("kept", 0, range(3), values=[95.0, 96.0, 94.0], low=[93.0, 94.0, 92.0], high=[97.0, 98.0, 96.0]),
        figures.Line("other", 1, range(3), values=values, low=low, high=low),
    ]
    figure = drawn(figures.depth_lines(lines, depths=["a", "b", "all"], seconds=[3.0, 2.0, 1.0]))
    assert f"test top-1, %{cut}" in texts(figure)
    scale = markers(figure, "one")[:3]
    check_scale(scale, range(3), [95.0, 96.0, 94.0])
    assert np.ptp(scale[:, 1]) > 20, "two points of an axis of ten, not of eighty"
