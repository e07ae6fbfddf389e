"""The heatmap: its values, rows and columns, in matplotlib's axes and in the pixels of the file."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

from ktl.tuning.heatmap import draw_heatmap, write_heatmap

ROWS, COLUMNS = (1.0, 30.0, 0.5), ("none", "block", "all")
SCORES = {
    (1.0, "none"): 0.10,
    (1.0, "block"): 0.25,
    (1.0, "all"): 0.90,
    (30.0, "none"): 0.50,
    (30.0, "all"): 0.625,
    (0.5, "block"): 0.75,
}
"""Not of every pair: three trials failed."""
LABELS = ("scale", "freeze_depth", "best validation top-1")


@pytest.fixture
def figure():
    return draw_heatmap(SCORES, rows=ROWS, columns=COLUMNS, labels=LABELS)


def test_each_cell_has_its_score_in_percent_and_what_is_missing_is_none(figure):
    (image,) = figure.axes[0].get_images()
    expected = [[10, 25, 90], [50, np.nan, 62.5], [np.nan, 75, np.nan]]
    np.testing.assert_allclose(np.ma.filled(image.get_array(), np.nan), expected)


def test_the_numbers_stand_in_their_cells(figure):
    texts = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert texts == {
        (COLUMNS.index(column), ROWS.index(row)): f"{100 * score:.1f}" for (row, column), score in SCORES.items()
    }


def test_rows_columns_and_axes_have_their_names(figure):
    axes, bar = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "30", "0.5"]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(COLUMNS)
    assert axes.get_ylim() == (2.5, -0.5)  # the first row is above
    assert (axes.get_ylabel(), axes.get_xlabel()) == LABELS[:2]
    assert bar.get_ylabel() == "best validation top-1, %"


def test_the_numbers_can_be_read_on_their_colours(figure):
    """Black on the bright half of the colours, white on the dark half."""
    shades = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert shades == {
        "10.0": "white", "25.0": "white", "50.0": "white", "62.5": "black", "75.0": "black", "90.0": "black"
    }  # fmt: skip


def test_the_file_shows_the_colours_of_the_scores(figure, tmp_path):
    """Of the pixel near each cell's upper left corner, where no number is."""
    path = tmp_path / "heatmap.png"
    write_heatmap(path, SCORES, rows=ROWS, columns=COLUMNS, labels=LABELS)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB"))
    figure.draw_without_rendering()  # lays it out as the file was: the same size, and so the same places
    assert pixels.shape[:2] == tuple(map(int, figure.canvas.get_width_height()))[::-1]
    colors = matplotlib.colormaps["viridis"]
    for y, row in enumerate(ROWS):
        for x, column in enumerate(COLUMNS):
            across, up = figure.axes[0].transData.transform((x - 0.4, y - 0.4))
            found = pixels[len(pixels) - round(up), round(across)]
            score = SCORES.get((row, column))
            expected = (1, 1, 1) if score is None else colors((score - 0.1) / (0.9 - 0.1))[:3]
            np.testing.assert_allclose(found / 255, expected, atol=0.01)


def test_a_search_whose_trials_have_equal_scores_has_a_picture(tmp_path):
    write_heatmap(tmp_path / "one.png", {(1.0, "all"): 0.5}, rows=(1.0,), columns=("all",), labels=LABELS)
    with Image.open(tmp_path / "one.png") as picture:
        assert min(picture.size) > 200
