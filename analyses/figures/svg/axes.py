"""Axes: where a value lies in the drawing, and what is written beside it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from analyses.figures.svg.elements import element, n_lines, plain_text, text_block
from analyses.figures.svg.numbers import floats, formatted, log_ticks, power, ticks

PADDING = 0.05
"""Share of an axis that is left free at either end of the data, where no range was given."""
TICK = 5
TURNED = -40.0
"""Degrees by which labels are turned that would overlap."""
SPACING = {"x": 75, "y": 45}
"""Pixels between two ticks, about."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of one panel."""

    letter: str
    """``"x"`` or ``"y"``."""
    about: dict[str, Any]
    """What plotly's layout says of it, the template's values included."""
    start: float
    """Where its low end lies, in pixels; the low end of a y axis is at the bottom."""
    end: float
    low: float
    """Log10 of the value on a logarithmic axis."""
    high: float

    @property
    def is_log(self) -> bool:
        """Whether the axis is logarithmic."""
        return self.about.get("type") == "log"

    def at(self, values: Any) -> np.ndarray:
        """Pixels of these values, float64 [n]."""
        values = floats(values)
        if self.is_log:
            with np.errstate(divide="ignore", invalid="ignore"):
                values = np.where(values > 0, np.log10(np.maximum(values, 1e-300)), np.nan)
        return self.start + (values - self.low) / ((self.high - self.low) or 1.0) * (self.end - self.start)

    def pixel(self, value: float) -> float:
        """The pixel of one value."""
        return float(self.at([value])[0])

    def labels(self) -> list[tuple[float, str]]:
        """Ticks: value and text."""
        about = self.about
        if about.get("tickvals") is not None:
            values = floats(about["tickvals"]).tolist()
            texts = about.get("ticktext")
            given = list(texts) if texts is not None else [formatted(v, about.get("tickformat")) for v in values]
            return [(v, str(t)) for v, t in zip(values, given, strict=True)]
        low, high = min(self.low, self.high), max(self.low, self.high)
        if self.is_log:
            return [(v, power(v)) for v in log_ticks(low, high)]
        if about.get("dtick"):
            step = float(about["dtick"])
            values = [step * n for n in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]
        else:
            values = ticks(low, high, max(2, round(abs(self.end - self.start) / SPACING[self.letter])))
        return [(v, formatted(v, about.get("tickformat"))) for v in values]


def ranged(letter: str, about: dict[str, Any], start: float, end: float, data: Sequence[np.ndarray]) -> Axis:
    """The axis over the range that the layout gives, or over the data with a little room at either end."""
    if about.get("range") is not None:
        low, high = (float(x) for x in about["range"])
        return Axis(letter, about, start, end, low, high)
    values = np.concatenate([*data, np.array([])])
    if about.get("type") == "log":
        values = np.log10(values[values > 0])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    room = PADDING * (high - low) or 0.5
    return Axis(letter, about, start, end, low - room, high + room)


def grid(axis: Axis, across: tuple[float, float]) -> list[Markup]:
    """The lines behind the marks, from one end of the panel to the other, and the line at zero."""
    about, lines = axis.about, []
    if about.get("visible") is False:
        return []
    where = [value for value, _ in axis.labels()] if about.get("showgrid") is not False else []
    if about.get("zeroline") is not False and not axis.is_log and min(axis.low, axis.high) < 0:
        where = [*where, 0.0]
    for value in dict.fromkeys(where):
        p = axis.pixel(value)
        if min(axis.start, axis.end) - 0.5 <= p <= max(axis.start, axis.end) + 0.5:
            lines.append(_line(axis.letter, p, across, stroke="var(--line)"))
    return lines


def ticks_and_title(axis: Axis, edge: float, panel: tuple[float, float], links: dict[str, str]) -> list[Markup]:
    """Tick marks, their labels and the axis title beside the panel's ``edge``; labels of known subjects are links."""
    about, marks = axis.about, []
    if about.get("visible") is False:
        return []
    size = float((about.get("tickfont") or {}).get("size") or 12)
    shown = about.get("showticklabels") is not False
    angle = _angle(axis, size) if shown else 0
    longest = 0.0
    for value, label in axis.labels():
        p = axis.pixel(value)
        if not min(axis.start, axis.end) - 0.5 <= p <= max(axis.start, axis.end) + 0.5:
            continue
        if about.get("ticks") == "outside":
            outside = (edge, edge + TICK if axis.letter == "x" else edge - TICK)
            marks.append(_line(axis.letter, p, outside, stroke="var(--soft)"))
        if not shown:
            continue
        longest = max(longest, 0.56 * size * len(plain_text(label)))
        at: dict[str, Any] = {"size": size, "fill": "var(--ink)"}
        if axis.letter == "y":
            text = text_block(label, edge - TICK - 3, p, anchor="end", **at)
        elif angle:
            text = text_block(label, p, edge + TICK + 3, anchor="end", turned=angle, **at)
        else:
            text = text_block(label, p, edge + TICK + 3, anchor="middle", vertical="top", **at)
        target = links.get(plain_text(label))
        marks.append(text if target is None else element("a", text, href=f"#{target}"))
    title = (about.get("title") or {}).get("text")
    if title:
        middle = (panel[0] + panel[1]) / 2
        if axis.letter == "x":
            below = longest * abs(np.sin(np.radians(angle))) if angle else 1.2 * size
            marks.append(text_block(title, middle, edge + TICK + 10 + below, anchor="middle", vertical="top"))
        else:
            left = edge - TICK - 16 - longest - 12.5 * (n_lines(title) - 1)
            marks.append(text_block(title, max(left, 10), middle, anchor="middle", turned=-90))
    return marks


def _angle(axis: Axis, size: float) -> float:
    """How the labels are turned: as the layout says, or upwards where they would overlap."""
    if axis.about.get("tickangle") is not None or axis.letter == "y":
        return float(axis.about.get("tickangle") or 0)
    labels = axis.labels()
    places = sorted(axis.pixel(value) for value, _ in labels)
    room = min((b - a for a, b in itertools.pairwise(places)), default=float("inf"))
    return TURNED if max((0.56 * size * len(plain_text(label)) for _, label in labels), default=0) > room else 0


def _line(letter: str, at: float, across: tuple[float, float], stroke: str) -> Markup:
    if letter == "x":
        return element("line", x1=at, x2=at, y1=across[0], y2=across[1], stroke=stroke)
    return element("line", y1=at, y2=at, x1=across[0], x2=across[1], stroke=stroke)
