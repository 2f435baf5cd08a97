"""One head's attention on one item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import CHARACTERS, finish
from analyses.figures.means import with_axes
from analyses.figures.style import SEQUENTIAL, blank, escaped, label_width, tick_labels, visible
from mechproc.errors import require
from mechproc.result import Result

MAX_TOKEN = 12
"""Characters of a token that are drawn beside an axis."""


def attention_pattern(attention: Result, tokens: Sequence[str], title: str = "") -> go.Figure:
    """One head's attention on one item: ``attention`` has the axes ``query`` and ``key``, one token name for each.

    A long item is cut with ``attention.select(query=[...], key=[...])``; ``tokens`` are still those of the whole item.
    """
    attention = with_axes(attention, "query", "key")
    queries, keys = (np.array(attention.coordinates[axis], dtype=int) for axis in ("query", "key"))
    least = int(max(queries.max(), keys.max())) + 1
    require(len(tokens) >= least, "number of tokens", len(tokens), f"at least {least}, one for each position")
    rows, columns = ([str(tokens[p]) for p in places] for places in (queries, keys))
    values = np.where(keys <= queries[:, None], attention.values, np.nan)  # a key after its query: nothing
    of_keys = [f"key {k} {visible(column)}" for k, column in zip(keys, columns, strict=True)]
    hover = [
        [escaped(f"query {q} {visible(row)}, {key}") for key in of_keys] for q, row in zip(queries, rows, strict=True)
    ]
    width, height = (round(len(places) * min(max(480 / len(places), 12), 26)) for places in (keys, queries))
    figure = blank()
    figure.add_heatmap(
        z=values, text=hover, zmin=0, zmax=1, colorscale=SEQUENTIAL, xgap=0.5, ygap=0.5,
        colorbar={"len": 1, "thickness": 10, "outlinewidth": 0, "nticks": 3},
        hovertemplate="%{text}: %{z:.3f}<extra></extra>",
    )  # fmt: skip
    ticks = {"showgrid": False, "zeroline": False, "tickfont": {"size": 10}}
    label_widths = [label_width(names, MAX_TOKEN) for names in (rows, columns)]
    figure.update_xaxes(
        title={"text": "key", "standoff": 8}, tickangle=-90,
        tickvals=list(range(len(keys))), ticktext=tick_labels(columns, MAX_TOKEN), **ticks,
    )  # fmt: skip
    figure.update_yaxes(
        title={"text": "query", "standoff": 8}, range=[len(queries) - 0.5, -0.5],
        tickvals=list(range(len(queries))), ticktext=tick_labels(rows, MAX_TOKEN), **ticks,
    )  # fmt: skip
    left, below = (34 + width_of_labels for width_of_labels in label_widths)
    total = max(left + width + 100, 440)
    figure.update_layout(width=total)
    return finish(
        figure, attention, ["One head of one seed on one item, so without an interval."],
        plot_height=height, left=left, right=total - left - width, below=below, title=title,
        characters=min(round((total - 30) / 6), CHARACTERS),
    )  # fmt: skip
