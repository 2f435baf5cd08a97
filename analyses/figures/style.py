"""The style that all figures share: colours, an empty figure, labels."""

from __future__ import annotations

import textwrap

import numpy as np
import plotly.graph_objects as go

COLOURS = ("#3a72b0", "#d17a22", "#2f9177", "#9a5fb3", "#c4513f", "#7d8a2e", "#4aa3c4", "#a9677f")
"""Of arms, in order; legible on white and on black."""
DIVERGING = ((0.0, "#a5522a"), (0.25, "#dca07c"), (0.5, "#f3f2ee"), (0.75, "#86acd0"), (1.0, "#1f5388"))
"""Brown below zero, blue above."""
SEQUENTIAL = ((0.0, "#f7f9fb"), (0.35, "#a9c7e2"), (0.7, "#4a84bd"), (1.0, "#12355f"))
GREY = "#8a8f96"
INK = "#22252a"
MAX_LABEL = 28
"""Characters of a label that are drawn beside an axis; hovering shows all of them."""
CHARACTER = 7.0
"""Width of a character at the labels' font size, in pixels."""


def blank(figure: go.Figure | None = None) -> go.Figure:
    """An empty figure (or ``figure``) in the style of all others, with a template of its own."""
    figure = figure or go.Figure()
    font = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12.5, "color": INK}
    axis = {"gridcolor": "#e6e4de", "zerolinecolor": "#e6e4de", "linecolor": GREY, "ticks": "outside", "ticklen": 4,
            "title": {"font": {"size": 12.5}}}  # fmt: skip
    template = go.layout.Template(layout={"font": font, "colorway": COLOURS, "xaxis": axis, "yaxis": axis})
    figure.update_layout(
        template=template, showlegend=False, plot_bgcolor="white", paper_bgcolor="white",
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        modebar={"orientation": "v"},  # in the right margin, beside the title and not over it
    )  # fmt: skip
    return figure


def visible(text: str) -> str:
    """A token or name as it can be seen: as Python writes it, with ``␣`` for spaces, where it would not be legible.

    That is where it is empty, begins or ends with a space, or has control characters.
    """
    legible = text.isprintable() and text.strip() == text and text != ""
    return text if legible else repr(text).replace(" ", "␣")


def shortened(text: str, longest: int = MAX_LABEL) -> str:
    """At most ``longest`` characters: beginning and end, with an ellipsis between."""
    if len(text) <= longest:
        return text
    end = (longest - 1) // 3
    return f"{text[: longest - 1 - end]}…{text[len(text) - end :]}"


def escaped(text: str) -> str:
    """Text as plotly shows it letter by letter: it reads a few HTML tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def tick_labels(names: list[str], longest: int = MAX_LABEL) -> list[str]:
    """Names as labels beside an axis: none of them invisible, none longer than ``longest``."""
    return [escaped(shortened(visible(name), longest)) for name in names]


def label_width(names: list[str], longest: int = MAX_LABEL) -> int:
    """The margin that ``tick_labels`` of these names need, in pixels."""
    return 24 + round(CHARACTER * max(len(shortened(visible(name), longest)) for name in names))


def axis_title(name: str, unit: str) -> str:
    """What an axis of values is called: what was measured, without whose it is, and the unit, but that of percents."""
    measured = name.rpartition(": ")[2]
    return escaped(measured if unit == "fraction" else f"{measured} ({unit})")


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` characters, escaped."""
    return [escaped(line) for line in textwrap.wrap(text, width)]


def spread(n: int, width: float) -> np.ndarray:
    """Small fixed offsets, so that equal scores do not hide each other."""
    return width * ((np.arange(n) * 0.618) % 1 - 0.5)


def translucent(colour: str, alpha: float) -> str:
    """``"#rrggbb"`` as a colour that lets ``1 - alpha`` through."""
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha})"
