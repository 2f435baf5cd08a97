"""The QK or OV map of one head, from token to token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import CHARACTERS, finish
from analyses.figures.style import DIVERGING, blank, escaped, label_width, tick_labels, visible
from mechproc.errors import require
from mechproc.result import Result

AXES = (("query", "key"), ("source", "output"))
MAX_TOKEN = 12
"""Characters of a token that are drawn beside an axis."""


def head_map(found: Result, tokens: Sequence[str] | None = None, *, centred: bool = True, title: str = "") -> go.Figure:
    """A map of one head: rows are queries or sources, columns keys or outputs, colours centred at zero.

    - ``found``: one of the Results of ``analyses.circuit.maps``, or what ``analyses.weights.circuit`` returns;
    - ``tokens``: a name for each token, such as ``procedure.token_names()``, for axes that are tokens; positions and
      axes of another length are numbered;
    - ``centred``: subtract the mean of each row. A number that is added to all logits, or to the scores of all keys of
      a query, changes nothing after the softmax.

    Errors: ``ConfigError`` for a Result of other axes.
    """
    require(tuple(found.axes) in AXES, "axes", tuple(found.axes), f"one of {AXES}")
    values = found.values - found.values.mean(1, keepdims=True) if centred else found.values
    names = [
        [str(token) for token in tokens] if tokens is not None and len(tokens) == size else [str(x) for x in labels]
        for size, labels in zip(values.shape, found.coordinates.values(), strict=True)
    ]
    rows, columns = names
    bound = float(np.abs(values).max(initial=0.0)) or 1.0
    (row_axis, column_axis), unit = found.axes, escaped(found.unit)
    hover = [
        [escaped(f"{row_axis} {visible(row)}, {column_axis} {visible(column)}") for column in columns] for row in rows
    ]
    width, height = (round(n * min(max(480 / n, 12), 26)) for n in (len(columns), len(rows)))
    figure = blank()
    figure.add_heatmap(
        z=values, text=hover, zmin=-bound, zmax=bound, colorscale=DIVERGING, xgap=0.5, ygap=0.5,
        colorbar={"len": 1, "thickness": 10, "outlinewidth": 0, "nticks": 5, "title": {"text": unit}},
        hovertemplate="%{text}: %{z:.3f}<extra></extra>",
    )  # fmt: skip
    ticks = {"showgrid": False, "zeroline": False, "tickfont": {"size": 10}}
    figure.update_xaxes(
        title={"text": column_axis, "standoff": 8}, tickangle=-90,
        tickvals=list(range(len(columns))), ticktext=tick_labels(columns, MAX_TOKEN), **ticks,
    )  # fmt: skip
    figure.update_yaxes(
        title={"text": row_axis, "standoff": 8}, range=[len(rows) - 0.5, -0.5],
        tickvals=list(range(len(rows))), ticktext=tick_labels(rows, MAX_TOKEN), **ticks,
    )  # fmt: skip
    left, below = (34 + label_width(labels, MAX_TOKEN) for labels in names)
    total = max(left + width + 100, 440)
    figure.update_layout(width=total)
    sentences = ["One head of one model, from its weights alone, so without an interval."]
    sentences += ["The mean of each row is subtracted."] if centred else []
    return finish(
        figure, found, sentences, plot_height=height, left=left, right=total - left - width, below=below, title=title,
        characters=min(round((total - 30) / 6), CHARACTERS),
    )  # fmt: skip
