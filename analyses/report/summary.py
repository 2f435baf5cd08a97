"""A figure in a sentence, for who does not see it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from analyses.figures.svg.elements import plain_text
from mechproc.result import Result, in_words


def summary(figures: Sequence[go.Figure], data: Result | None) -> str:
    """The title, and of the numbers the highest and the lowest, and how many there are none of."""
    titles = dict.fromkeys(plain_text(str(figure.layout.title.text or "")) for figure in figures)  # type: ignore[union-attr]
    text = "; ".join(title for title in titles if title) or "figure"
    if data is None or not np.isfinite(data.values).any():
        return f"{text}." if data is None else f"{text}. No number is there."
    ends = [("Highest", np.nanargmax(data.values)), ("lowest", np.nanargmin(data.values))]
    said = [f"{word} {data.values.flat[at]:.4g} at {_place(data, int(at))}" for word, at in ends]
    said += [f"{int(data.is_missing.sum())} cells missing"] if data.is_missing.any() else []
    said += [f"{int(data.is_undefined.sum())} undefined"] if data.is_undefined.any() else []
    return f"{text}. {', '.join(said)} ({data.unit})."


def _place(data: Result, flat: int) -> str:
    index = np.unravel_index(flat, data.values.shape)
    return in_words({axis: data.coordinates[axis][int(i)] for axis, i in zip(data.axes, index, strict=True)})
