"""Rendering of a figure as inline SVG whose text is text and whose colours are the page's, in light and dark."""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
import matplotlib.figure
from markupsafe import Markup, escape

INK, MUTED, LINE, ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN = (f"#0000{number:02x}" for number in range(1, 11))
COLORS = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    ONE: "var(--one)",
    TWO: "var(--two)",
    THREE: "var(--three)",
    FOUR: "var(--four)",
    FIVE: "var(--five)",
    SIX: "var(--six)",
    SEVEN: "var(--seven)",
}
"""Colours that figures are drawn in -> what stands for them in the page."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.5,
    "text.color": INK,
    "text.parse_math": False,  # a layer may have a $ in its name
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
}

WIDTH = 5.2
"""Inches: at 72 units an inch about as many as a phone has pixels, so that text keeps its size there."""


def render(draw: Callable[[matplotlib.figure.Figure], None], *, name: str, alternative: str, height: float) -> Markup:
    """What `draw` draws, the same bytes each time; `name` makes its ids its own."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = matplotlib.figure.Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)  # styles are the page's
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text, count=2)
    text = text.replace("xlink:href=", "href=").replace('pt"', '"', 2)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # each figure has the same ones
    for drawn, color in COLORS.items():
        text = text.replace(drawn, color)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(alternative)}"', 1).strip())
