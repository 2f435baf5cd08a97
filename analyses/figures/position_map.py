"""Parts by positions: where a patch changes the answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import finish
from analyses.figures.means import with_axes
from analyses.figures.style import DIVERGING, blank, escaped, label_width, tick_labels, visible
from mechproc.errors import require
from mechproc.result import Result

MAX_TOKEN = 12
"""Characters of a token that are drawn beside an axis."""


def position_map(effects: Result, tokens: Sequence[str] | None = None, title: str = "") -> go.Figure:
    """Parts by positions of one seed (or one item of it), colours centred at zero.

    ``effects`` has the axes ``part`` and ``position``, such as
    ``patching.effect(found).select(seed=0)``. ``tokens``: a name for each position of an item, to be drawn under it;
    for a mean over items it is what stands there in one of them, or its role. Cells without a value are left white.
    Errors: ``ConfigError`` for other axes, or too few tokens.
    """
    effects = with_axes(effects, "part", "position")
    parts, places = ([str(label) for label in effects.coordinates[axis]] for axis in ("part", "position"))
    names = list(places)
    if tokens is not None:
        require(len(tokens) >= len(places), "number of tokens", len(tokens), f"at least {len(places)}, one a position")
        names = [f"{place} {visible(str(token))}" for place, token in zip(places, tokens, strict=False)]
    bound = float(np.nanmax(np.abs(effects.values), initial=0.0)) or 1.0
    hover = [[escaped(f"{part}, position {name}") for name in names] for part in parts]
    figure = blank()
    figure.add_heatmap(
        z=effects.values, text=hover, meta={"subjects": [[part] * len(names) for part in parts]},
        zmin=-bound, zmax=bound, colorscale=DIVERGING, xgap=0.5, ygap=1,
        colorbar={"len": 1, "thickness": 10, "outlinewidth": 0, "title": {"text": escaped(effects.unit)}},
        hovertemplate="%{text}: %{z:.4f}<extra></extra>",
    )  # fmt: skip
    ticks = {"showgrid": False, "zeroline": False, "tickfont": {"size": 10}}
    below = 34 + label_width(names, MAX_TOKEN)
    figure.update_xaxes(
        title={"text": "position", "standoff": 8}, tickangle=-90,
        tickvals=list(range(len(names))), ticktext=tick_labels(names, MAX_TOKEN), **ticks,
    )  # fmt: skip
    figure.update_yaxes(
        range=[len(parts) - 0.5, -0.5], tickvals=list(range(len(parts))), ticktext=tick_labels(parts), **ticks
    )
    sentences = ["One model, so without an interval."]
    reasons = dict.fromkeys(reason for _, reason in effects.undefined)
    sentences += [f"White: {reason.rstrip('.')}." for reason in reasons]
    left = label_width(parts)
    figure.update_layout(width=max(left + 14 * len(names) + 110, 700))
    height = (26 if len(parts) <= 14 else 18) * len(parts)
    return finish(
        figure, effects, sentences, plot_height=height, left=left, right=100, below=below, title=title
    )  # fmt: skip
