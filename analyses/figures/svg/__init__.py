"""Figures as SVG, without a browser: what a page shows when no script runs, on paper, and in a vector file.

It draws what ``analyses.figures`` make use of, of plotly's scatter traces and heat maps; another trace is an error.
Ink, rules and background are CSS variables (``--ink``, ``--soft``, ``--line``, ``--card``), so that a page can be light
or dark; colours of data stay. What plotly says on hovering is the mark's ``<title>``.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from analyses.figures.caption import without_caption
from analyses.figures.frame import plain
from analyses.figures.style import wrapped
from analyses.figures.svg import marks, surroundings
from analyses.figures.svg.axes import Axis, grid, ranged, ticks_and_title
from analyses.figures.svg.elements import FONT, element, plain_text
from analyses.figures.svg.numbers import floats
from mechproc.errors import require

WIDTH = 760
"""Pixels of a figure that does not say its own."""
NARROW = 460
"""Of one that stands beside others."""


def svg(
    figure: go.Figure, name: str, *, label: str = "", links: Mapping[str, str] | None = None, narrow: bool = False
) -> Markup:
    """The figure as an ``<svg>`` element, without the caption that is drawn into it.

    - ``name``: the beginning of the ids inside, different for each figure of a page;
    - ``label``: what a screen reader says in the place of the picture;
    - ``links``: by subject (a part, an arm), the anchor that its cells and labels lead to. The subjects of a heat map's
      cells are in the trace's ``meta["subjects"]``, [row][column].

    - ``narrow``: where it stands beside others, at most ``NARROW`` pixels unless it says its own width, and without the
      warnings and references that its caption has too.

    Errors: ``ConfigError`` for a kind of trace that is not drawn.
    """
    about = plain(without_caption(figure))
    layout, traces = about["layout"], about["data"]
    for trace in traces:
        kind = trace.get("type", "scatter")
        require(kind in ("scatter", "heatmap"), "type of trace", kind, "'scatter' or 'heatmap'")
    width, height = width_of(figure, narrow), float(layout.get("height") or 450)
    margin = {"l": 80, "r": 80, "t": 100, "b": 80} | (layout.get("margin") or {})
    if layout.get("title"):
        text = str(layout["title"].get("text") or "")
        heading = _narrow_title(text, width) if narrow else _fitting_title(text, width)
        more = 17 * max(0, heading.count("<br>") - text.count("<br>"))
        layout["title"]["text"] = heading
        margin["t"], height = margin["t"] + more, height + more
    box = (float(margin["l"]), float(margin["t"]), width - float(margin["r"]), height - float(margin["b"]))
    axes = _axes(layout, traces, box)
    known, hatch = dict(links or {}), f"{name}-hatch"
    behind, before, outside = [], [], []
    for x, y in _panels(layout, axes):
        behind += [*grid(x, (y.start, y.end)), *grid(y, (x.start, x.end))]
        outside += ticks_and_title(x, max(y.start, y.end), (x.start, x.end), known)
        outside += ticks_and_title(y, x.start, (y.end, y.start), known)
    for trace in traces:
        x, y = axes[trace.get("xaxis") or "x"], axes[trace.get("yaxis") or "y"]
        if trace.get("type") == "heatmap":
            before += [*marks.heatmap(trace, x, y, known, hatch), *surroundings.colour_bar(trace, box)]
        else:
            drawn, subject = marks.scatter(trace, x, y, hatch), (trace.get("meta") or {}).get("subject")
            before += [element("a", *drawn, href=f"#{known[subject]}")] if subject in known else drawn
    outside += surroundings.title(layout.get("title") or {})
    if layout.get("showlegend"):
        outside += surroundings.legend(traces, layout.get("legend") or {}, box)
    shapes, texts = layout.get("shapes") or [], layout.get("annotations") or []
    pattern = element(
        "pattern", element("path", d="M0 6L6 0", stroke="var(--soft)", opacity=0.6), id=hatch, width=6, height=6,
        patternUnits="userSpaceOnUse",
    )  # fmt: skip
    return element(
        "svg", element("defs", pattern), *behind, *before, *surroundings.lines_across(shapes, axes, box), *outside,
        *surroundings.notes(texts, axes, box), id=name,
        viewBox=f"0 0 {width:g} {height:g}", width=width, height=height, font_family=FONT,
        role="img" if not known else "group", aria_label=label or None,
    )  # fmt: skip


def width_of(figure: go.Figure, narrow: bool = False) -> float:
    """Pixels of the figure as ``svg`` draws it."""
    return float(figure.layout.width or (NARROW if narrow else WIDTH))  # type: ignore[union-attr]


def _narrow_title(text: str, width: float) -> str:
    """The bold lines of a title in as many lines as a narrow figure needs."""
    bold = [line for line in text.split("<br>") if not line.startswith("<span")]
    return "<br>".join(_bold_lines(" ".join(bold), width))


def _fitting_title(text: str, width: float) -> str:
    """A title whose bold lines are broken where they would run past the figure."""
    lines = text.split("<br>")
    return "<br>".join(part for line in lines for part in (_bold_lines(line, width) if "<b>" in line else [line]))


def _bold_lines(text: str, width: float) -> list[str]:
    words = html.unescape(plain_text(text))
    return [f"<b>{line}</b>" for line in wrapped(words, int(width / 7.8))]


def _axes(layout: dict[str, Any], traces: list[dict[str, Any]], box: tuple[float, ...]) -> dict[str, Axis]:
    """Every axis by its short name: ``x``, ``y``, ``x2``, ..."""
    template = ((layout.get("template") or {}).get("layout")) or {}
    left, top, right, bottom = box
    axes = {}
    for letter in "xy":
        used = {str(t.get(f"{letter}axis") or letter) for t in traces}
        for name in sorted({letter, *used}, key=len):
            about = {**template.get(f"{letter}axis", {}), **layout.get(f"{letter}axis{name[1:]}", {})}
            low, high = about.get("domain") or (0, 1)
            ends = (left + low * (right - left), left + high * (right - left))
            if letter == "y":
                ends = (bottom - low * (bottom - top), bottom - high * (bottom - top))
            data = [_extent(t, letter) for t in traces if str(t.get(f"{letter}axis") or letter) == name]
            axes[name] = ranged(letter, about, *ends, data)
    return axes


def _extent(trace: dict[str, Any], letter: str) -> np.ndarray:
    """The values that an axis must have room for; the cells of a heat map reach half a unit beyond their middles."""
    if trace.get("type") == "heatmap":
        n = len(trace["z"]) if letter == "y" else len(trace["z"][0])
        return np.array([-0.5 + 0.05 * n, n - 0.5 - 0.05 * n])  # less the room that the axis adds
    values = floats(trace[letter])
    ends = trace.get(f"error_{letter}") or {}
    if ends.get("array") is not None:
        below = floats(ends["arrayminus"] if ends.get("arrayminus") is not None else ends["array"])
        values = np.concatenate([values - below, values + floats(ends["array"])])
    return values


def _panels(layout: dict[str, Any], axes: Mapping[str, Axis]) -> list[tuple[Axis, Axis]]:
    """Each x axis with the y axis that it stands on."""
    pairs = []
    for name, axis in axes.items():
        if axis.letter == "x":
            anchor = str(axis.about.get("anchor") or "y")
            pairs.append((axis, axes[anchor if anchor in axes else f"y{name[1:]}"]))
    return pairs
