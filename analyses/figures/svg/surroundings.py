"""What stands around the marks: title, legend, colour bars, lines across a panel, and notes at a place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from analyses.figures.style import GREY
from analyses.figures.svg.axes import Axis
from analyses.figures.svg.elements import element, n_lines, plain_text, text_block
from analyses.figures.svg.marks import DASH, colours
from analyses.figures.svg.numbers import formatted, ticks

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of the panels together, in pixels."""
BAR = 64
"""Steps of colour in a colour bar."""
LONGEST = 280
"""Pixels of a colour bar: beside a map of many rows all of it is at the top."""


def title(about: dict[str, Any]) -> list[Markup]:
    """The title, at the upper left."""
    text, pad = about.get("text"), about.get("pad") or {}
    if not text:
        return []
    size = (about.get("font") or {}).get("size", 13.5)
    return [text_block(text, pad.get("l", 10), pad.get("t", 12), size=size, vertical="top")]


def legend(traces: list[dict[str, Any]], about: dict[str, Any], box: Box) -> list[Markup]:
    """The names of the series with their marks, in lines above the panels."""
    shown = [t for t in traces if t.get("name") and t.get("showlegend") is not False and t.get("type") == "scatter"]
    left, top, right, bottom = box
    widths = [46 + 6.9 * len(plain_text(str(t["name"]))) for t in shown]
    rows: list[list[int]] = [[]]
    for n, width in enumerate(widths):
        if rows[-1] and left + sum(widths[m] for m in rows[-1]) + width > right + 60:
            rows.append([])
        rows[-1].append(n)
    y0 = bottom - float(about.get("y") or 1.0) * (bottom - top) - 18 * len(rows) + 8
    drawn = []
    for row, members in enumerate(rows):
        x, y = left, y0 + 18 * row
        for n in members:
            trace = shown[n]
            line, marker = trace.get("line") or {}, trace.get("marker") or {}
            if "lines" in str(trace.get("mode")) and not trace.get("fill"):
                drawn.append(
                    element("line", x1=x, x2=x + 22, y1=y, y2=y, stroke=line.get("color"),
                            stroke_width=max(2, float(line.get("width") or 2)),
                            stroke_dasharray=DASH.get(str(line.get("dash"))))
                )  # fmt: skip
            else:
                drawn.append(element("circle", cx=x + 11, cy=y, r=4, fill=marker.get("color") or line.get("color")))
            drawn.append(text_block(str(trace["name"]), x + 27, y, size=12))
            x += widths[n]
    return drawn


def colour_bar(trace: dict[str, Any], box: Box) -> list[Markup]:
    """The scale of a heat map, at its right."""
    about = trace.get("colorbar") or {}
    if trace.get("showscale") is False:
        return []
    left, top, right, bottom = box
    bottom = min(bottom, top + LONGEST)
    width = float(about.get("thickness") or 10)
    x = left + float(about["x"]) * (right - left) + 6 if about.get("x") is not None else right + 12
    low, high = float(trace["zmin"]), float(trace["zmax"])
    scale, step = colours(trace), (bottom - top) / BAR
    drawn = [
        element("rect", x=x, width=width, y=bottom - (n + 1) * step, height=step + 0.5,
                fill=scale(low + (n + 0.5) / BAR * (high - low)))
        for n in range(BAR)
    ]  # fmt: skip
    if about.get("tickvals") is not None:
        labels = list(zip(map(float, about["tickvals"]), map(str, about["ticktext"]), strict=True))
    else:
        most = int(about.get("nticks") or max(2, min(5, round((bottom - top) / 30))))
        labels = [(v, formatted(v, None)) for v in ticks(low, high, most)]
    for value, label in labels:
        y = bottom - (value - low) / ((high - low) or 1.0) * (bottom - top)
        drawn.append(text_block(label, x + width + 4, y, size=11))
    if heading := (about.get("title") or {}).get("text"):
        drawn.append(text_block(heading, x, top - 9, size=11))
    return drawn


def lines_across(shapes: list[dict[str, Any]], axes: Mapping[str, Axis], box: Box) -> list[Markup]:
    """Lines at a value, from one end of a panel to the other."""
    drawn = []
    for shape in shapes:
        line = shape.get("line") or {}
        ends = [_place(shape[f"{letter}{n}"], str(shape.get(f"{letter}ref", letter)), axes, box, letter)
                for n in (0, 1) for letter in "xy"]  # fmt: skip
        colour = "var(--soft)" if line.get("color") == GREY else line.get("color")
        drawn.append(
            element("line", x1=ends[0], y1=ends[1], x2=ends[2], y2=ends[3], stroke=colour,
                    stroke_width=line.get("width", 1), stroke_dasharray=DASH.get(str(line.get("dash"))))
        )  # fmt: skip
    return drawn


def notes(annotations: list[dict[str, Any]], axes: Mapping[str, Axis], box: Box) -> list[Markup]:
    """Texts at a place of a panel or of the page."""
    drawn = []
    for about in annotations:
        x = _place(about["x"], str(about.get("xref", "x")), axes, box, "x") + float(about.get("xshift") or 0)
        y = _place(about["y"], str(about.get("yref", "y")), axes, box, "y") - float(about.get("yshift") or 0)
        font, text = about.get("font") or {}, str(about.get("text") or "")
        size = float(font.get("size") or 12.5)
        colour = "var(--soft)" if font.get("color") == GREY else font.get("color") or "var(--ink)"
        anchor = {"left": "start", "right": "end"}.get(str(about.get("xanchor")), "middle")
        x += {"start": 3, "end": -3}.get(anchor, 0)
        if ground := about.get("bgcolor"):
            width, height = 0.58 * size * len(plain_text(text)) + 6, size * 1.25 * n_lines(text) + 4
            drawn.append(element("rect", x=x - width / 2, y=y - height / 2, width=width, height=height, fill=ground))
        vertical = str(about.get("yanchor") or "middle")
        drawn.append(text_block(text, x, y, size=size, anchor=anchor, fill=colour, vertical=vertical))
    return drawn


def _place(value: Any, reference: str, axes: Mapping[str, Axis], box: Box, letter: str) -> float:
    """The pixel of a coordinate: a value of an axis, a share of an axis's panel, or a share of all panels."""
    name, _, domain = reference.partition(" ")
    if name == "paper":
        left, top, right, bottom = box
        return left + value * (right - left) if letter == "x" else bottom - value * (bottom - top)
    axis = axes[name]
    return axis.start + value * (axis.end - axis.start) if domain else axis.pixel(value)
