"""Marks: lines, dots, bars of intervals, and heat maps."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from analyses.figures.style import INK
from analyses.figures.svg.axes import Axis
from analyses.figures.svg.elements import element, number, path, plain_text, text_block
from analyses.figures.svg.numbers import filled, floats

DASH = {"dot": "1.5 3", "dash": "7 4", "dashdot": "7 3 1.5 3"}
SMALLEST_TEXT = 6.5
"""Pixels below which a number is left out of its cell; hovering says it."""
CAP = 4
"""Half the length of the cap of an interval, in pixels."""
Links = Mapping[str, str]
"""Anchor of the evidence on a subject, by the subject."""


def scatter(trace: dict[str, Any], x: Axis, y: Axis, hatch: str | None) -> list[Markup]:
    """Lines, areas, intervals, dots and texts of one trace, in this order."""
    xs, ys = x.at(trace["x"]), y.at(trace["y"])
    mode, colour = str(trace.get("mode", "lines")), _colour(trace)
    drawn: list[Markup] = []
    line = trace.get("line") or {}
    if trace.get("fill") == "toself":
        fill = f"url(#{hatch})" if trace.get("fillpattern") and hatch else trace.get("fillcolor")
        drawn.append(element("path", d=path(xs, ys, closed=True), fill=fill, stroke="none", pointer_events="none"))
    if "lines" in mode and line.get("width", 2) and not trace.get("fill"):
        title = _title(_hover(trace, None))
        drawn.append(
            element(
                "path",
                *title,
                d=path(xs, ys),
                fill="none",
                stroke=colour,
                stroke_width=line.get("width", 2),
                stroke_dasharray=DASH.get(str(line.get("dash"))),
                stroke_linejoin="round",
            )
        )
    for letter, ends in (("x", trace.get("error_x")), ("y", trace.get("error_y"))):
        if ends:
            drawn += _interval(letter, ends, trace, x, y)
    if "markers" in mode:
        drawn += [_marker(trace, n, px, py) for n, (px, py) in enumerate(zip(xs, ys, strict=True)) if _seen(px, py)]
    if "text" in mode:
        font = trace.get("textfont") or {}
        texts = _each(trace.get("text"), len(xs))
        drawn += [
            text_block(str(t), px, py, anchor="middle", size=font.get("size", 12), fill=font.get("color", "var(--ink)"))
            for t, px, py in zip(texts, xs, ys, strict=True)
        ]
    opacity = trace.get("opacity")
    return [element("g", *drawn, opacity=opacity, class_="series" if "lines" in mode else None)] if drawn else []


def heatmap(trace: dict[str, Any], x: Axis, y: Axis, links: Links, hatch: str) -> list[Markup]:
    """The cells of a heat map. One without a value is left out, or hatched where ``meta["hatched"]`` asks for it.

    ``meta["subjects"]``, [row][column], says what the cells are about, ``meta["blank"]``, [column], which columns only
    keep others apart.
    """
    rows = [[math.nan if v is None else float(v) for v in row] for row in trace["z"]]
    values = np.array(rows, dtype=float)
    scale = colours(trace)
    meta = trace.get("meta") or {}
    subjects, blank = meta.get("subjects"), meta.get("blank") or []
    nothing = f"url(#{hatch})" if meta.get("hatched") else "transparent"
    template, size = trace.get("texttemplate"), (trace.get("textfont") or {}).get("size", 11)
    gap_x, gap_y = float(trace.get("xgap") or 0), float(trace.get("ygap") or 0)
    cells = []
    for i, j in np.ndindex(values.shape):
        empty = math.isnan(values[i, j])
        if (j < len(blank) and blank[j]) or (empty and subjects is None):
            continue
        (left, right), (top, bottom) = (sorted(axis.at([n - 0.5, n + 0.5])) for axis, n in ((x, j), (y, i)))
        about = {"z": None if empty else values[i, j], **_fields(trace, i, j)}
        fill = scale(values[i, j]) if about["z"] is not None else None
        hover = html.unescape(plain_text(filled(str(trace.get("hovertemplate") or "%{z:.4g}"), about)))
        where = {"x": left + gap_x / 2, "y": top + gap_y / 2, "width": max(right - left - gap_x, 0.5),
                 "height": max(bottom - top - gap_y, 0.5)}  # fmt: skip
        inside = [element("rect", *_title(hover), **where, fill=fill or nothing, class_=None if fill else "none")]
        written = filled(str(template), about) if template else ""
        if written and written != "no value":
            ink = "var(--ink)" if fill is None else INK if _lightness(fill) > 0.5 else "#ffffff"
            middle = ((left + right) / 2, (top + bottom) / 2)
            longest = max(len(line) for line in plain_text(written.replace("<br>", "\n")).split("\n"))
            fitting = min(float(size), where["width"] / (0.58 * longest))
            if fitting >= SMALLEST_TEXT:
                inside.append(text_block(written, *middle, anchor="middle", size=fitting, fill=ink))
        subject = subjects[i][j] if subjects else None
        target = links.get(str(subject))
        cells += [element("a", *inside, href=f"#{target}", data_row=i, data_column=j)] if target else inside
    return [element("g", *cells, class_="cells")]


def colours(trace: dict[str, Any]) -> Any:
    """The colour of a value, from the trace's scale: a function."""
    stops = [(float(at), _rgb(colour)) for at, colour in trace["colorscale"]]
    low, high = float(trace["zmin"]), float(trace["zmax"])

    def colour(value: float) -> str:
        share = min(max((value - low) / ((high - low) or 1.0), 0.0), 1.0)
        at = [stop[0] for stop in stops]
        mixed = [round(float(np.interp(share, at, [stop[1][c] for stop in stops]))) for c in range(3)]
        return "#" + "".join(f"{c:02x}" for c in mixed)

    return colour


