"""Elements of an SVG document as text: attributes escaped, coordinates rounded, plotly's small HTML read."""

from __future__ import annotations

import html
import math
import re
from typing import Any

from markupsafe import Markup, escape

from analyses.figures.style import GREY

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""Characters that XML has no way to write."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
LINE = 1.25
"""Height of a line of text, in units of its size."""
TAG = re.compile(r"<(/?)(b|i|span|sub|sup)\b([^>]*)>")


def element(tag: str, *children: str, **attributes: Any) -> Markup:
    """``<tag …>children</tag>``; ``_`` in a name is ``-``, and attributes that are ``None`` are left out.

    Children are markup, or text that is escaped.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{written_value(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    inside = "".join(child if isinstance(child, Markup) else escape(clean(child)) for child in children)
    return Markup(f"<{tag}{written}>{inside}</{tag}>" if inside else f"<{tag}{written}/>")


def written_value(value: Any) -> str:
    """An attribute's value: numbers with two decimals at most, texts escaped."""
    return number(value) if isinstance(value, float | int) else str(escape(clean(str(value))))


def clean(text: str) -> str:
    """A text without the characters that no XML document can hold; a mark stands in their place."""
    return CONTROL.sub("\ufffd", text)


def number(value: float) -> str:
    """A coordinate, to a tenth of a pixel, as short as it can be written."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def path(xs: Any, ys: Any, *, closed: bool = False) -> str:
    """The lines through these points; a point that is not a number breaks the line."""
    parts, pen = [], "M"
    for x, y in zip(xs, ys, strict=True):
        if not (math.isfinite(x) and math.isfinite(y)):
            if closed and parts and parts[-1] != "Z":
                parts.append("Z")
            pen = "M"
            continue
        parts.append(f"{pen}{number(x)} {number(y)}")
        pen = "L"
    if closed and parts and parts[-1] != "Z":
        parts.append("Z")
    return "".join(parts)


def text_block(
    source: str, x: float, y: float, *, size: float = 12.5, anchor: str = "start", fill: str = "var(--ink)",
    vertical: str = "middle", turned: float = 0,
) -> Markup:  # fmt: skip
    """Lines of plotly's text at a point: ``vertical`` says whether their top, middle or bottom is there."""
    lines = re.split(r"<br\s*/?>", source)
    height = LINE * size
    first = {"top": 0.8 * size, "middle": 0.35 * size - (len(lines) - 1) * height / 2}.get(
        vertical, -0.25 * size - (len(lines) - 1) * height
    )
    spans = [element("tspan", *_styled(line), x=x, dy=None if row == 0 else height) for row, line in enumerate(lines)]
    spun = f"rotate({number(turned)} {number(x)} {number(y)})" if turned else None
    return element(
        "text", *spans, x=x, y=y + first, font_size=size, text_anchor=anchor if anchor != "start" else None, fill=fill,
        transform=spun,
    )  # fmt: skip


def plain_text(source: str) -> str:
    """Plotly's text without its tags, as one line."""
    return html.unescape(TAG.sub("", re.sub(r"<br\s*/?>", " ", source)))


def n_lines(source: str) -> int:
    """Lines of plotly's text."""
    return source.count("<br") + 1


def _styled(line: str) -> list[Markup]:
    """A line as spans: ``<b>`` is bold, ``<span style="font-size:11px;color:#c4513f">`` as it says."""
    pieces: list[Markup] = []
    style: dict[str, str] = {}
    bold, place = False, 0
    for match in [*TAG.finditer(line), None]:
        raw = line[place : match.start() if match else len(line)]
        if raw:
            colour = style.get("color")
            pieces.append(
                element(
                    "tspan",
                    html.unescape(raw),
                    font_weight="600" if bold else None,
                    font_size=style.get("font-size"),
                    fill="var(--soft)" if colour == GREY else colour,
                )
            )
        if match:
            place = match.end()
            closing, tag, attributes = match.groups()
            if tag == "b":
                bold = not closing
            elif tag == "span":
                found = re.findall(r"([\w-]+):\s*([^;\"]+)", attributes)
                style = {} if closing else {str(key): str(value) for key, value in found}
    return pieces
