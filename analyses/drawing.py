"""What the figures are made of: colours, a blank figure, means with intervals, captions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mechproc.errors import require
from mechproc.result import Result
from mechproc.statistics.paired import Interval, Method, interval

COLOURS = ("#3a72b0", "#d17a22", "#2f9177", "#9a5fb3", "#c4513f", "#7d8a2e", "#4aa3c4", "#a9677f")
"""Of arms, in order; legible on white and on black."""
DIVERGING = ((0.0, "#a5522a"), (0.25, "#dca07c"), (0.5, "#f3f2ee"), (0.75, "#86acd0"), (1.0, "#1f5388"))
"""Brown below zero, blue above."""
SEQUENTIAL = ((0.0, "#f7f9fb"), (0.35, "#a9c7e2"), (0.7, "#4a84bd"), (1.0, "#12355f"))
GREY = "#8a8f96"


def blank(figure: go.Figure | None = None, height: int = 430) -> go.Figure:
    """An empty figure (or ``figure``) in the style of all others, with a template of its own."""
    figure = figure or go.Figure()
    font = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12.5, "color": "#22252a"}
    axis = {"gridcolor": "#e6e4de", "zerolinecolor": "#e6e4de", "linecolor": GREY, "ticks": "outside", "ticklen": 4,
            "title": {"font": {"size": 12.5}}}  # fmt: skip
    template = go.layout.Template(layout={"font": font, "colorway": COLOURS, "xaxis": axis, "yaxis": axis})
    figure.update_layout(
        template=template, height=height, showlegend=False, plot_bgcolor="white", paper_bgcolor="white",
        margin={"l": 60, "r": 25, "t": 25, "b": 55}, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )  # fmt: skip
    return figure


def captioned(figure: go.Figure, result: Result, marks: str, intervals: Sequence[Interval | None]) -> go.Figure:
    """The figure with its caption: seeds, interval, direction, what is not shown."""
    n = len(result.coordinates["seed"])
    made = [i for i in intervals if i is not None and i.bounded]
    if made:
        kind = "inverted sign-flip test" if made[0].method == "sign_flip" else "t"
        said = f"{marks} its {100 * made[0].level:.3g} % interval ({kind})."
    else:
        said = f"{marks.rpartition(',')[0]}; there is no interval, {n} seeds are too few for one."
    if result.is_missing.any():
        said += " Where a seed is missing there is neither mean nor interval."
    end = result.what_it_does_not_show
    caption = f"{n} seeds. {said} {result.direction[0].upper()}{result.direction[1:]}. Does not show: {end}"
    figure.layout.meta = {"caption": caption}  # type: ignore[assignment]
    return figure


def interval_of(values: np.ndarray, level: float, method: Method) -> Interval | None:
    """The interval of one row of seeds; ``None`` when one of them is missing, or they are too few for t."""
    if not np.isfinite(values).all() or (method == "t" and len(values) < 2):
        return None
    return interval(values, level, method)


def draw_mean(
    figure: go.Figure,
    values: np.ndarray,
    found: Interval | None,
    colour: str,
    at: float,
    label: str,
    *,
    horizontal: bool,
    column: int | None = None,
) -> None:
    """A diamond at the mean and a bar over the interval; nothing where a seed is missing."""
    if found is None:
        return
    mean = float(values.mean())
    along, across = ("x", "y") if horizontal else ("y", "x")
    bar: dict[str, Any] = {}
    if found.bounded:
        ends = {"array": [found.high - mean], "arrayminus": [mean - found.low]}
        bar = {
            f"error_{along}": {"type": "data", "symmetric": False, "thickness": 2, "width": 4, "color": colour, **ends}
        }
    where = {} if column is None else {"row": 1, "col": column}
    figure.add_scatter(
        **{along: [mean], across: [at]}, **bar, mode="markers", showlegend=False,
        marker={"symbol": "diamond", "size": 10, "color": colour, "line": {"color": "white", "width": 1}},
        hovertemplate=f"{escaped(label)}, mean of {len(values)}: {mean:.4f} ({found})<extra></extra>", **where,
    )  # fmt: skip


def with_axes(result: Result, *axes: str) -> Result:
    """``result`` with its axes in this order. Errors: ``ConfigError`` when it has others."""
    require(
        set(result.axes) == set(axes),
        f"axes of {result.name!r}",
        tuple(result.axes),
        f"{axes}; select or average first",
    )
    values = result.values.transpose([tuple(result.axes).index(a) for a in axes])
    coordinates = {a: result.coordinates[a] for a in axes}
    return dataclasses.replace(result, values=values, axes=axes, coordinates=coordinates)


def spread(n: int, width: float) -> np.ndarray:
    """Small fixed offsets, so that equal scores do not hide each other."""
    return width * ((np.arange(n) * 0.618) % 1 - 0.5)


def translucent(colour: str, alpha: float) -> str:
    """``"#rrggbb"`` as a colour that lets ``1 - alpha`` through."""
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha})"


def escaped(text: str) -> str:
    """Text as plotly shows it letter by letter: it reads a few HTML tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