def _fields(trace: dict[str, Any], i: int, j: int) -> dict[str, Any]:
    """What a template can name at a cell."""
    named = {"text": trace.get("text"), "customdata": trace.get("customdata")}
    return {name: grid[i][j] for name, grid in named.items() if grid is not None}


def _marker(trace: dict[str, Any], n: int, x: float, y: float) -> Markup:
    marker = trace.get("marker") or {}
    radius = float(marker.get("size") or 6) / 2
    edge = marker.get("line") or {}
    style: dict[str, Any] = {
        "fill": marker.get("color") or _colour(trace),
        "fill_opacity": marker.get("opacity"),
        "stroke": "var(--card)" if edge.get("color") == "white" else edge.get("color"),
        "stroke_width": edge.get("width"),
    }
    title = _title(_hover(trace, n))
    symbol = marker.get("symbol")
    if symbol in ("diamond", "square"):
        corners = {"diamond": [(0, -1), (1, 0), (0, 1), (-1, 0)], "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)]}
        points = " ".join(f"{number(x + dx * radius)},{number(y + dy * radius)}" for dx, dy in corners[str(symbol)])
        return element("polygon", *title, points=points, **style)
    return element("circle", *title, cx=x, cy=y, r=radius, **style)


def _interval(letter: str, ends: dict[str, Any], trace: dict[str, Any], x: Axis, y: Axis) -> list[Markup]:
    lines: list[Markup] = []
    if ends.get("array") is None:
        return lines
    centre = floats(trace[letter])
    low = centre - floats(ends["arrayminus"] if ends.get("arrayminus") is not None else ends["array"])
    high = centre + floats(ends["array"])
    along, across = (x, y.at(trace["y"])) if letter == "x" else (y, x.at(trace["x"]))
    for a, b, side in zip(along.at(low), along.at(high), across, strict=True):
        if not (_seen(a, b) and math.isfinite(side)):
            continue
        cap = [(a, side - CAP), (a, side + CAP), (math.nan, 0), (a, side), (b, side), (math.nan, 0),
               (b, side - CAP), (b, side + CAP)]  # fmt: skip
        points = cap if letter == "x" else [(second, first) for first, second in cap]
        outline = path([p[0] for p in points], [p[1] for p in points])
        lines.append(
            element("path", d=outline, fill="none", stroke=ends.get("color") or _colour(trace),
                    stroke_width=ends.get("thickness", 2))
        )  # fmt: skip
    return lines


def _hover(trace: dict[str, Any], n: int | None) -> str:
    """What is said of one mark, or of the line as a whole (``n`` is ``None``); empty where nothing is to be said."""
    if trace.get("hoverinfo") == "skip":
        return ""
    texts = trace.get("hovertext") if trace.get("hovertext") is not None else trace.get("text")
    if n is None:
        return plain_text(texts) if isinstance(texts, str) else plain_text(str(trace.get("name") or ""))
    text = _each(texts, n + 1)[n]
    template = trace.get("hovertemplate")
    values = {"text": text, "x": trace["x"][n], "y": trace["y"][n]}
    return plain_text(filled(str(template), values)) if template else plain_text(str(text or ""))


def _each(texts: Any, n: int) -> list[Any]:
    """One text for each mark."""
    return [texts] * n if texts is None or isinstance(texts, str) else list(texts)


def _title(hover: str) -> list[Markup]:
    return [element("title", hover)] if hover else []


def _colour(trace: dict[str, Any]) -> str:
    return str((trace.get("line") or {}).get("color") or (trace.get("marker") or {}).get("color") or "var(--accent)")


def _seen(*pixels: float) -> bool:
    return all(math.isfinite(p) for p in pixels)


def _rgb(colour: str) -> tuple[int, int, int]:
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return r, g, b


def _lightness(colour: str) -> float:
    r, g, b = _rgb(colour)
    return (0.299 * r + 0.587 * g + 0.114 * b) / 255
