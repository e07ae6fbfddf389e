"""Figures take the page's colours."""

import itertools
import re


def test_no_colour_is_fixed_in_a_figure(page):
    """They follow the page from light to dark; a raster picture has colours for both."""
    figures = [figure.one("svg") for figure in page.root.all("figure", kind="drawing")]
    for element in itertools.chain(*(figure.all() for figure in figures)):
        colors = re.findall(r"(?:fill|stroke): ([^;]+)", element.attributes.get("style", ""))
        assert all(color == "none" or color == "currentColor" or color.startswith("var(--") for color in colors)
    defined = set(re.findall(r"(--[\w-]+):", page.root.one("style").text))
    assert set(re.findall(r"var\((--[\w-]+)\)", page.source)) <= defined | {
        "--share",
        "--value",
        "--low",
        "--high",
        "--at",
    }
